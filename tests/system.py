"""What some tests need of the system: programs, without which they are skipped and in CI fail."""

from __future__ import annotations

import importlib
import os
import secrets
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from autograder.sandbox import WORKER

ROOT = Path(__file__).resolve().parents[1]
REQUIRED = "AUTOGRADER_REQUIRE_ALL"


def worker_module(name: str) -> Any:
    """One of the worker's modules, which import one another by their bare names."""
    if str(WORKER) not in sys.path:
        sys.path.append(str(WORKER))
    return importlib.import_module(name)


def missing(thing: str, told: str) -> NoReturn:
    """Skip the test at hand, which needs something; fail it where CI says that all is there."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"{REQUIRED} is set, but {thing} is missing: {told}")
    pytest.skip(f"needs {thing}: {told}")


def heed_ctrl_c() -> None:
    """A shell lets what it starts in the background, these tests perhaps, ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def as_ordinary_user(*command: str, folder: Path | None = None) -> list[str]:
    """A command, run by a user who is nobody else; by root alone.

    What lies in a folder that is closed to others, such as root's home, is mounted where that
    user can reach it: the interpreter and the project. folder: for a copy of the interpreter that
    the user owns, as with one that is installed in a home.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None:
        missing("another user", "only root can become one, by setpriv")
    user = 1_000_000_000 + secrets.randbelow(1_000_000_000)
    mounts, made = ["--dev-bind", "/", "/"], set[Path]()
    for folder in sorted({ROOT, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}):
        above = [*folder.parents][-2::-1]
        closed = next((p for p in above if p.stat().st_mode & 5 != 5), folder)
        for parent in above:
            if parent.is_relative_to(closed) and parent not in made:
                made.add(parent)
                kind = "--tmpfs" if parent == closed else "--dir"
                mounts += ["--perms", "0755", kind, str(parent)]
        if closed != folder:
            mounts += ["--ro-bind", str(folder), str(folder)]
    if folder is not None:
        interpreter = Path(sys.executable).resolve()
        copy = Path(shutil.copy(interpreter, folder))
        os.chown(copy, user, user)
        mounts += ["--bind", str(copy), str(interpreter)]
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return ["bwrap", *mounts, "--cap-add", "ALL", "--", *become, *command]
