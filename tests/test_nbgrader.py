"""nbgrader's commands on a class that hands in all sorts of things: everybody gets a verdict."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from nbgrader.api import Gradebook

from autograder import cli, sandbox
from autograder.contract import ANSWERS, TASKS
from tests import classroom, corpus
from tests.classroom import COMPLETE, NOTHING, nbgrader

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # SQLAlchemy's, of nbgrader's own queries
    pytest.mark.xdist_group("course"),  # one course folder serves them all
]
ALSO_COMPLETE = ("several", "other-name", "shadows")


def scores(course: Path) -> dict[str, dict[str, tuple[float | None, bool]]]:
    """For every student and cell: the automatic score, and whether a person has to look."""
    query = """
        select a.student_id, c.name, g.auto_score, g.needs_manual_grade from grade g
        join base_cell c on c.id = g.cell_id join submitted_notebook n on n.id = g.notebook_id
        join submitted_assignment a on a.id = n.assignment_id
    """
    found: dict[str, dict[str, tuple[float | None, bool]]] = {}
    database = sqlite3.connect(course / "gradebook.db")
    for student, cell, score, manual in database.execute(query):
        found.setdefault(student, {})[cell] = (score, bool(manual))
    database.close()
    return found


def remarks(course: Path, student: str) -> dict[str, str]:
    """The automatic comments on a student's cells."""
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        booked = gradebook.find_submission_notebook("vae", "vae", student)
        return {c.name: c.auto_comment for c in booked.comments if c.auto_comment}


def feedback(course: Path, student: str) -> str:
    return (course / "feedback" / student / "vae" / "vae.html").read_text(encoding="utf-8")


def test_every_submission_is_booked_with_the_score_of_the_work_in_it(course: Path) -> None:
    with (course / "grades.csv").open(encoding="utf-8") as file:
        exported = {row["student_id"]: float(row["raw_score"]) for row in csv.DictReader(file)}
    expected = {
        **dict.fromkeys([*COMPLETE, *ALSO_COMPLETE], 31.0),
        **dict.fromkeys([*NOTHING, "real-untouched"], 0.0),
        "real-student": 31.0 - sum(corpus.expected("student").lost.values()),
    }
    assert exported == expected


def test_the_gradebook_holds_what_autograder_grade_says(course: Path, tmp_path: Path) -> None:
    notebook = course / "submitted" / "real-student" / "vae" / "vae.ipynb"
    options = ["--unboxed"] if sandbox.missing() else []
    assert cli.main(["grade", str(notebook), "--json", str(tmp_path / "x"), *options]) == 0
    tasks = json.loads((tmp_path / "x").read_text())["tasks"]
    booked = scores(course)["real-student"]
    assert {task["id"]: (task["score"], False) for task in tasks} == {
        task.id: booked[task.id] for task in TASKS
    }


@pytest.mark.parametrize("student", NOTHING)
def test_what_is_no_notebook_gets_zero_and_a_reason(course: Path, student: str) -> None:
    assert set(scores(course)[student].values()) == {(0.0, False)}
    reason = remarks(course, student)["encoder-solution"]
    assert reason in (course / "autograde.log").read_text(encoding="utf-8")
    assert "hand" in reason or "download" in reason
    assert reason in BeautifulSoup(feedback(course, student), "html.parser").get_text()


@pytest.mark.parametrize(
    "student", [name for name in (*COMPLETE, *ALSO_COMPLETE) if name != "deleted"]
)
def test_answers_are_found_and_left_to_a_person(course: Path, student: str) -> None:
    booked = scores(course)[student]
    assert {booked[answer.id] for answer in ANSWERS} == {(None, True)}
    if student != "wordy":
        assert f"My answer to {ANSWERS[1].id}." in feedback(course, student)


def test_what_is_missing_needs_no_person_and_what_is_long_is_remarked(course: Path) -> None:
    booked = scores(course)["deleted"]
    assert {booked[answer.id] for answer in ANSWERS} == {(0.0, False)}
    assert remarks(course, "deleted")["beta-zero-answer"] == "No response."
    assert remarks(course, "wordy") == {
        "beta-zero-answer": "151 words; at most 150 were asked for."
    }


@pytest.mark.parametrize("student", ["deleted", "reordered", "stripped", "format-3", "folder"])
def test_feedback_and_formgrader_show_every_graded_cell_once(course: Path, student: str) -> None:
    page = BeautifulSoup(feedback(course, student), "html.parser")
    names = [anchor["name"] for anchor in page.select("div.nbgrader_cell > a[name]")]
    shown = [name for name in names if not str(name).startswith(("comment-", "top"))]
    assert sorted(map(str, shown)) == sorted(part.id for part in (*TASKS, *ANSWERS))


def test_feedback_says_what_is_wrong_and_why(course: Path) -> None:
    text = BeautifulSoup(feedback(course, "real-student"), "html.parser").get_text()
    assert "encoder: 2 of 3 points (partial)" in text
    assert "[wrong-resolution]" in text
    assert "[kl-order]" in text


def test_nothing_that_students_hand_in_acts_in_a_page(course: Path) -> None:
    assert not (course / "escaped").exists(), "code ran outside its sandbox"
    assert classroom.dangers(feedback(course, "evil")) == []
    kept = (course / "autograded" / "evil" / "vae" / "vae.ipynb").read_text(encoding="utf-8")
    for cell in json.loads(kept)["cells"]:
        if cell["cell_type"] == "markdown":
            assert "<script" not in "".join(cell["source"])
        for output in cell.get("outputs", []):
            assert set(output.get("data", {})) <= {"text/plain", "text/html", "image/svg+xml"}


