"""How pytest runs the checks: options, a session for every check, points, the score table."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autograder import contract, devices, report, sandbox, weights_file
from autograder.draws import Draws
from autograder.grading import Grade, Result
from autograder.loss_probe import PROMISED
from autograder.notebook import NotebookError, read
from autograder.outcomes import NotAttempted, Raised, Stopped, Unchecked, Wrong
from autograder.run import Run
from autograder.submission import Definitions, Session, Submission, undefined
from autograder.vae import Habits, learn_habits

_RUN = pytest.StashKey[Run]()
# Where nobody sees the order, these are checked while the referee, which they do not need, starts.
_AHEAD = ("data-loader", "ae-training")
_DEVICE = "hard-coded-device"
_STOOD = pytest.StashKey[dict[str, str | None]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("autograder")
    group.addoption("--notebook", help="the notebook to grade (default: vae.ipynb, here or above)")
    group.addoption("--seed", type=int, help="the seed of all draws (default: a fresh one)")
    group.addoption("--no-fork", action="store_true", help="serve the checks without forking")
    group.addoption("--unboxed", action="store_true", help="run without the sandbox")
    group.addoption(
        "--device", choices=devices.CHOICES, default="auto", help="where the digits are trained on"
    )
    group.addoption("--no-learning", action="store_true", help="without the training on digits")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "check(task, id, points): what a test is worth")
    run = config.pluginmanager.get_plugin("autograder-run")
    if run is None and not config.option.collectonly:
        run = _run_from_options(config)
    if run is not None:
        config.stash[_RUN] = run
        torch.set_num_threads(1)


# pytest shows each base in one line at another time, and does not say here which time it is;
# mypy objects, since pytest's UsageError is marked as final
class _CannotRun(pytest.UsageError, pytest.Collector.CollectError):  # type: ignore[misc]
    """What pytest tells in one line, whether it reads this file first or while it collects."""


def _run_from_options(config: pytest.Config) -> Run:
    asked = config.getoption("--notebook")
    try:
        path = Path(asked) if asked else _default_notebook()
        notebook = read(path)
        device = devices.chosen(config.getoption("--device"))
    except (NotebookError, devices.NoDevice) as error:
        raise _CannotRun(str(error)) from error
    boxed = not config.getoption("--unboxed") and sandbox.missing() is None
    fork = not config.getoption("--no-fork")
    seed = config.getoption("--seed")
    return Run(
        Grade(notebook),
        Submission(notebook.cells, boxed=boxed, fork=fork),
        secrets.randbits(62) if seed is None else seed,
        shows_table=True,
        learning=not config.getoption("--no-learning"),
        weights=weights_file.content(path.parent),
        device=device,
    )


def _default_notebook() -> Path:
    """vae.ipynb, here, above or beside the checks; where there is none, what lies there is told."""
    folders = (Path(), Path(".."), Path(__file__).resolve().parents[1])
    for folder in folders:
        if (folder / "vae.ipynb").is_file():
            return folder / "vae.ipynb"
    searched: dict[Path, Path] = {}
    for folder in folders:
        searched.setdefault(folder.resolve(), folder)
    missing = f"vae.ipynb: no such file in {' or '.join(map(str, searched))}"
    for folder in searched.values():
        if others := sorted(folder.glob("*.ipynb")):
            raise NotebookError(
                f"{missing}, only {', '.join(map(str, others[:3]))}; rename yours to vae.ipynb, or "
                f"name it: pytest autograder/ --notebook {others[0]}"
            )
    raise NotebookError(
        f"{missing}, nor another notebook; name yours: pytest autograder/ --notebook FILE"
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    run = config.stash.get(_RUN, None)
    if run is not None:
        run.close()


def _check_of(item: pytest.Item) -> pytest.Mark | None:
    """Task, id and points."""
    return item.get_closest_marker("check")


@pytest.hookimpl(trylast=True)  # when what -k leaves out is gone
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    order = [task.id for task in contract.TASKS]
    run = config.stash.get(_RUN, None)
    ahead = () if run is None or run.shows_table else _AHEAD

    def place(item: pytest.Item) -> int:
        mark = _check_of(item)
        if mark is None:
            return len(order)
        task, id, _ = mark.args
        return -1 if task in ahead and id != "learning" else order.index(task)

    items.sort(key=place)
    trains = any(m.args[1] == "learning" for m in map(_check_of, items) if m is not None)
    if trains and run is not None:
        _ = run.on_gpu  # its worker starts while the others work


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome: Any = yield
    made = outcome.get_result()
    mark = _check_of(item)
    run = item.config.stash.get(_RUN, None)
    if mark is None or run is None:
        return
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, KeyboardInterrupt):
        return
    if call.when == "call" or (call.when == "setup" and error is not None):
        task, id, points = mark.args
        if isinstance(error, Wrong) and run.lacking.get(task):
            error.message += f" {run.lacking[task]}"
        result = Result.of(task, id, points, error, run.remarks.get((task, id), ""))
        run.grade.results.append(result)
        if isinstance(error, Stopped) and error.misconception == "too-slow":
            run.gave_up[task] = error
        run.progress()
        if result.outcome == "not-attempted":
            made.outcome = "skipped"
            made.longrepr = (str(item.path), item.location[1] or 0, "not attempted")
        elif isinstance(error, Wrong):
            made.longrepr = result.message + (
                f" [{result.misconception}]" if result.misconception else ""
            )


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A check that fails may pass with another state of the notebook.

    As it stood when the name was last used, or as if a GPU, which it asks for, were the CPU.
    """
    try:
        return (yield)
    except (NotAttempted, Stopped):
        raise
    except Wrong as error:
        if not _passes_earlier(pyfuncitem) and not _passes_as_cpu(pyfuncitem, error):
            raise
        return True


