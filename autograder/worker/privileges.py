"""What a process gives up before it runs code that it must not trust (Linux)."""

from __future__ import annotations

import ctypes
import itertools
import os
import platform
import sys
from pathlib import Path

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_CAPABILITIES = 0x20080522  # the version of capset's structures
# Landlock's system calls have these numbers on every processor; see landlock(7).
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_MAKE_DEVICES = 1 << 6 | 1 << 11  # the right to make devices, which no ordinary user has


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


def keep_to_itself() -> None:
    """Trace nothing that runs already, nor see its memory, though its user is the same.

    That is what a Landlock domain does, whatever else it forbids; kernels without it let it be.
    Without `no_new_privs` or rights, it cannot be entered.
    """
    libc = ctypes.CDLL(None)
    handled = ctypes.c_uint64(_MAKE_DEVICES)
    size = ctypes.c_size_t(ctypes.sizeof(handled))
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(handled), size, 0)
    if ruleset >= 0:
        libc.syscall(_RESTRICT_SELF, ruleset, 0)
        os.close(ruleset)


def give_up(uid: int | None) -> None:
    """Leave user and capabilities behind for good; ends the process where a capability is left.

    uid: of the user to become, where it is root's process.
    """
    libc = ctypes.CDLL(None)
    libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    dropped = (libc.prctl(_PR_CAPBSET_DROP, n, 0, 0, 0) for n in itertools.count())
    for done in dropped:  # until there is no such capability, or no right to drop it
        if done != 0:
            break
    if uid:
        drop_privileges(uid)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    keep_to_itself()
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0)
    libc.capset(header, (ctypes.c_uint32 * 6)())  # effective, permitted and inheritable, twice
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    left = [line for line in lines if line.startswith(("CapInh", "CapPrm", "CapEff", "CapAmb"))]
    if len(left) != 4 or any(int(line.split()[1], 16) for line in left):
        sys.exit("capabilities are left")
