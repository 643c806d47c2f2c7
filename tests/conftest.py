"""What the tests share: what the system must have, and a class graded once for all of them."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from autograder import learning, sandbox
from autograder.draws import Draws
from autograder.submission import Session
from tests import classroom
from tests.system import missing

torch.set_num_threads(1)  # tests run side by side
settings.register_profile("tests", deadline=None, database=None)  # no verdict by the clock
settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole-corpus", action="store_true", help="grade all of the student work")


@pytest.fixture
def box() -> None:
    """For a test of the sandbox."""
    reason = sandbox.missing()
    if reason is not None:
        missing("the sandbox", reason)


@pytest.fixture
def common_folder() -> Iterator[Path]:
    """A folder in which every user may write."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
def trained_on(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices that digits were trained on, one for each training that passed or not."""
    asked: list[str] = []
    check = learning.LearningRun.check

    def noting(
        whole: learning.LearningRun, session: Session, draws: Draws, device: str = "cpu"
    ) -> None:
        asked.append(device)
        check(whole, session, draws, device)

    monkeypatch.setattr(learning.LearningRun, "check", noting)
    return asked


@pytest.fixture(scope="session")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The class, graded once for all processes that run tests side by side."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = shared / "course", shared / "course-is-ready"
    try:
        folder.mkdir()
    except FileExistsError:
        while not done.exists():
            time.sleep(0.5)
    else:
        try:
            classroom.graded_course(folder)
        finally:
            done.touch()
    return folder


@pytest.fixture
def own_course(course: Path, tmp_path: Path) -> Path:
    """A few students of the class in a course that a test may change."""
    folder = tmp_path / "course"
    folder.mkdir()
    for name in ("assignment", ".autograder"):
        shutil.copytree(course / name, folder / name)
    for name in ("nbgrader_config.py", "gradebook.db"):
        shutil.copy(course / name, folder)
    for student in ("complete", "real-student"):
        for step in ("submitted", "autograded"):
            shutil.copytree(course / step / student, folder / step / student)
    return folder
