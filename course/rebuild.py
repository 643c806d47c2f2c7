"""The autograded notebook: the student's cells, made harmless, around the homework's graded cells.

Nothing of the layout that was handed in is taken for granted. Graded cells are made anew from
the gradebook; each takes the place of the cell of its name, or stands below the work it is about.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from typing import Any

from nbconvert.filters import Highlight2HTML
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from autograder.contract import BY_ID
from autograder.notebook import Located, grade_id, locate_answers, source
from course import clean, verdicts
from course.verdicts import Verdict

ROOM = 500_000  # characters of HTML for all cells and texts of one notebook
LONGEST = 12_000  # characters of one cell; some markdown takes quadratic time
SHORTEST = 2_000  # characters that a cell keeps when there is no room
CELLS = 500  # shown of one notebook
TEXTS = ("text", "text/html", "image/svg+xml", "text/plain")
NOT_ANSWERED = "*No answer was found.*"


@dataclass(frozen=True)
class Graded:
    """A cell that the gradebook knows; points: None where it has no grade of its own."""

    id: str
    type: str
    source: str
    solution: bool
    points: float | None
    checksum: str | None

    @property
    def metadata(self) -> dict[str, Any]:
        """What nbgrader wants to know of the cell."""
        made: dict[str, Any] = {
            "grade_id": self.id,
            "grade": self.points is not None,
            "solution": self.solution,
            "locked": not self.solution,
            "task": False,
            "schema_version": 3,
            "cell_type": self.type,
            "checksum": self.checksum,
        }
        if self.points is not None:
            made["points"] = self.points
        return made


@dataclass
class _Places:
    """Cells by where they go: instead of, before and after the student's, and at the end."""

    instead: dict[int, NotebookNode] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    after: dict[int, list[NotebookNode]] = field(default_factory=dict)
    metadata: dict[int, dict[str, Any]] = field(default_factory=dict)
    end: list[NotebookNode] = field(default_factory=list)


def rebuild(
    cells: list[dict[str, Any]], graded: list[Graded], verdict: Verdict, notes: list[str]
) -> NotebookNode:
    """The notebook that formgrader and feedback show; notes: what to say above everything."""
    answers = locate_answers(cells)
    places = _Places()
    for cell in graded:
        if verdicts.known_task(cell.id):
            _place(places, cells, cell, _test(cell, verdict))
        elif cell.solution and cell.points is not None:
            _place_answer(places, cells, cell, answers.get(cell.id))
        elif cell.solution:
            _mark_solution(places, cells, cell)
    made = _joined(places, cells)
    if len(cells) > CELLS:
        notes = [*notes, f"Only the first {CELLS} cells are shown; see the submitted file."]
    pictures = [o["data"] for c in made for o in c.get("outputs", []) if "data" in o]
    pictures += [data for c in made for data in c.get("attachments", {}).values()]
    clean.fit_pictures(pictures)
    _fit_texts(made)
    if notes:
        made.insert(0, new_markdown_cell("\n\n".join(f"> **Note.** {note}" for note in notes)))
    for number, shown in enumerate(made):
        shown["id"] = f"cell-{number}"
    notebook: NotebookNode = new_notebook(cells=made)
    return notebook


def _test(cell: Graded, verdict: Verdict) -> NotebookNode:
    text = verdicts.shown(verdict, cell.id, cell.points)
    output = new_output("stream", name="stdout", text=clean.short(text) + "\n")
    marked = {"nbgrader": cell.metadata}
    made: NotebookNode = new_code_cell(cell.source, outputs=[output], metadata=marked)
    return made


def _place(places: _Places, cells: list[dict[str, Any]], cell: Graded, made: NotebookNode) -> None:
    """Put a test where the student has it, or below the work, or at the end."""
    for index, own in enumerate(cells):
        named = grade_id(own) == cell.id or source(own).strip() == cell.source
        if named and index not in places.instead:
            if source(own).strip() == cell.source:
                places.instead[index] = made
            else:  # a locked cell that was changed stays to be seen
                places.after.setdefault(index, []).append(made)
            return
    work = _defining(cells, BY_ID[cell.id].name)
    where = places.end if work is None else places.after.setdefault(work, [])
    where.append(made)


