"""nbgrader's settings; the course directory is this folder.

`nbgrader generate_assignment vae` makes release/vae/ from assignment/vae/: the notebook
without its solutions, what lies beside it, and a copy of the grader. `nbgrader autograde vae`
grades what lies under submitted/ in sandboxes. docs/instructors.md says more.
"""

from pathlib import Path
from typing import Any

from course.settings import configure

c: Any = get_config()  # type: ignore[name-defined]  # noqa: F821
configure(c, Path(__file__).resolve().parent)
