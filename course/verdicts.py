"""The grades of a class: graded side by side, each in its own process, kept by content.

A verdict is what `autograder grade --json` writes. It is kept under the hash of the notebook's
code and of the grader, so that nothing is graded twice and a run that was killed resumes.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import secrets
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import autograder
from autograder import weights_file
from autograder.contract import ANSWERS, TASKS, counted
from autograder.grading import FAULT
from autograder.notebook import Notebook, NotebookError, read

GRADER = Path(autograder.__file__).resolve().parent
SECONDS = 1800.0  # for one notebook; every step inside has a clock of its own


@dataclass(frozen=True)
class Verdict:
    """One notebook's grade; reason: why it is zero; fault: why there is none, through no work."""

    tasks: dict[str, dict[str, Any]]
    reason: str = ""
    fault: str = ""

    def share(self, task: str) -> float | None:
        """The part of a task's points that is reached, or None where the grader failed.

        A check in which it fails costs nothing; but it may be the student who made it fail, so
        that a person decides what the task is worth.
        """
        if self.fault or any(id == task for id, _ in self.broken()):
            return None
        if task not in self.tasks:
            return 0.0
        told = self.tasks[task]
        return float(told["score"]) / float(told["max_score"])

    def broken(self) -> list[tuple[str, dict[str, Any]]]:
        """Checks in which the grader itself failed, each with its task."""
        return [
            (task, check)
            for task, told in self.tasks.items()
            for check in told["checks"]
            if check["passed"] and check["message"].startswith(FAULT)
        ]

    @property
    def total(self) -> float:
        """The points of all tasks together."""
        return sum(float(told["score"]) for told in self.tasks.values())


@dataclass(frozen=True)
class Options:
    """How a class is graded; seed: of every notebook's draws, or None for fresh ones."""

    store: Path
    jobs: int = 0
    unboxed: bool = False
    seed: int | None = None


@functools.cache
def grader_version() -> str:
    """A hash of the checks, their data and torch: verdicts of another grader do not count."""
    made = hashlib.sha256(importlib.metadata.version("torch").encode())
    for path in sorted(GRADER.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            made.update(str(path.relative_to(GRADER)).encode() + b"\0")
            made.update(path.read_bytes())
    return made.hexdigest()


def refused(error: NotebookError, path: Path) -> Verdict:
    """Zero for a file that is no notebook; the reason names the file without its folders."""
    return Verdict({}, reason=str(error).replace(str(path), path.name))


def grade_all(
    paths: Iterable[Path], options: Options, tell: Callable[[str], None]
) -> dict[Path, Verdict]:
    """The verdicts of many notebooks, kept ones first; `tell` is called as each is graded."""
    made: dict[Path, Verdict] = {}
    pending: dict[str, list[Path]] = {}
    for path in paths:
        try:
            key = _key(read(path), weights_file.content(path.parent), options)
        except NotebookError as error:
            made[path] = refused(error, path)
            continue
        kept = _kept(options.store / f"{key}.json")
        if kept is None:
            pending.setdefault(key, []).append(path)
        else:
            made[path] = kept
    for key, verdict in _graded(pending, options, tell):
        made.update(dict.fromkeys(pending[key], verdict))
    return made


def _graded(
    pending: dict[str, list[Path]], options: Options, tell: Callable[[str], None]
) -> Iterable[tuple[str, Verdict]]:
    options.store.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.jobs or (os.cpu_count() or 1)) as pool:
        running = {
            pool.submit(_grade, key, paths[0], options): key for key, paths in pending.items()
        }
        try:
            for number, done in enumerate(as_completed(running), start=1):
                key, verdict = running[done], done.result()
                shown = verdict.fault or verdict.reason or counted(verdict.total, "point")
                tell(f"Graded {number} of {len(running)}: {pending[key][0]}: {shown}")
                yield key, verdict
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _key(notebook: Notebook, weights: bytes | None, options: Options) -> str:
    told = None if weights is None else hashlib.sha256(weights).hexdigest()
    content = [grader_version(), notebook.cells, told, options.unboxed, options.seed]
    return hashlib.sha256(json.dumps(content).encode("utf-8", "surrogatepass")).hexdigest()


def _kept(file: Path) -> Verdict | None:
    """A verdict of an earlier run; a torn file counts as none."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        tasks = {task["id"]: task for task in told["tasks"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Verdict(tasks)


def _grade(key: str, path: Path, options: Options) -> Verdict:
    """Run `autograder grade`, the copy that is imported here, away from anybody's files."""
    seed = secrets.randbits(62) if options.seed is None else options.seed
    target = options.store / f"{key}.json"
    written = target.with_suffix(f".{os.getpid()}")
    command = [sys.executable, "-P", "-m", "autograder", "grade", str(path.resolve())]
    command += ["--json", str(written.resolve()), "--seed", str(seed)]
    command += ["--unboxed"] if options.unboxed else []
    environment = {**os.environ, "PYTHONPATH": str(GRADER.parent)}
    try:
        done = subprocess.run(
            command,
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Verdict({}, fault=f"Grading did not end within {SECONDS / 60:g} minutes.")
    verdict = _kept(written) if done.returncode == 0 else None
    if verdict is None:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return Verdict({}, fault=f"The grader failed: {lines[-1]}")
    written.replace(target)
    return verdict


def shown(verdict: Verdict, task: str, worth: float | None = None) -> str:
    """What is read below a task; worth: the points of its cell, which an instructor may change."""
    if verdict.fault:
        return f"{task}: not graded yet. {verdict.fault}"
    if task not in verdict.tasks:
        return f"{task}: 0 points. {verdict.reason}"
    told = verdict.tasks[task]
    most = told["max_score"] if worth is None else worth
    points = f"{told['score'] / told['max_score'] * most:g} of {counted(most, 'point')}"
    if verdict.share(task) is None:
        lines = [f"{task}: not graded yet. The program found {points}, but failed on a part."]
    else:
        lines = [f"{task}: {points} ({told['status']})"]
    messages: dict[str, None] = {}
    for check in told["checks"]:
        cause = f"[{check['misconception']}] " if check["misconception"] else ""
        if check["message"]:
            messages[_wrapped(f"{cause}{check['message']}")] = None
    return "\n".join([*lines, *messages])


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 96, initial_indent="  ", subsequent_indent="    ")


def known_task(name: str) -> bool:
    """Whether the program grades the cell of this name."""
    return any(task.id == name for task in TASKS)


def answer_limit(name: str) -> int | None:
    """The most words of a written answer, or None of any other cell."""
    return next((answer.limit for answer in ANSWERS if answer.id == name), None)
