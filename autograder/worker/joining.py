"""A process enters a box that bubblewrap has made around another (Linux 5.8 and later)."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

# Kinds of namespaces, by their names under /proc, and their flags; see namespaces(7).
_KINDS = {
    "user": 0x10000000,
    "mnt": 0x00020000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
}
NEEDED = frozenset(("mnt", "pid", "net", "ipc", "uts"))  # without which it is no box


def join(process: int) -> None:
    """Enter the namespaces of a process, all at once; its process tree holds for children alone.

    process: a number of the own process tree. Raises `OSError`.
    """
    own, other = Path("/proc/self/ns"), Path(f"/proc/{process}/ns")
    held = os.pidfd_open(process)
    try:
        kinds = [k for k in _KINDS if (own / k).readlink() != (other / k).readlink()]
        if not NEEDED.issubset(kinds):
            raise OSError(f"process {process} is in no box")
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(held, sum(_KINDS[k] for k in kinds)) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(held)
