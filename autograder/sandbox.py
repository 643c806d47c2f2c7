"""The box around a worker: bubblewrap with everything unshared, where there is bubblewrap.

The box holds the interpreter, torch and the worker's own files, all read-only, and a small
folder in memory. It has no network, no environment, and no other file of this machine.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent
WORKER = PACKAGE / "worker"
MEMORY = 4 << 30  # bytes of address space beyond what torch itself takes
FILE_SIZE = 64 << 20  # bytes
PROCESSES = 64
_HIDDEN = ("solution", "assignment", "autograder", "course")  # what a submission must not see
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache")
# where notebooks are written, and write to
_ELSEWHERE = ("/content", "/kaggle", "/home", "/Users", "/workspace")
# One thread, so that a worker can fork.
_ALWAYS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_ALWAYS["TORCHDYNAMO_DISABLE"] = "1"  # `torch.compile` takes minutes and changes no answer
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}
_ENVIRONMENT["USER"] = "student"  # whose number has no name there
_BESIDE = (sys.executable, "-P", "-E", "-B")
_INSIDE = (sys.executable, "-I", "-B")
# No GPU, so that a notebook's `device` is the CPU.
_NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


@dataclass(frozen=True)
class Launch:
    """How to start a worker: its command, its environment and what it must be told."""

    command: list[str]
    environment: dict[str, str]
    options: dict[str, Any]


def missing() -> str | None:
    """Why no box can be had here, in one sentence, or None where one can."""
    if not sys.platform.startswith("linux"):
        return "the sandbox needs Linux"
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed (Debian: apt-get install bubblewrap)"
    return _probe()


@functools.cache
def _probe() -> str | None:
    command = [*_box(), "--", "/usr/bin/env", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return f"bubblewrap does not start here: {done.stderr.strip()[:200]}"


def launch(boxed: bool, device: str = "cpu") -> Launch:
    """How a worker starts, inside a box or beside the host; device: cpu or cuda."""
    options: dict[str, Any] = {"memory": MEMORY, "file_size": FILE_SIZE, "device": device}
    if not boxed:
        return Launch([*_BESIDE, str(WORKER)], _environment(boxed, device), options)
    options |= {"processes": PROCESSES, "alone": 1, **_user()}
    if not _is_root():
        options["processes"] += _own_processes()
    box = _box(_gpu_nodes() if device == "cuda" else [])
    command = [*box, *_rights(), "--", *_INSIDE, "/grader/worker"]
    return Launch(command, _environment(boxed, device), options)


def launch_referee(boxed: bool) -> Launch:
    """How the referee starts, which repeats claims; see `referee`."""
    folder = "/grader" if boxed else str(PACKAGE.parent)
    code = (
        f"import sys; sys.path.insert(0, {folder!r}); from autograder import referee as r; r.main()"
    )
    environment = _environment(boxed, "cpu")
    if not boxed:
        return Launch([*_BESIDE, "-c", code], environment, {})
    box = _box(grader=True)
    command = [*box, *_rights(), "--", *_INSIDE, "-c", code]
    return Launch(command, environment, {"alone": 1, **_user()})


def launch_forkserver() -> Launch:
    """How the fork server starts, beside the host: it runs no student code; see `forkserver`."""
    options = {"forks_workers": 1}
    return Launch([*_INSIDE, str(WORKER)], _environment(True, "cpu"), options)


def empty_box(tell: int) -> list[str]:
    """The command of a box in which nothing runs yet, and that ends when it is killed.

    It prints a line once it is made. What is left alone inside is adopted by its first process,
    and forgotten: it ignores SIGCHLD, which not every shell can, whatever its `trap` says. tell:
    the open file to which bubblewrap writes, as JSON, that process's number.
    """
    wait = "echo; exec env --ignore-signal=CHLD sleep infinity"
    return [*_box(), "--as-pid-1", "--info-fd", str(tell), "--", "/bin/sh", "-c", wait]


def _rights() -> list[str]:
    """What root's process keeps in its box, until it becomes nobody's and drops these with it."""
    names = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP") if _is_root() else ()
    return [part for name in names for part in ("--cap-add", name)]


def _environment(boxed: bool, device: str) -> dict[str, str]:
    environment = dict(os.environ if not boxed else _ENVIRONMENT) | _ALWAYS
    if device == "cpu":
        environment |= _NO_GPU
    elif "CUDA_VISIBLE_DEVICES" in os.environ:
        environment["CUDA_VISIBLE_DEVICES"] = os.environ["CUDA_VISIBLE_DEVICES"]
    return environment


def _user() -> dict[str, int]:
    """The user to become under root: one that nobody else is."""
    return {"uid": 1_000_000_000 + secrets.randbelow(1_000_000_000)} if _is_root() else {}


def _gpu_nodes() -> list[Path]:
    """The device files through which a process reaches the GPUs of this machine."""
    return sorted(path for path in Path("/dev").glob("nvidia*") if not path.is_dir())


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _own_processes() -> int:
    """Threads of this user: older kernels count them all against the limit."""
    count = 0
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == os.geteuid():
                count += len(list((entry / "task").iterdir()))
        except OSError:
            continue
    return count


def _box(passed: Sequence[Path] = (), grader: bool = False) -> list[str]:
    """The command of the box; passed: device files that can be used inside.

    grader: whether it holds the grader in place of a worker.
    """
    command = ["bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--new-session", "--die-with-parent", "--cap-drop", "ALL"]
    if not _is_root():
        command += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    folders = [Path(p) for p in _SYSTEM] + _interpreter()
    made: set[Path] = set()
    mounts: list[str] = []
    for folder in folders:
        if folder.is_symlink() and str(folder) in _SYSTEM:
            mounts += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.exists():
            mounts += [*_parents(folder, made), "--ro-bind", str(folder), str(folder)]
    for folder in _packages_to_hide():
        mounts += ["--tmpfs", str(folder)]
    for away in _ELSEWHERE:
        if not any(folder.is_relative_to(away) for folder in folders):
            mounts += ["--symlink", "/tmp", away]
    command += ["--size", str(256 << 20), "--perms", "1777", "--tmpfs", "/tmp"]
    command += mounts
    command += ["--proc", "/proc", "--dev", "/dev"]
    for node in passed:
        command += ["--dev-bind", str(node), str(node)]
    if passed:  # where CUDA looks for the cards
        command += ["--ro-bind", "/sys", "/sys"]
    command += ["--size", str(256 << 20), "--perms", "1777", "--tmpfs", "/dev/shm"]
    held = (PACKAGE, "/grader/autograder") if grader else (WORKER, "/grader/worker")
    command += ["--perms", "0755", "--dir", "/grader", "--ro-bind", *map(str, held)]
    # what bubblewrap made to hold these mounts belongs to whoever runs inside: memory without end
    command += [part for folder in _closed() for part in ("--remount-ro", folder)]
    return [*command, "--chdir", "/tmp"]


def _closed() -> list[str]:
    """The root, /dev and whatever hides a package: folders in memory that nobody is to fill."""
    return ["/", "/dev", *map(str, _packages_to_hide())]


def _parents(folder: Path, made: set[Path]) -> list[str]:
    """Readable parents for a mount: bubblewrap would make them for root alone."""
    arguments = []
    for parent in [*folder.parents][-2::-1]:
        if parent not in made and str(parent) not in ("/tmp", "/usr", "/etc"):
            arguments += ["--perms", "0755", "--dir", str(parent)]
            made.add(parent)
    return arguments


def _interpreter() -> list[Path]:
    """Folders of the interpreter and its packages, outermost first, none inside another."""
    candidates = [Path(sys.prefix), Path(sys.base_prefix)]
    torch = importlib.util.find_spec("torch")
    if torch is not None and torch.origin is not None:
        candidates.append(Path(torch.origin).parents[1])
    candidates += [path.resolve() for path in candidates]
    chosen: list[Path] = []
    for folder in sorted(set(candidates), key=lambda path: len(path.parts)):
        inside = any(folder.is_relative_to(outer) for outer in [*chosen, Path("/usr")])
        if not inside:
            chosen.append(folder)
    return chosen


def _packages_to_hide() -> list[Path]:
    """Installed copies of the reference and the grader that lie beside torch."""
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        return []
    beside = Path(torch.origin).parents[1]
    return [beside / name for name in _HIDDEN if (beside / name).is_dir()]


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a session, and everything that it started."""
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill it, wait for it, and close its pipes."""
    kill(process)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
