"""Three graders, each made to grade a hostile notebook and then an honest classmate's.

The two others run inside a container of their own (bubblewrap around the whole grader), so that
tricks do no harm here; to the tricks it looks like the grading machine. The homework is of the
usual kind there: two tasks, with assertions in a helper module that the instructor supplies.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tests import corpus
from tools.peers.tricks import HTML, PRIZE, SECRET, Trick

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 120.0  # for both notebooks; longer is a hang
TASK, HONEST = "ae-sampling", "data-loader"
LEFT = "time.sleep(987654)"

LOADER = """
import torch
from torch.utils.data import DataLoader


def make_data_loader(dataset, batch_size, num_workers=0):
    return DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=num_workers)
"""
SAMPLES = """
def sample_images(model, num_samples, nz):
    return model.decoder(torch.randn(num_samples, nz))
"""
CHECKS = """
import torch


class Recorder(torch.nn.Module):
    def forward(self, z):
        self.z = z
        return torch.sigmoid(z[:, :1, None, None]).expand(-1, 1, 28, 28)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder = Recorder()


def check_samples(sample_images):
    model = Model()
    images = sample_images(model, 500, 8)
    assert images.shape == (500, 1, 28, 28)
    first = model.decoder.z
    assert abs(first.mean()) < 0.1
    assert abs(first.std() - 1) < 0.1
    sample_images(model, 500, 8)
    assert not torch.equal(first, model.decoder.z)


def check_loader(make_data_loader):
    loader = make_data_loader(list(range(100)), 10)
    assert len(loader) == 10
    seen = torch.cat(list(loader)).tolist()
    assert sorted(seen) == list(range(100))
    assert seen != list(range(100))
"""


@dataclass(frozen=True)
class Outcome:
    """What came of a trick: points of the two tasks and of the classmate's, None without a grade.

    secret: what left the student's own place, or gives orders to who reads the report.
    """

    undeserved: float | None
    honest: float | None
    classmate: float | None
    hung: bool
    escaped: bool

    @property
    def lost(self) -> bool:
        """Whether honest work has no points."""
        return not self.honest or not self.classmate


def _code(source: str, name: str, points: int | None = None) -> NotebookNode:
    cell = nbformat.v4.new_code_cell(source.strip("\n"), id=name)
    tests = points is not None
    cell.metadata["nbgrader"] = {
        "schema_version": 3,
        "grade_id": name,
        "grade": tests,
        "solution": not tests,
        "locked": tests,
        "task": False,
        **({"points": points} if tests else {}),
    }
    made: NotebookNode = cell
    return made


def usual(samples: str) -> NotebookNode:
    """A homework of the usual kind, with tests in cells."""
    node = nbformat.v4.new_notebook()
    node.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    node.cells = [
        _code(LOADER, "loader"),
        _code(samples, "samples"),
        _code("from checks import check_samples\ncheck_samples(sample_images)", TASK, 2),
        _code("from checks import check_loader\ncheck_loader(make_data_loader)", HONEST, 1),
    ]
    made: NotebookNode = node
    return made


def _write(trick: Trick | None, folder: Path, node: NotebookNode) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if trick is not None:
        if trick.notebook is not None:
            trick.notebook(node)
        if trick.beside is not None:
            trick.beside(folder)
    (folder / "vae.ipynb").write_text(json.dumps(node), encoding="utf-8")


def _contained(folder: Path, prize: Path, command: list[str]) -> list[str]:
    """A command in a container in which only two folders can be written."""
    return [
        *("bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--die-with-parent"),
        *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"),
        *("--tmpfs", "/var/tmp", "--bind", str(prize), PRIZE),
        *("--ro-bind", str(ROOT), str(ROOT)),  # which may lie in /tmp
        *("--tmpfs", "/mnt", "--bind", str(folder), "/mnt/course", "--chdir", "/mnt/course"),
        *("--setenv", "HOME", "/tmp", "--setenv", "COURSE_TOKEN", SECRET, "--cap-drop", "ALL"),
        *command,
    ]


def _run(
    command: list[str],
    seconds: float,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> tuple[str, bool]:
    """Standard output of a command, and whether it had to be ended."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        start_new_session=True,
        cwd=cwd,
        env=env,
    )
    try:
        told: str = process.communicate(timeout=seconds)[0]
        return told, False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        return process.communicate()[0], True


