"""nbgrader's settings for this homework; a course's nbgrader_config.py calls `configure`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from course import homework, verdicts


def configure(c: Any, folder: Path) -> None:
    """Set nbgrader up for the course in a folder; what the file sets afterwards prevails."""
    c.CourseDirectory.course_id = "vae"
    c.CourseDirectory.root = str(folder)
    c.CourseDirectory.source_directory = "assignment"
    c.MarkingSchemes.source = str(folder / "assignment")
    c.GenerateAssignment.force = True  # a fresh checkout holds the notebook, not the grader's copy
    c.GenerateAssignment.pre_convert_hook = homework.check
    c.GenerateAssignment.post_convert_hook = copy_grader
    c.HTMLExporter.filters = {"markdown2html": "course.clean.markdown"}
    pages = ("course.formgrader.Layout", "course.formgrader.MarkingSchemes")
    c.HTMLExporter.preprocessors = list(pages)
    _take_over()


def _take_over() -> None:
    """nbgrader has no setting for the class that autogrades or validates, so its names move."""
    from nbgrader.apps import api, autogradeapp, validateapp

    from course.autograde import Autograde
    from course.validate import Validator

    autogradeapp.Autograde = api.Autograde = Autograde
    validateapp.Validator = Validator


def copy_grader(assignment: str, **_: Any) -> None:
    """Put autograder/ into the release; nbgrader stands in the course directory then."""
    target = Path("release") / assignment / "autograder"
    leave = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    try:
        shutil.copytree(verdicts.GRADER, target, ignore=leave, copy_function=shutil.copyfile)
    except OSError as error:  # nbgrader would go on after an exception, and release without it
        sys.exit(f"nbgrader_config.py: cannot copy autograder/ to {target}: {error}")
