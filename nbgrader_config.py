"""nbgrader's settings; the course directory is this folder.

`nbgrader generate_assignment vae` makes release/vae/ from assignment/vae/: the notebook
without its solutions, what lies beside it, and a copy of the grader.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

c: Any = get_config()  # type: ignore[name-defined]  # noqa: F821

c.CourseDirectory.course_id = "vae"
c.CourseDirectory.source_directory = "assignment"
c.GenerateAssignment.force = True  # a fresh checkout holds the notebook, not the grader's copy


def copy_grader(assignment: str, **_: Any) -> None:
    """Puts autograder/ into the release; nbgrader stands in the course directory then."""
    target = Path("release") / assignment / "autograder"
    leave = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    try:
        shutil.copytree("autograder", target, ignore=leave, copy_function=shutil.copyfile)
    except OSError as error:  # nbgrader would go on after an exception, and release without it
        sys.exit(f"nbgrader_config.py: cannot copy autograder/ to {target}: {error}")


c.GenerateAssignment.post_convert_hook = copy_grader