def _passes_earlier(item: pytest.Function) -> bool:
    mark, run = _check_of(item), item.config.stash.get(_RUN, None)
    if mark is None or run is None:
        return False
    task, id, _ = mark.args
    stood = item.config.stash.setdefault(_STOOD, {})
    if task not in stood:
        stood[task] = _stood(item.session, run, task)
    remark = stood[task]
    if remark is not None:
        run.remarks[task, id] = remark
    return remark is not None


def _stood(session: pytest.Session, run: Run, task: str) -> str | None:
    """What is to be said of a task that was wholly right as the notebook stood earlier."""
    found = run.earlier(contract.BY_ID[task].name)
    if found is None:
        return None
    earlier, remark = found
    for item in session.items:
        mark = _check_of(item)
        if mark is None or mark.args[0] != task or not isinstance(item, pytest.Function):
            continue
        try:
            _judge(item, earlier)
        except Exception:  # the first verdict stands
            return None
    return remark


def _judge(item: pytest.Function, run: Run) -> None:
    """Make a check with another state of the notebook, in a session of its own."""
    mark = _check_of(item)
    assert mark is not None
    task, id, _ = mark.args
    draws = Draws(run.seed, f"{task}/{id}")
    given: dict[str, Any] = {"run": run, "draws": draws}
    names = inspect.signature(item.obj).parameters
    if "habits" in names:
        given["habits"] = _habits_for(run, task)
    with run.submission.session(draws.integer(0, 2**62)) as given["session"]:
        item.obj(**{name: given[name] for name in names})


def _passes_as_cpu(item: pytest.Function, error: Wrong) -> bool:
    """Whether a check passes where a GPU is the CPU, in a task that was charged for asking for one.

    Raises what is wrong with it there.
    """
    mark, run = _check_of(item), item.config.stash.get(_RUN, None)
    if mark is None or run is None:
        return False
    task, id, _ = mark.args
    asks = isinstance(error, Raised) and error.misconception == _DEVICE
    charged = any(r.misconception == _DEVICE for r in run.grade.results if r.task == task)
    defined = next(_asked_for_gpu(run), None)
    if not (charged if asks else defined):
        return False
    try:
        _judge(item, run.as_cpu())
    except Stopped:
        return False
    except Wrong as found:
        # a verdict on the device is of the same fault; code that raises was not judged at all
        if isinstance(found, Unchecked) or found.misconception != _DEVICE:
            if asks:
                raise
            return False
    if charged:
        run.remarks[task, id] = "Judged as if the GPU that your code asks for were the CPU."
    elif defined:  # a name of the notebook is not there
        error.message += f" {defined.message}"
        error.misconception = _DEVICE
    return charged