def _left_behind() -> bool:
    """Whether a process of a trick is still there; it is ended."""
    found = False
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and LEFT.encode() in (folder / "cmdline").read_bytes():
                found = True
                os.kill(int(folder.name), 9)
    return found


# A shell around the other graders says what is left before the container ends with everything.
WITH_REST = f"""
{{command}}
sleep 1; ps -eo args | grep -q '[t]ime.sleep(987654)' && touch {PRIZE}/left
true
"""


def _prize(folder: Path) -> Path:
    place = folder / "prize"
    place.mkdir()
    return place


def nbgrader(trick: Trick, folder: Path) -> Outcome:
    """Stock nbgrader: `nbgrader autograde` and `nbgrader generate_feedback`."""
    course, python = folder / "course", ROOT / ".peers" / "nbgrader" / "bin"
    source = course / "source" / "vae"
    source.mkdir(parents=True)
    (source / "checks.py").write_text(CHECKS)
    node = usual(SAMPLES)
    (source / "vae.ipynb").write_text(json.dumps(node), encoding="utf-8")
    (course / "nbgrader_config.py").write_text(
        "c = get_config()\nc.CourseDirectory.course_id = 'course'\n"
        "c.ExecutePreprocessor.kernel_name = 'python3'\n"
    )
    _write(trick, course / "submitted" / "a-student" / "vae", usual(trick.source))
    _write(None, course / "submitted" / "b-student" / "vae", usual(SAMPLES))
    path = f"PATH={python}:$PATH"
    prepare = f"{path} nbgrader generate_assignment vae"
    grade = f"{path} nbgrader autograde vae; {path} nbgrader generate_feedback vae"
    scores = (
        "import json; from nbgrader.api import Gradebook\n"
        "with Gradebook('sqlite:////mnt/course/gradebook.db') as book:\n"
        "    made = {}\n"
        "    for s in book.assignment_submissions('vae'):\n"
        "        for n in s.notebooks:\n"
        "            made[s.student.id] = {g.name: g.score if g.auto_score is not None or "
        "g.manual_score is not None else None for g in n.grades}\n"
        "print('SCORES', json.dumps(made))\n"
    )
    (course / "scores.py").write_text(scores)
    prize = _prize(folder)
    _run(_contained(course, prize, ["bash", "-c", prepare]), SECONDS)
    script = WITH_REST.format(command=grade)
    _, hung = _run(_contained(course, prize, ["bash", "-c", script]), SECONDS)
    told, _ = _run(_contained(course, prize, [str(python / "python"), "scores.py"]), SECONDS)
    feedback = "".join(f.read_text(errors="replace") for f in (course / "feedback").rglob("*.html"))
    made = _json_after("SCORES", told)
    mine, other = made.get("a-student", {}), made.get("b-student", {})
    escaped = any(prize.iterdir()) or HTML in feedback
    return Outcome(mine.get(TASK), mine.get(HONEST), other.get(HONEST), hung, escaped)


