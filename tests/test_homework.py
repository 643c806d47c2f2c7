"""The homework's notebook and its release: complete, current, and without the solution."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from autograder.contract import ANSWERS, TASKS
from course import homework
from solution import data, notebook, sample

ROOT = Path(__file__).resolve().parents[1]
RELEASE = ROOT / "release" / "vae"
BUILT = notebook.build()

# Lines of the solution that stand in the release for good reasons: the given AutoEncoder
# and interpolate hold them too, or there is only one way to write them.
NO_SECRET = {"self.decoder = Decoder(nz)", "with torch.no_grad():"}


def cells(text: str) -> list[Any]:
    return list(nbformat.reads(text, as_version=4).cells)


def graded(text: str) -> dict[str, Any]:
    """The cells that nbgrader knows, by grade_id."""
    known = [cell for cell in cells(text) if "nbgrader" in cell.metadata]
    by_id = {cell.metadata.nbgrader.grade_id: cell for cell in known}
    assert len(by_id) == len(known)
    return by_id


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which the release has been generated anew."""
    folder = tmp_path_factory.mktemp("course")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("assignment", "autograder", "release"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    # nobody's own settings of Jupyter, and this project's modules
    environment = os.environ | {"HOME": str(folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", "vae"]
    # nbgrader calls alembic by name, so the environment's programs lead the path
    programs = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([programs, environment.get("PATH", "")])
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return folder


def test_notebook_is_current() -> None:
    assert notebook.NOTEBOOK.read_text(encoding="utf-8") == BUILT, "run `make notebook`"


def test_check_says_when_the_notebook_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "NOTEBOOK", tmp_path / "vae.ipynb")
    monkeypatch.setattr(sys, "argv", ["notebook"])
    notebook.main()
    monkeypatch.setattr(sys, "argv", ["notebook", "--check"])
    notebook.main()
    notebook.NOTEBOOK.write_text(BUILT + " ", encoding="utf-8")
    with pytest.raises(SystemExit, match="stale"):
        notebook.main()


def test_a_source_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="no Transformer in solution"):
        notebook.definition("networks.Transformer")


def test_cells_have_stable_ids() -> None:
    identifiers = [cell.id for cell in cells(BUILT)]
    assert len(set(identifiers)) == len(identifiers)
    assert {task.id for task in TASKS} < set(identifiers)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_every_task_has_one_locked_test_cell_with_its_points(task: Any) -> None:
    cell = graded(BUILT)[task.id]
    metadata = cell.metadata.nbgrader
    assert cell.source == f'check("{task.id}")'
    assert metadata.points == task.points
    assert (metadata.grade, metadata.locked, metadata.solution) == (True, True, False)


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.id)
def test_every_answer_has_a_manual_cell_with_a_model_answer_and_a_scheme(answer: Any) -> None:
    cell = graded(BUILT)[answer.id]
    metadata = cell.metadata.nbgrader
    assert cell.cell_type == "markdown"
    assert metadata.points == answer.points
    assert (metadata.grade, metadata.locked, metadata.solution) == (True, False, True)
    model, scheme = cell.source.split("**Marking scheme**")
    assert 60 <= len(model.split()) <= answer.limit
    points = re.findall(r"^- ([\d.]+) points?: ", scheme, re.M)
    assert sum(map(float, points)) == answer.points


def test_questions_name_their_limits() -> None:
    prose = "\n".join(cell.source for cell in cells(BUILT) if cell.cell_type == "markdown")
    stated = re.findall(r"Question \((\d) points, at most (\d+) words\)", prose)
    assert stated == [(f"{answer.points:g}", f"{answer.limit}") for answer in ANSWERS]


def test_there_are_45_points_in_the_order_of_the_contract() -> None:
    points = {
        name: cell.metadata.nbgrader.points
        for name, cell in graded(BUILT).items()
        if cell.metadata.nbgrader.grade
    }
    assert sum(points.values()) == 45
    assert [name for name in points if not name.endswith("answer")] == [t.id for t in TASKS]
    assert [name for name in points if name.endswith("answer")] == [a.id for a in ANSWERS]


def test_release_is_current(course: Path) -> None:
    for made in (course / "release" / "vae").iterdir():
        if made.is_file():
            stale = f"{made.name}: run `nbgrader generate_assignment vae`"
            assert made.read_bytes() == (RELEASE / made.name).read_bytes(), stale


def test_release_holds_all_that_a_student_needs(course: Path) -> None:
    release = course / "release" / "vae"
    names = {path.name for path in release.iterdir()}
    assert names == {"README.md", "autograder", "requirements.txt", "vae.ipynb"}
    made = {path.relative_to(release) for path in release.glob("autograder/**/*") if path.is_file()}
    wanted = {path.relative_to(course) for path in course.glob("autograder/**/*") if path.is_file()}
    # what nbgrader's own run compiles there is not part of the grader
    assert {p for p in wanted if p.name[0] != "." and "__pycache__" not in p.parts} == made
    assert Path("autograder/digits/train-images-idx3-ubyte.gz") in made


