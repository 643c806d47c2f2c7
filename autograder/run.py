"""One grading run: what pytest, the command line and the notebook share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autograder.contract import BY_ID, PARTS, TASKS
from autograder.grading import Grade
from autograder.outcomes import Stopped
from autograder.submission import Submission

if TYPE_CHECKING:
    from autograder.vae import Habits

HERE = Path(__file__).resolve().parent
EARLIER = 5  # times, at most, that a notebook is read as it stood at a cell


class Incomplete(Exception):
    """Not every check has a result, through a fault of the grader."""


@dataclass
class Run:
    """A grade in the making.

    seed: of every draw. shows_table: at the end of pytest's output. learning: with the runs in
    which the student's own model is trained on digits. weights: the file of a trained VAE that was
    handed in beside the notebook. device: cpu or cuda, for the training on digits.
    """

    grade: Grade
    submission: Submission
    seed: int
    shows_table: bool = False
    learning: bool = True
    weights: bytes | None = field(default=None, repr=False)
    device: str = "cpu"
    progress: Callable[[], None] = lambda: None
    gave_up: dict[str, Stopped] = field(default_factory=dict)  # tasks whose code does not end
    habits: Habits | None = None
    findings: dict[str, Any] = field(default_factory=dict)  # of the training tasks
    lacking: dict[str, str] = field(default_factory=dict)  # by task, of a package that it reads
    remarks: dict[tuple[str, str], str] = field(default_factory=dict)  # on checks, by task and id
    _on_gpu: Submission | None = None
    _earlier: dict[int, Run] = field(default_factory=dict)  # one at most, by cell
    _opened: int = 0  # of these, so far
    _as_cpu: Run | None = None

    @property
    def on_gpu(self) -> Submission | None:
        """The notebook in a worker of its own that sees the GPU, None where none is to be used.

        It starts when it is first asked for, and serves all trainings on digits.
        """
        if self._on_gpu is None and self.learning and self.device != "cpu":
            boxed, cells = self.submission.boxed, self.submission.cells
            self._on_gpu = Submission(cells, boxed=boxed, device=self.device)
        return self._on_gpu

    def earlier(self, name: str) -> tuple[Run, str] | None:
        """The notebook as it stood when a promised function was last used, if that was another.

        With the words that say so. The notebook is right if it was right then. One is kept open.
        """
        outlived = self.submission.definitions.outlived.get(name)
        if outlived is None:
            return None
        cell, what, other = outlived
        if cell not in self._earlier:
            if self._opened >= EARLIER:
                return None
            for run in self._earlier.values():
                run.close()
            submission = self.submission.until(cell)
            self._earlier = {cell: self._of(submission)}
            self._opened += 1
        text = f"Judged as of cell {cell + 1}, where `{what}` is last used: below that,"
        return self._earlier[cell], f"{text} `{other}`, which it reads, is bound anew."

    def as_cpu(self) -> Run:
        """The notebook as if a GPU were the CPU: what else is right in code that asks for a GPU."""
        if self._as_cpu is None:
            self._as_cpu = self._of(self.submission.as_cpu())
        return self._as_cpu

    def _of(self, submission: Submission) -> Run:
        """This run with another state of the notebook, of which nothing is known yet."""
        made = replace(self, submission=submission, habits=None, findings={})
        made._on_gpu, made._earlier, made._as_cpu = None, {}, None
        return made

    def close(self) -> None:
        """End the workers."""
        self.submission.close()
        for run in [*self._earlier.values(), *([self._as_cpu] if self._as_cpu else [])]:
            run.close()
        if self._on_gpu is not None:
            self._on_gpu.close()

    def charged(self, *tasks: str) -> bool:
        """Whether a check of these tasks has failed."""
        return any(r.task in tasks and not r.passed for r in self.grade.results)

    def wrong_parts(self, task: str) -> frozenset[str]:
        """Of the tasks that a training's whole is made of, those that were charged already.

        A fault is charged once, so what a wrong part does to the whole costs nothing more. Where
        the other whole did not learn, any of them may have been the reason.
        """
        failed = [r for r in self.grade.results if r.task == "ae-training" and not r.passed]
        dull = any(r.misconception == "does-not-learn" for r in failed)
        dull |= [r.id for r in failed] == ["learning"]
        return frozenset(part for part in PARTS[task] if dull or self.charged(part))


def perform(run: Run, tasks: tuple[str, ...] = ()) -> None:
    """Run the checks of all or some tasks; the results are in `run.grade`.

    pytest is started so that it reads no configuration but the kit's own, and writes nothing.
    Raises `KeyboardInterrupt` where it was interrupted, `Incomplete` where a check has no result.
    """
    import pytest

    from autograder import referee

    referee.start()  # it imports torch while the definitions run
    files = [str(HERE / f"test_{task.replace('-', '_')}.py") for task in tasks] or [str(HERE)]
    arguments = ["-c", str(HERE / "pytest.ini"), f"--rootdir={HERE}", "-p", "no:cacheprovider"]
    arguments += ["-p", "no:terminal", "-p", "no:logging", "-p", "no:faulthandler"]
    # these two collect garbage again and again, half a second in all
    arguments += ["-p", "no:unraisableexception", "-p", "no:threadexception"]
    arguments += ["--assert=plain"]  # no check uses it, and to rewrite them takes a while
    arguments += [f"--confcutdir={HERE}"]
    plugin = _Plugin(run)
    with _plain_pytest(), one_thread():
        pytest.main([*arguments, *files], plugins=[plugin])
    if plugin.broken:  # pytest interrupts itself then
        raise Incomplete(plugin.broken)
    if plugin.interrupted:
        raise KeyboardInterrupt
    for task in TASKS:
        judged = sum(r.points for r in run.grade.of_task(task))
        if task.id in (tasks or BY_ID) and judged != task.points:
            raise Incomplete(f"only {judged:g} of {task.points:g} points of {task.id} were judged")


class _Plugin:
    """Hands the run to conftest.py under the name by which it asks, and sees how pytest ends."""

    def __init__(self, run: Run) -> None:
        self.run, self.interrupted, self.broken = run, False, ""

    def pytest_addhooks(self, pluginmanager: Any) -> None:
        pluginmanager.register(self.run, "autograder-run")

    def pytest_keyboard_interrupt(self) -> None:
        self.interrupted = True

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            last = report.longreprtext.strip().rpartition("\n")[2]
            self.broken = f"{report.nodeid} cannot be imported: {last.removeprefix('E').strip()}"


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch on the host: its tensors are small, and the worker needs a core."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _plain_pytest() -> Iterator[None]:
    """Without options and plugins from the environment."""
    changed = {"PYTEST_ADDOPTS": "", "PYTEST_PLUGINS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
