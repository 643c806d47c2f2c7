"""Read a notebook file: its code cells and its written answers, whatever else it holds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autograder.contract import ANSWERS, Answer

SIZE_LIMIT = 200 << 20  # bytes
PLACEHOLDER = "YOUR ANSWER HERE"


class NotebookError(Exception):
    """The file cannot be graded; the text is one line that names the file and the remedy."""


@dataclass(frozen=True)
class Notebook:
    """name: the file's name; cells: sources of the code cells; answers: texts by contract id."""

    name: str
    cells: list[str]
    answers: dict[str, str] = field(default_factory=dict)


def read(path: Path) -> Notebook:
    """Read an nbformat 4 notebook; raises `NotebookError`."""
    return parse(_json(path), path)


def parse(content: dict[str, Any], path: Path) -> Notebook:
    """The notebook that a file's JSON holds; raises `NotebookError`, which names the file."""
    cells = content.get("cells")
    if not isinstance(cells, list):
        if isinstance(content.get("worksheets"), list) or _major(content) < 4:
            raise NotebookError(
                f"{path}: this notebook has an old format (nbformat {_major(content)}); open it "
                f"in Jupyter and save it, or run: jupyter nbconvert --to notebook {path.name}"
            )
        raise NotebookError(f"{path}: not a notebook (it has no cells); hand in an .ipynb file")
    cells = [cell for cell in cells if isinstance(cell, dict)]
    return Notebook(
        path.name,
        [_source(cell) for cell in cells if cell.get("cell_type") == "code"],
        _answers(cells),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.is_dir():
            raise NotebookError(f"{path}: a folder; give the notebook inside it")
        if not path.exists():
            raise NotebookError(f"{path}: no such file; check the path to the notebook")
        if not path.is_file():
            raise NotebookError(f"{path}: not a regular file; give an .ipynb file")
        if path.stat().st_size > SIZE_LIMIT:
            raise NotebookError(f"{path}: larger than 200 MB; clear its outputs and save it again")
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        reason = error.strerror or "it cannot be opened"
        raise NotebookError(f"{path}: cannot be read ({reason}); check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise NotebookError(
            f"{path}: not a notebook (its text is not JSON); download it again as .ipynb"
        ) from error
    if not isinstance(content, dict):
        raise NotebookError(f"{path}: not a notebook (no JSON object); hand in an .ipynb file")
    return content


def _major(content: dict[str, Any]) -> int:
    major = content.get("nbformat")
    return major if isinstance(major, int) else 4


def _source(cell: dict[str, Any]) -> str:
    source = cell.get("source", "")
    if isinstance(source, list):
        return "".join(part for part in source if isinstance(part, str))
    return source if isinstance(source, str) else ""


def _answers(cells: list[dict[str, Any]]) -> dict[str, str]:
    """The longest text of each written answer, found by its grade id."""
    found: dict[str, str] = {}
    ids = {answer.id for answer in ANSWERS}
    for cell in cells:
        metadata = cell.get("metadata")
        grading = metadata.get("nbgrader") if isinstance(metadata, dict) else None
        grade_id = grading.get("grade_id") if isinstance(grading, dict) else None
        if isinstance(grade_id, str) and grade_id in ids:
            text = _source(cell).replace(PLACEHOLDER, "").strip()
            found[grade_id] = max(found.get(grade_id, ""), text, key=len)
    return found


def words(text: str) -> int:
    """Words between blanks."""
    return len(text.split())


def answer_status(answer: Answer, text: str) -> str:
    """manual, over-limit or not-attempted."""
    count = words(text)
    if count == 0:
        return "not-attempted"
    return "over-limit" if count > answer.limit else "manual"
