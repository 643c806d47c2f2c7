"""What is wrong with the homework's own notebook, before it reaches students."""

from __future__ import annotations

import difflib
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from autograder import notebook
from autograder.contract import ANSWERS, TASKS, counted
from autograder.notebook import NotebookError, grade_id, load

POINTS = {part.id: part.points for part in (*TASKS, *ANSWERS)}
_BEGIN, _END = "### BEGIN SOLUTION", "### END SOLUTION"


def check(notebooks: list[str], **_: Any) -> None:
    """A hook of nbgrader's, before it makes the release; ends the process where that is wrong."""
    for path in notebooks:
        try:
            found, notes = faults(load(Path(path)))
        except NotebookError as error:
            sys.exit(str(error))
        for note in notes:
            print(f"{path}: {note}", file=sys.stderr)
        if found:  # nbgrader would go on after an exception
            sys.exit("\n".join(f"{path}: {fault}" for fault in found))


def faults(cells: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """What makes a notebook useless as homework, and what is only worth a look; with its cells."""
    found, notes = [], []
    names = Counter(name for cell in cells if (name := grade_id(cell)))
    for number, cell in enumerate(cells, 1):
        name = grade_id(cell)
        where = f"cell {number} of all" + (f" (`{name}`)" if name else "")
        found += [f"{where}: {text}" for text in _of_solution(notebook.source(cell))]
        told = cell.get("metadata", {}).get("nbgrader", {})
        if not name or not isinstance(told, dict):
            continue
        if names[name] > 1:
            found.append(f"{where}: {names[name]} cells have this name; each needs its own.")
        if not told.get("grade"):
            continue
        points = told.get("points")
        if not isinstance(points, int | float) or isinstance(points, bool) or not points >= 0:
            found.append(f"{where}: its points are {points!r}; a number from 0 on is needed.")
        elif points != POINTS.get(name, points):
            notes.append(
                f"{where} is worth {counted(points, 'point')} here, {POINTS[name]:g} in the "
                "prose and in what students see of the checks: see docs/instructors.md, "
                "Changing points."
            )
        if name not in POINTS and not told.get("solution"):
            near = difflib.get_close_matches(name, POINTS, 1)
            text = f"; is it `{near[0]}`?" if near else f": they are {', '.join(POINTS)}."
            found.append(f"{where}: the grader knows no task of this name{text}")
    missing = [name for name in POINTS if name not in names]
    if missing:
        notes.append(f"no cell has the points of {', '.join(missing)}.")
    return found, notes


def _of_solution(source: str) -> list[str]:
    """What is wrong with the marks around what students write."""
    opened = False
    for line in map(str.strip, source.splitlines()):
        if line in (_BEGIN, _END):
            if opened == (line == _BEGIN):
                return [f"`{line}` stands where the other mark is needed."]
            opened = not opened
    return [f"`{_BEGIN}` has no `{_END}`."] if opened else []