def _place_answer(
    places: _Places, cells: list[dict[str, Any]], cell: Graded, found: Located | None
) -> None:
    text = clean.short(found.text, LONGEST) if found is not None else ""
    made = new_markdown_cell(
        clean.markup(text) or NOT_ANSWERED, metadata={"nbgrader": cell.metadata}
    )
    if found is not None and found.cells:
        for index in found.cells:
            made.setdefault("attachments", {}).update(clean.attachments(cells[index]))
            places.gone.add(index)
        places.instead[found.cells[0]] = made
    elif found is not None and found.after is not None:
        places.after.setdefault(found.after, []).append(made)
    else:
        places.end.append(made)


def _mark_solution(places: _Places, cells: list[dict[str, Any]], cell: Graded) -> None:
    """Name the cell that holds the work, so that comments can be given below it."""
    code = [n for n, own in enumerate(cells) if own.get("cell_type") == "code"]
    named = [n for n in code if grade_id(cells[n]) == cell.id]
    if not named:
        task = BY_ID.get(cell.id.removesuffix("-solution"))
        index = _defining(cells, "VAE" if task is None else task.name)
        named = [] if index is None else [index]
    for index in named[:1]:
        places.metadata.setdefault(index, cell.metadata)


def _defining(cells: list[dict[str, Any]], name: str) -> int | None:
    """The last code cell that defines a name, or None."""
    pattern = re.compile(rf"^(?:class|def)\s+{name}\b|^{name}\s*[:=]", re.MULTILINE)
    found = None
    for index, cell in enumerate(cells):
        if cell.get("cell_type") == "code" and pattern.search(source(cell)):
            found = index
    return found


def _joined(places: _Places, cells: list[dict[str, Any]]) -> list[NotebookNode]:
    made: list[NotebookNode] = []
    for index, own in enumerate(cells):
        if index in places.instead:
            made.append(places.instead[index])
        elif index not in places.gone and (index < CELLS or index in places.metadata):
            made.append(_own(own, places.metadata.get(index)))
        made += places.after.get(index, [])
    return made + places.end


def _own(cell: dict[str, Any], metadata: dict[str, Any] | None) -> NotebookNode:
    """One of the student's cells without anything but text, pictures and tidy outputs."""
    text = clean.short(source(cell), LONGEST)
    text = re.sub(r"^[^\S\n]+$", "", text, flags=re.MULTILINE)  # the highlighter's weak spot
    if cell.get("cell_type") == "code":
        marked = {"nbgrader": metadata} if metadata else {}
        code: NotebookNode = new_code_cell(text, outputs=clean.outputs(cell), metadata=marked)
        return code
    made: NotebookNode = new_markdown_cell(text)
    pasted = clean.attachments(cell)
    if pasted:
        made["attachments"] = pasted
    return made


def _fit_texts(cells: list[NotebookNode]) -> None:
    """Cut cells and outputs once their HTML, or the work of making it, has used up the room."""
    highlight = Highlight2HTML(pygments_lexer="ipython3")
    room = ROOM
    for cell in cells:
        if room == 0:
            cell.source = clean.short(cell.source, SHORTEST if "nbgrader" in cell.metadata else 0)
        if cell.cell_type == "code":
            size = len(highlight(cell.source))
        else:
            cell.source = clean.markup(cell.source)
            size = len(clean.rendered(cell.source))
        room = max(room - max(size, 3 * len(cell.source)), 0)
        for output in cell.get("outputs", []):
            room = max(room - _fit_output(output, room), 0)


def _fit_output(output: NotebookNode, room: int) -> int:
    """Cut one output if there is no room for it; its size as HTML."""
    holder = output if "text" in output else output["data"]
    key = next((key for key in TEXTS if key in holder), None)
    if key is None:
        return 0
    size = len(html.escape(holder[key]))
    if size > room:
        del holder[key]
        short = "text" if key == "text" else "text/plain"
        holder[short] = "(left out; see the submitted file)"
    return size
