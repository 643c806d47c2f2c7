"""The command line and pytest beside a notebook: exit statuses, files, refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from autograder import cli, run, sandbox
from autograder.grading import Grade, Result
from autograder.notebook import Notebook
from autograder.outcomes import Wrong
from tests import corpus
from tests.grading import grade
from tests.system import as_ordinary_user, heed_ctrl_c

ROOT = Path(__file__).resolve().parents[1]


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-P", "-m", "autograder", *arguments]
    return subprocess.run(
        call, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def unboxed() -> list[str]:
    return ["--unboxed"] if sandbox.missing() else []


def test_a_notebook_is_graded_and_the_json_written(tmp_path: Path, unboxed: list[str]) -> None:
    corpus.write(corpus.submission("student"), tmp_path / "vae.ipynb")
    # what lies beside the notebook is never imported or read
    for shadow in ("torch.py", "conftest.py", "hypothesis.py", "sitecustomize.py"):
        (tmp_path / shadow).write_text("raise RuntimeError('shadowed')")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --collect-only")
    done = command("grade", "vae.ipynb", "--json", "out.json", *unboxed, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "uses-global-model" in done.stdout
    assert json.loads((tmp_path / "out.json").read_text())["score"] == 24


def test_two_gradings_at_once_do_not_meet(common_folder: Path, unboxed: list[str]) -> None:
    """One by the user who runs the tests; the other, where that is root, by an ordinary user."""
    corpus.write(corpus.submission("student"), common_folder / "vae.ipynb")
    names = ("first.json", "second.json")
    options = ["--seed", "7", "--no-learning", *unboxed]
    call = [sys.executable, "-P", "-m", "autograder", "grade", "vae.ipynb", *options]
    calls = [[*call, "--json", name] for name in names]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        calls[1] = as_ordinary_user(*calls[1])
    both = [
        subprocess.Popen(
            call,
            cwd=common_folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.DEVNULL,
        )
        for call in calls
    ]
    assert [process.wait() for process in both] == [0, 0]
    first, second = ((common_folder / name).read_bytes() for name in names)
    assert first == second
    assert sorted(p.name for p in common_folder.iterdir()) == sorted([*names, "vae.ipynb"])


@pytest.mark.parametrize("name", ["missing.ipynb", ".", "text.ipynb", "old.ipynb"])
def test_what_cannot_be_graded_ends_with_two_and_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.ipynb").write_text("no notebook")
    (tmp_path / "old.ipynb").write_text('{"nbformat": 3, "worksheets": []}')
    done = command("grade", name, folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


def test_without_a_sandbox_grading_refuses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus.write(corpus.submission("student"), tmp_path / "vae.ipynb")
    monkeypatch.setattr(sandbox, "missing", lambda: "bubblewrap is not installed")
    assert cli.main(["grade", str(tmp_path / "vae.ipynb")]) == 2
    assert "--unboxed" in capsys.readouterr().err


def children(process: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    told = Path(f"/proc/{process}/task/{process}/children")
    direct = [int(pid) for pid in told.read_text().split()] if told.exists() else []
    return [pid for child in direct for pid in (child, *children(child))]


def is_running(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_ctrl_c_ends_everything_and_writes_nothing(tmp_path: Path, unboxed: list[str]) -> None:
    node = corpus.submission("perfect")
    node.cells.append(nbformat.v4.new_code_cell("class Encoder:\n    import time; time.sleep(99)"))
    corpus.write(node, tmp_path / "vae.ipynb")
    call = [sys.executable, "-P", "-m", "autograder", "grade", "vae.ipynb", "--json", "out.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(
        [*call, *unboxed],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    while not (family := children(started.pid)) and started.poll() is None:
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    assert "interrupted" in started.communicate()[1]
    assert started.returncode == cli.INTERRUPTED
    assert not (tmp_path / "out.json").exists()
    assert family
    while any(map(is_running, family)):  # they were killed: this ends, or the test never does
        time.sleep(0.05)


INTERRUPTED_IN_TEXT = """
import sys
from autograder import cli

cli._grade = lambda parsed: exec("import signal; signal.raise_signal(signal.SIGINT)")
sys.exit(cli.main(["grade", "vae.ipynb"]))
"""


def test_an_interrupt_in_code_that_is_made_of_text_ends_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(INTERRUPTED_IN_TEXT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "interrupted"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=heed_ctrl_c,
    )
    assert "interrupted" in done.stderr
    assert done.returncode == cli.INTERRUPTED


class Interrupts:
    """Interrupts as it goes, where Python ignores what is raised."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", ["ignored", "as another error"])
def test_an_interrupt_counts_though_it_is_not_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    def perform(_: object) -> None:
        Interrupts()
        if how == "as another error":
            raise ImportError("no module")

    corpus.write(corpus.submission("perfect"), tmp_path / "vae.ipynb")
    monkeypatch.setattr(cli, "_perform", perform)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    call = ["grade", str(tmp_path / "vae.ipynb"), "--unboxed", "--json", str(tmp_path / "out.json")]
    try:
        assert cli.main(call) == cli.INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
    assert "interrupted" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()
    monkeypatch.setattr(cli, "_perform", lambda _: None)
    assert cli.main(call) == 0


