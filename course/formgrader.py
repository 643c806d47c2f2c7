"""The pages of formgrader and feedback: their layout, and what only those who grade see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from traitlets import Unicode

from autograder.notebook import NotebookError, grade_id, load, source
from course import verdicts

HEADING = "> **Only you see this:** a model answer, and how to mark."


LAYOUT = Path(__file__).with_name("layout")


class Layout(Preprocessor):
    """Adds layout/custom/custom.css to a page, where nbconvert looks for a user's own."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Name the folder that nbconvert takes for the user's."""
        resources["config_dir"] = str(LAYOUT)
        return nb, resources


class MarkingSchemes(Preprocessor):
    """Adds them to the page as it is shown in formgrader, and to nothing that is kept or sent."""

    source = Unicode("assignment", help="Where the assignments' sources lie.").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Insert the instructor's text below every answer; in feedback nothing is inserted."""
        if not resources.get("submission_id"):
            return nb, resources
        name = f"{resources['notebook_id']}.ipynb"
        texts = _texts(Path(self.source, resources["assignment_id"], name))
        cells = []
        for cell in nb.cells:
            cells.append(cell)
            text = texts.get(cell.metadata.get("nbgrader", {}).get("grade_id", ""))
            if text:
                cells.append(new_markdown_cell(f"{HEADING}\n\n{text}"))
        nb.cells = cells
        return nb, resources


def _texts(path: Path) -> dict[str, str]:
    """The answer cells of an assignment's source, by name."""
    try:
        cells = load(path)
    except NotebookError:
        return {}
    named = {grade_id(cell): source(cell) for cell in cells}
    return {name: text for name, text in named.items() if verdicts.answer_limit(name) is not None}
