"""`autograder quickstart FOLDER`: a course folder in which nbgrader's commands work."""

from __future__ import annotations

import shutil
from pathlib import Path

ASSIGNMENT = Path(__file__).resolve().parents[1] / "assignment" / "vae"
IGNORED = """\
.autograder/
.nbgrader.log
gradebook.db*
/grades.csv
/autograded/
/feedback/
/submitted/
"""

CONFIG = '''\
"""nbgrader's settings; the course directory is this folder."""

from pathlib import Path

from course.settings import configure

c = get_config()
configure(c, Path(__file__).resolve().parent)

# Settings of your own go here, for example:
# c.CourseDirectory.course_id = "deep-learning"
# c.CourseDirectory.db_assignments = [{"name": "vae", "duedate": "2030-01-31 23:59:00 UTC"}]
# c.Autograde.jobs = 2  # notebooks graded side by side
'''

README = """\
# A course with the VAE homework

In this folder, with the environment of vae-autograder activated:

    nbgrader generate_assignment vae   # release/vae/ is what students get
    nbgrader autograde vae             # grades submitted/STUDENT/vae/vae.ipynb in sandboxes
    jupyter lab                        # Nbgrader, Formgrader: grade the written answers
    nbgrader generate_feedback vae     # feedback/STUDENT/vae/vae.html goes back to the student
    nbgrader export                    # grades.csv

The homework is `assignment/vae/vae.ipynb`, with solutions, model answers and marking schemes.
Edit it in Jupyter (the *Create Assignment* toolbar shows points), then generate it again.
`gradebook.db` holds all grades: back it up. The whole semester, in order, is described in
docs/instructors.md of vae-autograder.
"""


class CannotMake(Exception):
    """The folder cannot be made; the text is one line that says why."""


def make(folder: Path) -> None:
    """Make a course folder; raises `CannotMake`."""
    if not (ASSIGNMENT / "vae.ipynb").is_file():
        raise CannotMake(f"{ASSIGNMENT}: the homework is missing from this installation")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CannotMake(f"{folder}: exists and is not empty; name a new folder")
        (folder / "submitted").mkdir(parents=True)
        ignore = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(ASSIGNMENT, folder / "assignment" / "vae", ignore=ignore)
        (folder / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
        (folder / "README.md").write_text(README, encoding="utf-8")
        (folder / ".gitignore").write_text(IGNORED, encoding="utf-8")
    except OSError as error:
        raise CannotMake(f"{folder}: cannot be made ({error.strerror})") from error