def test_released_tasks_are_stubs(course: Path) -> None:
    released = graded((course / "release" / "vae" / "vae.ipynb").read_text(encoding="utf-8"))
    for name, cell in released.items():
        if name.endswith("-answer"):
            assert cell.source == "YOUR ANSWER HERE"
        elif name.endswith("-solution"):
            assert "# YOUR CODE HERE\n" in cell.source
            assert "SOLUTION" not in cell.source
            compile(cell.source, name, "exec")
    for task in ("encoder", "vae", "ae-training"):
        assert '"""' in released[f"{task}-solution"].source, "the promise stays"


def secrets() -> set[str]:
    """The lines of the reference that students write themselves, and of the model answers."""
    lines: set[str] = set()
    for module in (ROOT / "solution").glob("*.py"):
        regions = re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", module.read_text(), re.S)
        if module.name != "notebook.py":
            lines.update(line.strip() for region in regions for line in region.splitlines())
    for answer in ANSWERS:
        lines.update(graded(BUILT)[answer.id].source.splitlines())
    return {line for line in lines - NO_SECRET if len(line) > 15}


def test_release_holds_no_line_of_the_reference(course: Path) -> None:
    wanted = secrets()
    assert len(wanted) > 100
    release = course / "release" / "vae"
    for path in release.rglob("*"):
        if path.suffix in {".py", ".md", ".txt", ".ipynb"}:
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".ipynb":
                text = "\n".join(cell.source for cell in cells(text))
            found = wanted & {line.strip() for line in text.splitlines()}
            assert not found, f"{path.relative_to(release)} gives away {found}"


def small_digits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "PER_CLASS", {"train": 13, "t10k": 2})
    sample.make_sample(data.SAMPLE, folder, seed=0)


RUN = """
import json, sys
sys.modules["autograder"] = None  # the notebook has to run without the kit
import matplotlib
matplotlib.use("Agg")
names = {}
for number, source in enumerate(json.load(open("cells.json"))):
    exec(compile(source, f"cell {number}", "exec"), names)
assert len(names["ae_losses"]) == 3, len(names["ae_losses"])
assert list(names["vae_models"])[:2] == ["beta = 0", "beta = 10"]
assert len(names["plt"].get_fignums()) > 10
"""


def test_every_cell_runs_with_the_reference_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_digits(tmp_path / "digits", monkeypatch)
    data.unpack_digits(tmp_path / "digits", tmp_path / "data")
    sources = [cell.source for cell in cells(BUILT) if cell.cell_type == "code"]
    quick = [re.sub(r"epochs( ?)=( ?)(5|10|20)\b", r"epochs\1=\g<2>1", text) for text in sources]
    assert sum(a != b for a, b in zip(sources, quick, strict=True)) == 4
    (tmp_path / "cells.json").write_text(json.dumps(quick))
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "130 digits to train on, 20 to test with" in done.stdout
    assert done.stdout.count("not checked") == len(TASKS)


def test_without_a_network_the_notebook_takes_the_bundled_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_self: object) -> None:
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    small_digits(tmp_path / "autograder" / "digits", monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data.import_datasets().MNIST, "download", fail)
    (source,) = (cell.source for cell in cells(BUILT) if "download=True" in cell.source)
    names = {"unpack_digits": data.unpack_digits}
    exec(source, names)
    assert "digits that come with the homework" in capsys.readouterr().out
    assert len(names["train_dataset"]) == 130  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"grade_id": "encodr"}, "is it `encoder`?"),
        ({"grade_id": "decoder"}, "2 cells have this name"),
        ({"points": -6}, "its points are -6"),
        ({"points": None}, "its points are None"),
    ],
)
def test_a_homework_that_cannot_be_graded_is_refused(change: dict[str, Any], told: str) -> None:
    made = json.loads(notebook.build())["cells"]
    assert homework.faults(made) == ([], [])
    graded = [cell["metadata"].get("nbgrader", {}) for cell in made]
    next(each for each in graded if each.get("grade_id") == "encoder").update(change)
    assert told in "; ".join(homework.faults(made)[0])


def test_marks_of_solutions_that_do_not_fit_are_refused() -> None:
    begin, end = "### BEGIN SOLUTION", "### END SOLUTION"
    for lines, fine in (([begin, end], True), ([begin], False), ([end, begin], False)):
        cells = [{"cell_type": "code", "source": "\n".join(lines), "metadata": {}}]
        assert (not homework.faults(cells)[0]) is fine