def otter(trick: Trick, folder: Path) -> Outcome:
    """Stock otter-grader: `otter run` for every notebook."""
    course, python = folder / "course", ROOT / ".peers" / "otter" / "bin"
    tests = course / "tests"
    tests.mkdir(parents=True)
    for name, check, argument, points in (
        (TASK, "check_samples", "sample_images", 2),
        (HONEST, "check_loader", "make_data_loader", 1),
    ):
        (tests / f"{name}.py").write_text(
            "OK_FORMAT = False\nfrom otter.test_files import test_case\n"
            f"name = {name!r}\npoints = {points}\n{CHECKS}\n\n@test_case(points={points})\n"
            f"def test_it({argument}):\n    {check}({argument})\n"
        )
    _write(trick, course / "a-student", usual(trick.source))
    _write(None, course / "b-student", usual(SAMPLES))
    path = f"PATH={python}:$PATH"
    prepare = f"{path} otter generate -t tests -o autograder.zip --no-requirements"
    scores: dict[str, dict[str, float]] = {}
    prize = _prize(folder)
    _run(_contained(course, prize, ["bash", "-c", prepare]), SECONDS)
    hung, said = False, ""
    for student in ("a-student", "b-student"):
        shutil.rmtree(course / "results", ignore_errors=True)
        command = (
            f"mkdir results; {path} otter run -a autograder.zip -o results --no-logo "
            f"{student}/vae.ipynb"
        )
        script = WITH_REST.format(command=command)
        told, late = _run(_contained(course, prize, ["bash", "-c", script]), SECONDS)
        hung, said = hung or late, said + told
        with contextlib.suppress(OSError, ValueError, KeyError):
            results = json.loads((course / "results" / "results.json").read_text())
            scores[student] = {
                task: test["score"]
                for test in results["tests"]
                for task in (TASK, HONEST)
                if task in test["name"] and "score" in test
            }
    escaped = any(prize.iterdir()) or "\x1b]0;" in said
    mine, other = scores.get("a-student", {}), scores.get("b-student", {})
    return Outcome(mine.get(TASK), mine.get(HONEST), other.get(HONEST), hung, escaped)


def ours(trick: Trick, folder: Path) -> Outcome:
    """This grader: `autograder grade` for every notebook."""
    node = corpus.submission("perfect")
    node.cells = [cell for cell in node.cells if "def sample_images" not in cell.source]
    hostile = nbformat.v4.new_code_cell(trick.source)
    tests = [c for c in usual("").cells if "check_" in c.source]
    node.cells.extend([hostile, *tests])
    _write(trick, folder / "a-student", node)
    _write(None, folder / "b-student", corpus.submission("perfect"))
    prize = Path(PRIZE)
    shutil.rmtree(prize, ignore_errors=True)
    prize.mkdir(mode=0o777)
    scores: dict[str, dict[str, float]] = {}
    hung, said = False, ""
    for student in ("a-student", "b-student"):
        target = folder / f"{student}.json"
        command = [sys.executable, "-P", "-m", "autograder", "grade", "vae.ipynb"]
        command += ["--no-learning", "--json", str(target)]
        environment = {**os.environ, "COURSE_TOKEN": SECRET, "PYTHONPATH": str(ROOT)}
        told, late = _run(command, SECONDS, cwd=folder / student, env=environment)
        hung, said = hung or late, said + told
        with contextlib.suppress(OSError, ValueError):
            made = json.loads(target.read_text())
            scores[student] = {t["id"]: t["score"] for t in made["tasks"]}
    time.sleep(1)
    escaped = _left_behind() or any(prize.iterdir()) or "\x1b]0;" in said or HTML in said
    shutil.rmtree(prize, ignore_errors=True)
    mine, other = scores.get("a-student", {}), scores.get("b-student", {})
    return Outcome(mine.get(TASK), mine.get(HONEST), other.get(HONEST), hung, escaped)


def _json_after(word: str, told: str) -> dict[str, dict[str, float | None]]:
    for line in told.splitlines():
        if line.startswith(word):
            made: dict[str, dict[str, float | None]] = json.loads(line[len(word) :])
            return made
    return {}


GRADERS: dict[str, Callable[[Trick, Path], Outcome]] = {
    "this grader": ours,
    "nbgrader": nbgrader,
    "otter-grader": otter,
}
