"""Standard streams of a process that runs student code: they lead nowhere."""

from __future__ import annotations

import os


def silence(errors: bool = False) -> None:
    """Lead standard input and output nowhere, and standard error unless `errors`."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1) if errors else (0, 1, 2):
        os.dup2(nowhere, stream)
    if nowhere > 2:
        os.close(nowhere)
