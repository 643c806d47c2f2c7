"""A filter of system calls: what is left of the kernel for code that has no use for the rest.

A worker needs files, memory, processes and pipes. Whatever makes namespaces, mounts or keys, looks
into other processes, loads code into the kernel, or speaks to anything but an ordinary network is
refused, with an error. The filter holds for the process that asks for it, and for all that it
starts; nothing takes it off again. See the kernel's "Seccomp BPF" and seccomp(2).
"""

from __future__ import annotations

import ctypes
import errno
import platform
import socket
import struct
import sys
from dataclasses import dataclass

# Numbers of system calls that are the same on every machine.
_REFUSED = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "mount_setattr": 442,
    "open_tree_attr": 467,
    "quotactl_fd": 443,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "pidfd_getfd": 438,
}
_CLONE3 = 435  # its flags lie in memory, where no filter sees them; whoever calls it has clone
_NAMES = (
    *("ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "perf_event_open", "userfaultfd"),
    *("unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "name_to_handle_at"),
    *("open_by_handle_at", "fanotify_init", "quotactl", "acct", "swapon", "swapoff", "reboot"),
    *("sethostname", "setdomainname", "syslog", "bpf", "init_module", "finit_module"),
    *("delete_module", "kexec_load", "kexec_file_load", "add_key", "request_key", "keyctl"),
)
_X86_64 = (
    *(101, 310, 311, 312, 298, 323, 272, 308, 165, 166, 155, 161, 303, 304, 300, 179, 163, 167),
    *(168, 169, 170, 171, 103, 321, 175, 313, 176, 246, 320, 248, 249, 250),
)
_ARM_64 = (
    *(117, 270, 271, 272, 241, 282, 97, 268, 40, 39, 41, 51, 264, 265, 262, 60, 89, 224),
    *(225, 142, 161, 162, 116, 280, 105, 273, 106, 104, 294, 217, 218, 219),
)
_NAMESPACES = 0x7E020000  # CLONE_NEWCGROUP to CLONE_NEWNET, and CLONE_NEWNS
_FAMILIES = (socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_UNIX", 1))
_FOREIGN = 1 << 30  # from here on, numbers of x32 programs on x86-64

# struct sock_filter: code, jump if true, jump if false, constant
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2


@dataclass(frozen=True)
class Machine:
    """What a filter must know of a processor: its name for auditing, and numbers of calls."""

    audit: int
    clone: int
    socket: int
    refused: dict[str, int]


MACHINES = {
    "x86_64": Machine(0xC000003E, 56, 41, dict(zip(_NAMES, _X86_64, strict=True)) | _REFUSED),
    "aarch64": Machine(0xC00000B7, 220, 198, dict(zip(_NAMES, _ARM_64, strict=True)) | _REFUSED),
}


def program(machine: Machine) -> bytes:
    """The filter as an array of `struct sock_filter`."""

    def refuse(code: int) -> tuple[int, int, int, int]:
        return (_RETURN, 0, 0, _ERROR | code)

    lines = [
        *((_LOAD, 0, 0, _MACHINE), (_EQUAL, 1, 0, machine.audit), refuse(errno.ENOSYS)),
        *((_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, _FOREIGN), refuse(errno.ENOSYS)),
        *((_EQUAL, 0, 1, _CLONE3), refuse(errno.ENOSYS)),
    ]
    for number in machine.refused.values():
        lines += [(_EQUAL, 0, 1, number), refuse(errno.EPERM)]
    lines += [(_EQUAL, 0, 3, machine.clone), (_LOAD, 0, 0, _FIRST_ARGUMENT)]
    lines += [(_ANY_BIT, 0, 1, _NAMESPACES), refuse(errno.EPERM)]
    # a number that was replaced by an argument is loaded again
    lines += [(_LOAD, 0, 0, _NUMBER), (_EQUAL, 0, 2 + len(_FAMILIES), machine.socket)]
    lines += [(_LOAD, 0, 0, _FIRST_ARGUMENT)]
    lines += [(_EQUAL, len(_FAMILIES) - i, 0, family) for i, family in enumerate(_FAMILIES)]
    lines += [refuse(errno.EAFNOSUPPORT), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def refuse_calls() -> bool:
    """Put the filter before this process; whether it stands.

    It cannot on other systems and processors, nor in a kernel without such filters.
    """
    machine = MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None:
        return False
    code = program(machine)
    held = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of lines, and where they are
    whole = struct.pack("HP", len(code) // 8, ctypes.addressof(held))
    prctl = ctypes.CDLL(None).prctl
    prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    where = ctypes.create_string_buffer(whole, len(whole))
    done: int = prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(where), 0, 0)
    return done == 0
