"""nbgrader's commands with the grades in PostgreSQL, on a real server of Debian's package."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbgrader.api import Gradebook

from autograder.contract import ANSWERS, TASKS
from tests import classroom
from tests.classroom import nbgrader
from tests.system import missing

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # SQLAlchemy's, of nbgrader's own queries
    pytest.mark.xdist_group("course"),
]
STUDENTS = ("complete", "deleted", "missing", "real-student")


def programs() -> Path | None:
    """Where PostgreSQL's programs are; Debian puts those of a server on nobody's path."""
    on_path = shutil.which("initdb")  # perhaps a link
    if on_path is not None:
        return Path(on_path).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    found = [path.parent for path in versions]
    return max(found, key=lambda path: float(path.parent.name), default=None)


def run(folder: Path, *command: str) -> None:
    """Run a program of the server, as its own user if we are root, whom it refuses."""
    user = "postgres" if os.geteuid() == 0 else None
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        user=user,
        group=user,
        extra_groups=[] if user else None,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def database() -> Iterator[str]:
    """The URL of an empty database on a server of its own, which listens on a socket alone."""
    found = programs()
    if found is None:
        missing("PostgreSQL", "Debian: apt-get install postgresql")
    initdb, pg_ctl, createdb = (str(found / name) for name in ("initdb", "pg_ctl", "createdb"))
    # a short path, as a socket needs, in which another user may walk
    with tempfile.TemporaryDirectory(prefix="postgresql-") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        who = ("--auth=trust", "--username=teacher")
        run(folder, initdb, *who, "--encoding=UTF8", "--no-sync", "--pgdata=data")
        options = f"-c listen_addresses='' -c unix_socket_directories='{name}' -c fsync=off"
        server = ("--pgdata=data", "--wait")
        run(folder, pg_ctl, "start", *server, "--log=log", f"--options={options}")
        try:
            run(folder, createdb, f"--host={name}", "--username=teacher", "gradebook")
            yield f"postgresql+psycopg://teacher@/gradebook?host={name}"
        finally:
            run(folder, pg_ctl, "stop", *server, "--mode=fast")


def booked(url: str, student: str) -> dict[str, tuple[float | None, bool]]:
    """For every graded cell: the automatic score, and whether a person has to look."""
    with Gradebook(url) as gradebook:
        grades = gradebook.find_submission_notebook("vae", "vae", student).grades
        return {grade.name: (grade.auto_score, grade.needs_manual_grade) for grade in grades}


def scores(folder: Path) -> dict[str, float]:
    """What `nbgrader export` has written."""
    with (folder / "grades.csv").open(encoding="utf-8") as file:
        return {row["student_id"]: float(row["raw_score"]) for row in csv.DictReader(file)}


def test_a_course_in_postgresql(course: Path, tmp_path: Path, database: str) -> None:
    folder = tmp_path / "course"
    folder.mkdir()
    settings = f"\nc.CourseDirectory.db_url = {database!r}\n"
    classroom.part_of_class(course, folder, STUDENTS, settings)
    for step in ("generate_assignment", "autograde"):
        done = nbgrader(folder, step, "vae")
        assert done.returncode == 0, done.stderr
    assert not (folder / "gradebook.db").exists(), "nothing is booked in SQLite"

    answers = dict.fromkeys([answer.id for answer in ANSWERS], (None, True))
    assert booked(database, "complete") == {t.id: (t.points, False) for t in TASKS} | answers
    assert set(booked(database, "missing").values()) == {(0.0, False)}
    in_sqlite = scores(course)
    expected = {student: in_sqlite[student] for student in STUDENTS}
    assert expected["complete"] == 31.0
    assert nbgrader(folder, "export").returncode == 0
    assert scores(folder) == expected

    give_points_by_hand(database)
    again = nbgrader(folder, "autograde", "vae")
    assert again.stderr.count("Nothing has changed") == len(STUDENTS), again.stderr
    regraded = nbgrader(folder, "autograde", "vae", "--force")
    assert regraded.returncode == 0, regraded.stderr
    where = ("vae", "vae", "complete")
    with Gradebook(database) as gradebook:
        assert gradebook.find_grade("beta-zero-answer", *where).score == 3.0
        assert gradebook.find_comment("beta-zero-answer", *where).comment == "Well said – α ≤ β."
        # what formgrader's pages ask for
        listed = {each["student"]: each["score"] for each in gradebook.submission_dicts("vae")}
        shown = {
            each["student"]: each["written_score"]
            for each in gradebook.notebook_submission_dicts("vae", "vae")
        }
    expected["complete"] += 3.0
    assert listed == expected
    assert shown == {**dict.fromkeys(STUDENTS, 0.0), "complete": 3.0}
    assert nbgrader(folder, "export").returncode == 0
    assert scores(folder) == expected

    feedback = nbgrader(folder, "generate_feedback", "vae", "--student=complete")
    assert feedback.returncode == 0, feedback.stderr
    page = folder / "feedback" / "complete" / "vae" / "vae.html"
    assert "Well said – α ≤ β." in page.read_text(encoding="utf-8")


def give_points_by_hand(url: str) -> None:
    """What formgrader books when a person gives points, extra credit and a comment."""
    where = ("vae", "vae", "complete")
    with Gradebook(url) as gradebook:
        grade = gradebook.find_grade("beta-zero-answer", *where)
        grade.manual_score, grade.extra_credit, grade.needs_manual_grade = 2.5, 0.5, False
        gradebook.find_comment("beta-zero-answer", *where).manual_comment = "Well said – α ≤ β."
        gradebook.db.commit()