def test_files_beside_the_notebook_are_kept_only_if_they_are_harmless(course: Path) -> None:
    kept = {path.name for path in (course / "autograded" / "shadows" / "vae").rglob("*")}
    assert kept == {"vae.ipynb", "problem_1_solution.pdf"}


def test_feedback_is_small_and_keeps_pictures(course: Path) -> None:
    for page in course.glob("feedback/*/vae/vae.html"):
        assert page.stat().st_size < 2_000_000, page
    huge = feedback(course, "huge")
    assert huge.count("<img") > 10
    assert "see the submitted file" in huge
    assert "more characters are in the submitted file" in huge


def test_several_notebooks_and_other_names_are_told(course: Path) -> None:
    assert "`vae (1).ipynb` counts" in (course / "autograde.log").read_text(encoding="utf-8")
    assert "my homework.ipynb" in feedback(course, "other-name")


def test_a_second_run_grades_only_what_changed(own_course: Path) -> None:
    again = nbgrader(own_course, "autograde", "vae")
    assert again.returncode == 0
    assert again.stderr.count("Nothing has changed") == 2
    assert "Graded" not in again.stderr
    # the same code with another answer needs no grading, but another copy
    notebook = own_course / "submitted" / "complete" / "vae" / "vae.ipynb"
    notebook.write_text(notebook.read_text().replace("My answer to", "My new answer to"))
    changed = nbgrader(own_course, "autograde", "vae")
    assert changed.stderr.count("Nothing has changed") == 1
    assert "Graded" not in changed.stderr
    assert "My new answer" in (own_course / "autograded/complete/vae/vae.ipynb").read_text()
    # a run that was killed before it had written this copy
    (own_course / "autograded/complete/vae/vae.ipynb").unlink()
    resumed = nbgrader(own_course, "autograde", "vae")
    assert "Graded" not in resumed.stderr
    assert (own_course / "autograded/complete/vae/vae.ipynb").exists()


def test_regrading_keeps_what_a_person_gave(own_course: Path) -> None:
    where = ("vae", "vae", "complete")
    with Gradebook(f"sqlite:///{own_course / 'gradebook.db'}") as gradebook:
        for cell, points in (("beta-zero-answer", 2.5), ("encoder", 1.0)):
            grade = gradebook.find_grade(cell, *where)
            grade.manual_score, grade.extra_credit = points, 0.5
            grade.needs_manual_grade = False
        gradebook.find_comment("beta-zero-answer", *where).manual_comment = "Well said."
        gradebook.db.commit()
    assert nbgrader(own_course, "autograde", "vae", "--force").returncode == 0
    with Gradebook(f"sqlite:///{own_course / 'gradebook.db'}") as gradebook:
        for cell, points in (("beta-zero-answer", 3.0), ("encoder", 1.5)):
            grade = gradebook.find_grade(cell, *where)
            assert grade.score == points
            assert not grade.needs_manual_grade, "nothing changed, so nobody has to look again"
        assert gradebook.find_comment("beta-zero-answer", *where).comment == "Well said."


def test_without_a_sandbox_nothing_is_graded(own_course: Path) -> None:
    shutil.rmtree(own_course / "autograded")
    programs = str(Path(sys.executable).parent)  # no bwrap there
    environment = {**os.environ, "PATH": programs, "PYTHONPATH": str(classroom.ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", "autograde", "vae"],
        cwd=own_course,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Nothing was graded, because" in done.stderr
    assert not (own_course / "autograded").exists()


def test_points_changed_in_the_source_scale_the_scores(own_course: Path) -> None:
    source = own_course / "assignment" / "vae" / "vae.ipynb"
    content = json.loads(source.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        if cell["id"] == "encoder":
            cell["metadata"]["nbgrader"]["points"] = 6
    source.write_text(json.dumps(content), encoding="utf-8")
    for step in ("generate_assignment", "autograde", "generate_feedback"):
        assert nbgrader(own_course, step, "vae").returncode == 0
    assert scores(own_course)["real-student"]["encoder"] == (4.0, False)
    assert scores(own_course)["complete"]["encoder"] == (6.0, False)
    assert "encoder: 4 of 6 points (partial)" in feedback(own_course, "real-student")


def test_quickstart_makes_a_course_in_which_nbgrader_works(tmp_path: Path) -> None:
    folder = tmp_path / "spring"
    assert cli.main(["quickstart", str(folder)]) == 0
    assert cli.main(["quickstart", str(folder)]) == 2, "a folder in use is left alone"
    assert nbgrader(folder, "generate_assignment", "vae").returncode == 0
    assert (folder / "release" / "vae" / "autograder" / "run.py").exists()
    released = folder / "release" / "vae" / "vae.ipynb"
    assert "Marking scheme" not in released.read_text(encoding="utf-8")
    validated = nbgrader(folder, "validate", str(released))
    assert validated.returncode == 0, validated.stderr
    assert "not-attempted" in validated.stdout
    empty = nbgrader(folder, "autograde", "vae")
    assert empty.returncode == 1
    assert "No submissions were found" in empty.stderr
    assert "mean `nbgrader autograde vae`" in nbgrader(folder, "autograde", "vea").stderr
