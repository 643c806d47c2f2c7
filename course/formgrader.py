"""Model answers and marking schemes beside the answers, for whoever grades in formgrader."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from autograder.notebook import NotebookError, grade_id, load, source
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from course import verdicts
from course.settings import SOURCE


class MarkingSchemes(Preprocessor):  # type: ignore[misc]
    """Adds them to the page as it is shown in formgrader, and to nothing that is kept or sent."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Insert the instructor's text below every answer; in feedback nothing is inserted."""
        if not resources.get("submission_id"):
            return nb, resources
        texts = _texts(resources["assignment_id"], resources["notebook_id"])
        cells = []
        for cell in nb.cells:
            cells.append(cell)
            text = texts.get(cell.metadata.get("nbgrader", {}).get("grade_id", ""))
            if text:
                cells.append(new_markdown_cell(f"*For you alone, model answer and marking scheme:*\n\n{text}"))
        nb.cells = cells
        return nb, resources


def _texts(assignment: str, notebook: str) -> dict[str, str]:
    """The answer cells of the assignment's source, by name."""
    try:
        cells = load(Path(SOURCE, assignment, f"{notebook}.ipynb"))
    except NotebookError:
        return {}
    named = {grade_id(cell): source(cell) for cell in cells}
    return {name: text for name, text in named.items() if verdicts.answer_limit(name) is not None}