def _asked_for_gpu(run: Run) -> Iterator[Raised]:
    """The definitions that asked for a GPU, and got none."""
    for told in run.submission.definitions.errors.values():
        error = Raised({**told, "where": f"cell {told.get('cell', '?')}"})
        if error.misconception == _DEVICE:
            yield error


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    run = session.config.stash.get(_RUN, None)
    if run is None or not run.shows_table or exitstatus != pytest.ExitCode.OK:
        return
    if not all(r.passed for r in run.grade.results):  # skipped, because not attempted
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    run = config.stash.get(_RUN, None)
    if run is None or not run.shows_table or not run.grade.results:
        return
    graded = {r.task for r in run.grade.results}
    tasks = tuple(task for task in contract.TASKS if task.id in graded)
    if not any(argument.startswith("-r") for argument in config.invocation_params.args):
        terminalreporter.reportchars = ""  # the table says all that the short summary does
    terminalreporter.section(run.grade.notebook.name)
    report.show(run.grade, terminalreporter._tw._file, tasks, answers=len(tasks) > 1)
    if not run.submission.boxed:
        terminalreporter.write_line(f"Run without a sandbox: {sandbox.missing() or 'as asked'}.")


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    """The grading run that this test belongs to."""
    return request.config.stash[_RUN]


@pytest.fixture
def draws(request: pytest.FixtureRequest, run: Run) -> Draws:
    """The draws of this check."""
    mark = request.node.get_closest_marker("check")
    return Draws(run.seed, "/".join(mark.args[:2]))


@pytest.fixture
def session(request: pytest.FixtureRequest, run: Run, draws: Draws) -> Iterator[Session]:
    """A session of its own, once the name that the task is about is defined.

    The checks of a task share a process as long as they pass; the learning checks, in which other
    parts are the student's own, have theirs.
    """
    task_id, check_id, _ = request.node.get_closest_marker("check").args
    task = contract.BY_ID[task_id]
    if task.id in run.gave_up:
        raise run.gave_up[task.id]
    if "habits" in request.fixturenames:  # learnt before, in a session of their own
        request.getfixturevalue("habits")
    definitions = run.submission.definitions
    if task.name not in definitions.defined:
        raise undefined(definitions, task.name)
    shared = None if check_id == "learning" else task_id
    with run.submission.session(draws.integer(0, 2**62), shared) as opened:
        if any(e.get("type") == "ModuleNotFoundError" for e in definitions.errors.values()):
            reads = opened.reads(task.name) if task.name != "TUNED_BETA" else {}
            names = (n for n, kind in reads.items() if kind == "absent")
            run.lacking[task.id] = next((_lacking(n, definitions) for n in names), "")
        yield opened
        opened.clean = bool(run.grade.results) and run.grade.results[-1].passed


def _lacking(name: str, definitions: Definitions) -> str:
    """What is to be said of a name that stands for something that cannot be imported."""
    told = definitions.errors.get(name, {}).get("message") or "it is not installed here"
    return f"`{name}` could not be imported: {told}."


@pytest.fixture
def habits(run: Run, request: pytest.FixtureRequest) -> Habits:
    """How the student's VAE lays out q and where it works, learnt once."""
    task, _, _ = request.node.get_closest_marker("check").args
    return _habits_for(run, task)


def _habits_for(run: Run, task: str) -> Habits:
    """Another layout than promised counts only where `vae-forward` was charged for it."""
    found = _habits(run)
    forward = [r for r in run.grade.results if r.task == "vae-forward"]
    if task != "vae-forward" and forward and all(r.outcome == "passed" for r in forward):
        return replace(found, reading=PROMISED.reading)
    return found


def _habits(run: Run) -> Habits:
    if run.habits is None:
        draws = Draws(run.seed, "habits")
        try:
            with run.submission.session(draws.integer(0, 2**62)) as opened:
                run.habits = learn_habits(opened, draws)
        except Exception:  # a hint: the checks that follow say what is wrong
            run.habits = Habits()
    return run.habits
