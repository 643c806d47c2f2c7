"""`nbgrader validate` with this project's verdicts: the notebook runs in the sandbox alone."""

from __future__ import annotations

import math
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from nbconvert.filters import strip_ansi
from nbgrader import validator
from traitlets import Bool

from autograder import sandbox
from autograder.contract import TASKS
from autograder.notebook import grade_id, load
from course import verdicts
from course.verdicts import Options


class Validator(validator.Validator):  # type: ignore[misc]
    """Says which tasks miss points, and why; changed or deleted cells do not matter."""

    unboxed = Bool(False, help="Run the notebook without the sandbox.").tag(config=True)

    def validate(self, filename: str) -> dict[str, list[dict[str, str]]]:
        """The tasks that failed, or that passed, as nbgrader prints and sends them."""
        path = Path(filename).absolute()
        reason = None if self.unboxed else sandbox.missing()
        if reason is not None:
            raise RuntimeError(f"{path.name} was not validated, because {reason}")
        with tempfile.TemporaryDirectory() as folder:
            options = Options(Path(folder), jobs=1, unboxed=self.unboxed)
            verdict = verdicts.grade_all([path], options, self.log.debug)[path]
        if verdict.reason or verdict.fault:
            raise RuntimeError(verdict.reason or verdict.fault)
        worth = _worth(load(path))
        full = {task.id: verdict.share(task.id) == 1 for task in TASKS}
        if self.invert:
            return {"passed": [{"source": f'check("{id}")'} for id, all_ in full.items() if all_]}
        failed = []
        for task in (id for id, all_ in full.items() if not all_):
            text = verdicts.shown(verdict, task, worth.get(task))
            failed.append({"source": f'check("{task}")', "error": text, "raw_error": text})
        return {"failed": failed} if failed else {}

    def _indent(self, val: str) -> str:
        """The text as it is; nbgrader's own cuts what is longer than its width in the middle."""
        return textwrap.indent(strip_ansi(val), self.indent, lambda _: True)


def _worth(cells: list[dict[str, Any]]) -> dict[str, float]:
    """The points of the notebook's graded cells, where they are numbers."""
    found = {}
    for cell in cells:
        told = cell.get("metadata", {}).get("nbgrader")
        points = told.get("points") if isinstance(told, dict) else None
        if isinstance(points, int | float) and 0 <= points < math.inf:
            found[grade_id(cell)] = float(points)
    return found
