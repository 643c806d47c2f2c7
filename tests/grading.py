"""Grade a notebook in this process, as `autograder grade` does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from autograder import sandbox
from autograder.grading import Grade
from autograder.notebook import Notebook, parse
from autograder.run import Run, perform
from autograder.submission import Submission


def as_submission(node: NotebookNode, name: str = "vae.ipynb") -> Notebook:
    """The notebook as the reader gives it."""
    return parse(json.loads(nbformat.writes(node)), Path(name))


def grade(
    node: NotebookNode,
    *,
    seed: int = 1,
    fork: bool = True,
    tasks: tuple[str, ...] = (),
    seconds: float = 20.0,
    learning: bool = False,
    weights: bytes | None = None,
    device: str = "cpu",
) -> Grade:
    """The grade of a notebook, in the sandbox where there is one.

    seconds: the time for one definition, and for one answer. learning: with the training runs
    on digits. weights: the content of vae.safetensors beside it. device: where the digits are
    trained on.
    """
    notebook = as_submission(node)
    boxed = sandbox.missing() is None
    submission = Submission(
        notebook.cells, boxed=boxed, fork=fork, answer_seconds=seconds, statement_seconds=seconds
    )
    run = Run(Grade(notebook), submission, seed, learning=learning, weights=weights, device=device)
    try:
        perform(run, tasks)
    finally:
        submission.close()
    return run.grade


def lost(grade: Grade, of: tuple[str, ...] = ()) -> dict[str, float]:
    """Points lost by task, of all of them or of some; tasks with full marks are left out."""
    tasks: list[dict[str, Any]] = grade.as_json()["tasks"]
    return {
        task["id"]: task["max_score"] - task["score"]
        for task in tasks
        if task["score"] != task["max_score"] and (not of or task["id"] in of)
    }


def causes(grade: Grade) -> dict[str, set[str | None]]:
    """The misconceptions named in the failing checks of every task."""
    found: dict[str, set[str | None]] = {}
    for result in grade.results:
        if not result.passed:
            found.setdefault(result.task, set()).add(result.misconception)
    return found
