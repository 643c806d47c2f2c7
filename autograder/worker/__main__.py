"""The worker: runs a notebook's definitions once, then serves sessions to the host.

Started as `python -I .../autograder/worker OPTIONS-AS-JSON`. Requests come on standard input,
answers go to standard output; student code sees neither.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import sys
from pathlib import Path


def drop_privileges(uid: int) -> None:
    """Become an ordinary user that nobody else is, so that limits hold even under root."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def leave_keyring() -> None:
    """Join a session keyring of its own: that of whoever grades may hold secrets (Linux)."""
    number = {"x86_64": 250, "aarch64": 219}.get(platform.machine())  # of the system call keyctl
    if sys.platform == "linux" and number is not None:
        ctypes.CDLL(None).syscall(number, 1, None)


def _start() -> None:
    options = json.loads(sys.argv[1])
    leave_keyring()
    if options.get("uid"):
        drop_privileges(options["uid"])
    requests = os.fdopen(os.dup(0), "rb", buffering=1 << 16)
    answers = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1) if options.get("stderr") else (0, 1, 2):
        os.dup2(nowhere, stream)
    here = str(Path(__file__).resolve().parent)
    sys.path.insert(0, here)
    import syscalls

    if options.get("alone"):  # before torch, which may start threads: a filter is one thread's
        syscalls.refuse_calls()
    import serve

    sys.path.remove(here)
    sys.argv = [""]
    serve.Worker(requests, answers, options).run()


if __name__ == "__main__":
    _start()
