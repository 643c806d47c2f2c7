"""How long processes have waited for a core: a busy machine must not make code look slow."""

from __future__ import annotations

import contextlib
from pathlib import Path

PROC = Path("/proc")


def waited(process: int) -> float:
    """Seconds that a process, or one that it started, has been ready to run but had no core.

    The longest of any of their threads; 0 where the system does not tell (other than Linux).
    """
    longest = 0.0
    for thread in _threads(process):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it may end at any time
            nanoseconds = int((thread / "schedstat").read_text().split()[1])
            longest = max(longest, nanoseconds / 1e9)
        with contextlib.suppress(OSError, ValueError):
            started = (thread / "children").read_text().split()
            longest = max([longest, *(waited(int(child)) for child in started)])
    return longest


def _threads(process: int) -> list[Path]:
    try:
        return list((PROC / str(process) / "task").iterdir())
    except OSError:
        return []
