"""Grade a notebook in this process, as `autograder grade` does."""

from __future__ import annotations

from typing import Any

from nbformat import NotebookNode

from autograder import sandbox
from autograder.contract import ANSWERS
from autograder.grading import Grade
from autograder.notebook import Notebook
from autograder.run import Run, perform
from autograder.submission import Submission


def as_submission(node: NotebookNode, name: str = "vae.ipynb") -> Notebook:
    """The notebook as the reader would give it."""
    answers = {
        cell.metadata.nbgrader.grade_id: cell.source
        for cell in node.cells
        if "nbgrader" in cell.metadata
        and cell.metadata.nbgrader.get("grade_id") in {a.id for a in ANSWERS}
    }
    return Notebook(name, [c.source for c in node.cells if c.cell_type == "code"], answers)


def grade(
    node: NotebookNode, *, seed: int = 1, fork: bool = True, tasks: tuple[str, ...] = ()
) -> Grade:
    """The grade of a notebook, in the sandbox where there is one."""
    notebook = as_submission(node)
    submission = Submission(notebook.cells, boxed=sandbox.missing() is None, fork=fork)
    run = Run(Grade(notebook), submission, seed)
    try:
        perform(run, tasks)
    finally:
        submission.close()
    return run.grade


def lost(grade: Grade) -> dict[str, float]:
    """Points lost by task; tasks with full marks are left out."""
    tasks: list[dict[str, Any]] = grade.as_json()["tasks"]
    return {
        task["id"]: task["max_score"] - task["score"]
        for task in tasks
        if task["score"] != task["max_score"]
    }


def causes(grade: Grade) -> dict[str, set[str | None]]:
    """The misconceptions named in the failing checks of every task."""
    found: dict[str, set[str | None]] = {}
    for result in grade.results:
        if not result.passed:
            found.setdefault(result.task, set()).add(result.misconception)
    return found
