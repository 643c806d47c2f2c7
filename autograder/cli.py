"""The command line: `autograder grade NOTEBOOK`, `autograder quickstart FOLDER`."""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import os
import secrets
import signal
import sys
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType

from autograder import contract, devices
from autograder.notebook import NotebookError, read
from autograder.outcomes import printable

INTERRUPTED = 130  # as shells have it


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 when it was done, 2 when it could not be, 130 when interrupted."""
    parsed = _parser().parse_args(arguments)
    before = signal.getsignal(signal.SIGINT)
    noticed = before is signal.default_int_handler and current_thread() is main_thread()
    if noticed:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        status: int = parsed.run(parsed)
    except (KeyboardInterrupt, Exception) as error:  # an import makes its own of an interrupt
        if not _interrupts and not isinstance(error, KeyboardInterrupt):
            raise
        print("autograder: interrupted; nothing was written", file=sys.stderr)
        # An interrupt that passed through an exec of text, as imports make classes, is kept by
        # Python (3.11), and `python -m` would end by the signal; the next exec of text forgets it.
        exec("")
        return INTERRUPTED
    finally:
        _interrupts.clear()
        if noticed:
            signal.signal(signal.SIGINT, before)
    return status


_interrupts: list[int] = []


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Note an interrupt beside raising it: where Python calls back, it is ignored."""
    _interrupts.append(number)
    signal.default_int_handler(number, frame)


def _heed_interrupts() -> None:
    """Raise `KeyboardInterrupt` if one was ignored, by an import or a destructor."""
    if _interrupts:
        raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="autograder", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    grade = commands.add_parser("grade", help="grade one notebook")
    grade.set_defaults(run=_grade)
    grade.add_argument("notebook", type=Path)
    grade.add_argument("--json", type=Path, metavar="FILE", help="write the grade as JSON")
    grade.add_argument("--seed", type=int, help="the seed of all draws (default: a fresh one)")
    grade.add_argument("--unboxed", action="store_true", help="run without the sandbox")
    grade.add_argument(
        "--no-learning", action="store_true", help="without the training runs on digits"
    )
    grade.add_argument(
        "--device",
        choices=devices.CHOICES,
        default="auto",
        help="where the training on digits runs (default: a GPU where there is one)",
    )
    grade.add_argument("--no-fork", action="store_true", help="serve the checks without forking")
    quickstart = commands.add_parser("quickstart", help="make a course folder for nbgrader")
    quickstart.set_defaults(run=_quickstart)
    quickstart.add_argument("folder", type=Path)
    return parser


def _quickstart(parsed: argparse.Namespace) -> int:
    try:
        from course.quickstart import CannotMake, make
    except ImportError:
        return _refuse("quickstart needs the whole project, not the students' copy of the checks")
    try:
        make(parsed.folder)
    except CannotMake as error:
        return _refuse(str(error))
    print(f"{parsed.folder} is ready; its README.md says what to do next.")
    return 0


def _grade(parsed: argparse.Namespace) -> int:
    try:
        notebook = read(parsed.notebook)
    except NotebookError as error:
        return _refuse(str(error))
    from autograder import sandbox

    with contextlib.suppress(OSError):
        if parsed.json is not None and parsed.json.samefile(parsed.notebook):
            return _refuse(f"{parsed.json}: is the notebook; the JSON needs another file")
    if parsed.json is not None and (why := _unwritable(parsed.json)):
        return _refuse(f"{parsed.json}: cannot be written ({why}); nothing was graded")
    reason = None if parsed.unboxed else sandbox.missing()
    if reason is not None:
        return _refuse(
            f"{parsed.notebook}: not graded, because {reason}; "
            "--unboxed runs the notebook's code without protection"
        )
    from autograder import processes

    started = processes.start(not parsed.unboxed, not parsed.no_fork)
    try:
        from autograder import report, run, weights_file
        from autograder.grading import Grade
        from autograder.submission import Submission

        device = devices.chosen(parsed.device)
        _heed_interrupts()
    except devices.NoDevice as error:
        started.end()
        return _refuse(f"{parsed.notebook}: not graded, because {error}")
    except BaseException:
        started.end()
        raise
    submission = Submission(
        notebook.cells, boxed=not parsed.unboxed, fork=not parsed.no_fork, started=started
    )
    seed = secrets.randbits(62) if parsed.seed is None else parsed.seed
    grading = run.Run(
        Grade(notebook),
        submission,
        seed,
        learning=not parsed.no_learning,
        weights=weights_file.content(parsed.notebook.parent),
        device=device,
    )
    try:
        _perform(grading)
    except run.Incomplete as error:
        return _refuse(f"{parsed.notebook}: the grader failed, please report it: {error}")
    finally:
        submission.close()
    _heed_interrupts()
    for stream in (sys.stdout, sys.stderr):  # a student's words in a terminal of few letters
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    broken = {fault.task for fault in grading.grade.faults}
    if len(broken) > 1:  # no work does that by accident, and no points are to be had by it
        told = f"the grader failed on {len(broken)} tasks, please report it"
        return _refuse(
            f"{parsed.notebook}: not graded, because {told}: {grading.grade.faults[0].message}"
        )
    report.show(grading.grade, sys.stdout)
    for fault in grading.grade.faults:
        line = f"{parsed.notebook}: {fault.task}/{fault.id}: {fault.message}"
        print(printable(line), file=sys.stderr)
    if parsed.json is not None:
        text = json.dumps(grading.grade.as_json(), indent=1, ensure_ascii=True) + "\n"
        try:
            parsed.json.write_text(text, encoding="utf-8")
        except OSError as error:
            return _refuse(f"{parsed.json}: cannot be written ({error.strerror})")
    return 0


def _unwritable(path: Path) -> str:
    """Why a file cannot be written, as far as that shows before; empty where nothing does."""
    if path.is_dir():
        return "it is a folder"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return "there is no permission to"
    return ""


def _perform(grading: object) -> None:
    """Run all checks, with a progress bar where somebody watches."""
    gc.freeze()  # what was imported stays: no collection need look at it
    from rich.console import Console
    from rich.progress import Progress

    from autograder.run import Run, perform

    assert isinstance(grading, Run)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        shown = bar.add_task("grading", total=len(contract.TASKS))

        def advance() -> None:
            _heed_interrupts()
            bar.update(shown, completed=len({r.task for r in grading.grade.results}))

        grading.progress = advance
        perform(grading)


def _refuse(reason: str) -> int:
    print(f"autograder: {printable(reason)}", file=sys.stderr)
    return 2