@pytest.mark.parametrize("count", [1, 2])
def test_a_grader_that_fails_on_many_tasks_has_graded_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    """On one task it costs nothing, and a person is to look; on many, no points are given."""

    def perform(grading: run.Run) -> None:
        for task in ("encoder", "decoder")[:count]:
            made = Result.of(task, "convolutions", 1.0, RecursionError("too deep"))
            grading.grade.results.append(made)

    corpus.write(corpus.submission("perfect"), tmp_path / "vae.ipynb")
    monkeypatch.setattr(cli, "_perform", perform)
    written = tmp_path / "out.json"
    before = signal.getsignal(signal.SIGINT)
    try:
        status = cli.main(
            ["grade", str(tmp_path / "vae.ipynb"), "--unboxed", "--json", str(written)]
        )
    finally:
        signal.signal(signal.SIGINT, before)
    told = capsys.readouterr().err
    assert "RecursionError" in told
    assert len(told.splitlines()) == 1
    if count == 1:
        assert status == 0
        task = json.loads(written.read_text(encoding="utf-8"))["tasks"][0]
        assert (task["status"], task["score"]) == ("manual", 1.0)
    else:
        assert status == 2
        assert not written.exists()


@pytest.mark.parametrize("status", [0, 2])
def test_what_docs_give_gradescope_turns_a_grade_into_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    def graded(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        made = Grade(Notebook("vae.ipynb", []))
        made.results.append(Result.of("encoder", "layers", 3.0, Wrong("Because.")))
        Path(command[-1]).write_text(json.dumps(made.as_json()), encoding="utf-8")
        return subprocess.CompletedProcess(command, status, stderr="a line")

    (tmp_path / "results").mkdir()
    monkeypatch.setattr(sys, "argv", ["gradescope.py", str(tmp_path)])
    monkeypatch.setattr(subprocess, "run", graded)
    text = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    exec(text.partition("```python\n")[2].partition("```")[0], {})
    made = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))
    assert (made["score"], made["output"]) == (0, "a line")
    assert len(made.get("tests", [])) == (10 if status == 0 else 0)
    if status == 0:
        assert made["tests"][0]["name"] == "encoder (failed)"
        assert made["tests"][0]["output"] == "Because."


@pytest.mark.parametrize("status", [pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.OK])
def test_half_a_grading_is_no_grade(
    monkeypatch: pytest.MonkeyPatch, status: pytest.ExitCode
) -> None:
    monkeypatch.setattr(pytest, "main", lambda *_, **__: status)
    with pytest.raises(run.Incomplete):
        grade(corpus.submission("perfect"))


def test_a_check_that_cannot_be_imported_is_a_failure_of_the_grader(
    tmp_path: Path, unboxed: list[str]
) -> None:
    folder = student_folder(tmp_path, ROOT / "release" / "vae" / "vae.ipynb")
    with (folder / "autograder" / "test_decoder.py").open("a") as file:
        file.write("from autograder import nothing_of_this_name\n")
    call = [sys.executable, "-m", "autograder", "grade", "vae.ipynb", *unboxed]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the grader failed" in done.stderr
    assert "test_decoder.py cannot be imported" in done.stderr
    assert "nothing_of_this_name" in done.stderr


def student_folder(folder: Path, notebook: Path) -> Path:
    """What a student has: the notebook, and a copy of the kit beside it."""
    shutil.copy(notebook, folder / "vae.ipynb")
    shutil.copytree(ROOT / "autograder", folder / "autograder")
    return folder


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    call = [sys.executable, "-m", "pytest", "autograder/", *arguments]
    return subprocess.run(
        call, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_what_cannot_be_written_is_told_before_the_grading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus.write(corpus.submission("student"), tmp_path / "vae.ipynb")
    monkeypatch.setattr(cli, "_perform", lambda _: pytest.fail("it was graded"))
    call = ["grade", str(tmp_path / "vae.ipynb"), "--unboxed", "--json"]
    for target in (tmp_path, tmp_path / "missing" / "out.json"):
        assert cli.main([*call, str(target)]) == 2
        assert "cannot be written" in capsys.readouterr().err


def test_pytest_on_the_untouched_release(tmp_path: Path) -> None:
    student_folder(tmp_path, ROOT / "release" / "vae" / "vae.ipynb")
    done = run_pytest(tmp_path)
    assert done.returncode == 1
    assert "0 / 31" in done.stdout
    assert done.stdout.count("not-attempted") >= 10
    assert done.stdout.count("nothing is written") == 5
    assert "short test summary" not in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_pytest_without_sandbox_or_fork_as_on_other_systems(tmp_path: Path) -> None:
    corpus.write(corpus.submission("perfect"), tmp_path / "mine.ipynb")
    student_folder(tmp_path, ROOT / "release" / "vae" / "vae.ipynb")
    done = run_pytest(tmp_path, "--notebook", "mine.ipynb", "--unboxed", "--no-fork")
    assert done.returncode == 0, done.stdout
    assert "31 / 31" in done.stdout
    assert "without a sandbox" in done.stdout


def test_pytest_names_a_missing_notebook(tmp_path: Path) -> None:
    student_folder(tmp_path, ROOT / "release" / "vae" / "vae.ipynb")
    done = run_pytest(tmp_path, "--notebook", "other.ipynb")
    assert done.returncode == 4
    assert "other.ipynb: no such file" in done.stderr
    (tmp_path / "vae.ipynb").rename(tmp_path / "mine.ipynb")
    done = run_pytest(tmp_path)
    assert done.returncode == 4
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"no such file in {tmp_path.resolve()}" in done.stderr
    assert "--notebook mine.ipynb" in done.stderr
    plain = subprocess.run(
        [sys.executable, "-m", "pytest"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert plain.stdout.count("--notebook mine.ipynb") == 1
    assert "Error: vae" not in plain.stdout
