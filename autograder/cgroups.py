"""A control group for one submission: a bound on the memory and the processes of all it starts.

Limits of a process do not add up: sixty of them may take sixty times as much. Where this user may
make a control group (root, mostly), a submission gets one of its own; elsewhere there is none.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

MEMORY = 6 << 30  # bytes
PROCESSES = 128
_CONTROLLERS = ("memory", "pids")
_ENTER = 'for folder in $GROUPS_OF_WORKER; do echo $$ > "$folder/cgroup.procs" || exit 1; done; '


@dataclass(frozen=True)
class Group:
    """Folders of one control group: one in version 2, one for each controller in version 1."""

    folders: tuple[Path, ...]

    def entered(self, command: list[str]) -> list[str]:
        """The command that enters the group and then becomes the given one."""
        names = " ".join(map(str, self.folders))
        return ["/bin/sh", "-c", f"GROUPS_OF_WORKER='{names}'; {_ENTER}exec \"$@\"", "sh", *command]

    def take_in(self, process: int) -> None:
        """Let a process enter the group; raises `OSError`."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(process))

    def ran_out(self) -> bool:
        """Whether the kernel ended a process of the group because its memory was used up."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError, ValueError):
                    told = (folder / name).read_text().split()
                    if int(told[told.index("oom_kill") + 1]) > 0:
                        return True
        return False

    def close(self) -> None:
        """Remove the group; its processes were killed, and go within moments."""
        for folder in self.folders:
            for _ in range(100):
                try:
                    folder.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:  # a process is still on its way out
                    with contextlib.suppress(OSError):
                        (folder / "cgroup.kill").write_text("1")
                    time.sleep(0.02)


def make() -> Group | None:
    """A new group, or None where none can be had."""
    name = f"autograder-{secrets.token_hex(8)}"
    for parents in (_version_2(), _version_1()):
        folders = tuple(parent / name for parent in parents)
        group = Group(folders)
        if folders and _is_made(group):
            return group
        group.close()
    return None


def _is_made(group: Group) -> bool:
    limits = {
        "memory.max": MEMORY,
        "memory.swap.max": 0,
        "memory.limit_in_bytes": MEMORY,
        "pids.max": PROCESSES,
    }
    held = set()
    try:
        for folder in group.folders:
            folder.mkdir()
            for name, limit in limits.items():
                if (folder / name).exists():
                    (folder / name).write_text(str(limit))
                    held.add(name)
    except OSError:
        return False
    return "pids.max" in held and bool(held & {"memory.max", "memory.limit_in_bytes"})


def _own_paths() -> dict[str, str]:
    """The groups that this process is in, by controller; "" in version 2."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return {}
    fields = [line.split(":", 2) for line in lines]
    return {name: path for _, names, path in fields for name in names.split(",")}


def _mounts() -> list[tuple[str, Path, set[str]]]:
    """Type, place and options of every mounted hierarchy."""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return []
    fields = [line.split() for line in lines]
    return [(f[2], Path(f[1]), set(f[3].split(","))) for f in fields if f[2].startswith("cgroup")]


def _version_2() -> list[Path]:
    own = _own_paths().get("")
    for kind, place, _ in _mounts():
        if kind == "cgroup2" and own is not None:
            parent = place / own.lstrip("/")
            with contextlib.suppress(OSError):
                (parent / "cgroup.subtree_control").write_text("+memory +pids")
            return [parent]
    return []


def _version_1() -> list[Path]:
    own = _own_paths()
    parents = []
    for controller in _CONTROLLERS:
        for kind, place, options in _mounts():
            if kind == "cgroup" and controller in options and controller in own:
                parent = place / own[controller].lstrip("/")
                parents.append(parent if parent.is_dir() else place)
    return parents if len(parents) == len(_CONTROLLERS) else []
