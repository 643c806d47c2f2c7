"""Read a notebook file: its code cells and its written answers, whatever else it holds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autograder.contract import ANSWERS, Answer

SIZE_LIMIT = 200 << 20  # bytes
VALUES_LIMIT = 10_000_000  # lists, objects and their entries: each takes a hundred bytes
PLACEHOLDER = "YOUR ANSWER HERE"


class NotebookError(Exception):
    """The file cannot be graded; the text is one line that names the file and the remedy."""


@dataclass(frozen=True)
class Notebook:
    """name: the file's name; cells: sources of the code cells; answers: texts by contract id."""

    name: str
    cells: list[str]
    answers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Located:
    """A written answer; cells: those that hold nothing else; after: the cell that it follows."""

    text: str
    cells: tuple[int, ...]
    after: int | None = None


def read(path: Path) -> Notebook:
    """Read a notebook of nbformat 3 or later; raises `NotebookError`."""
    return parse(_json(path), path)


def parse(content: dict[str, Any], path: Path) -> Notebook:
    """The notebook that a file's JSON holds; raises `NotebookError`, which names the file."""
    cells = cells_of(content, path)
    return Notebook(
        path.name,
        [source(cell) for cell in cells if cell.get("cell_type") == "code"],
        {id: found.text for id, found in locate_answers(cells).items()},
    )


def load(path: Path) -> list[dict[str, Any]]:
    """All cells of a notebook file as nbformat 4 has them; raises `NotebookError`."""
    return cells_of(_json(path), path)


def cells_of(content: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook's JSON, those of nbformat 3 converted; raises `NotebookError`."""
    cells = content.get("cells")
    if not isinstance(cells, list) and isinstance(content.get("worksheets"), list):
        cells = _converted(content)
    if isinstance(cells, list):
        return [_mended(cell) for cell in cells if isinstance(cell, dict)]
    if _major(content) < 4:
        raise NotebookError(
            f"{path}: this notebook has an old format (nbformat {_major(content)}); open it "
            f"in Jupyter and save it, or run: jupyter nbconvert --to notebook {path.name}"
        )
    raise NotebookError(f"{path}: not a notebook (it has no cells); hand in an .ipynb file")


def _mended(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell with its kind and source where they belong, where it says them in another way."""
    kind, text = cell.get("cell_type"), cell.get("source", cell.get("input"))
    if isinstance(kind, str):
        kind = kind.lower()
    elif "outputs" in cell or "execution_count" in cell:
        kind = "code"
    same = kind == cell.get("cell_type") and "source" in cell
    return cell if same else {**cell, "cell_type": kind, "source": text}


def _converted(content: dict[str, Any]) -> list[Any] | None:
    """Cells of nbformat 3, or None where they are too broken to convert."""
    import warnings

    import nbformat
    from traitlets.log import get_logger

    log: Any = get_logger()
    log = getattr(log, "logger", log)  # an application's is an adapter
    silent, log.disabled = log.disabled, True  # it would repeat the student's text as it stands
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what does not validate may still be read
            _bound_levels(content)
            old = nbformat.v3.to_notebook_json(content)
            made = nbformat.v4.upgrade(old, from_version=3, from_minor=0)
    except Exception:
        return None
    finally:
        log.disabled = silent
    return list(made.cells)


def _bound_levels(content: dict[str, Any]) -> None:
    """Set levels that no heading has to 1; as many hashes as they say would fill the memory."""
    for sheet in content["worksheets"]:
        for cell in sheet["cells"]:
            if cell.get("cell_type") == "heading":
                level = cell.get("level")
                cell["level"] = int(level) if level in range(1, 7) else 1


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.is_symlink():  # perhaps to the work of another
            raise NotebookError(f"{path}: a link to another file; hand in the notebook itself")
        if path.is_dir():
            raise NotebookError(f"{path}: a folder; give the notebook inside it")
        if not path.exists():
            raise NotebookError(f"{path}: no such file; check the path to the notebook")
        if not path.is_file():
            raise NotebookError(f"{path}: not a regular file; give an .ipynb file")
        if path.stat().st_size > SIZE_LIMIT:
            raise NotebookError(f"{path}: larger than 200 MB; clear its outputs and save it again")
        with path.open("rb") as file:  # of no size: what never ends, such as /proc/kmsg
            data = file.read(path.stat().st_size)
        if sum(map(data.count, (b"[", b"{", b","))) > VALUES_LIMIT:
            raise MemoryError
        content = json.loads(data.decode("utf-8-sig"), parse_int=_whole)
    except OSError as error:
        reason = error.strerror or "it cannot be opened"
        raise NotebookError(f"{path}: cannot be read ({reason}); check its permissions") from error
    except MemoryError as error:
        raise NotebookError(f"{path}: too large to read; clear its outputs, save again") from error
    except (ValueError, RecursionError) as error:
        raise NotebookError(f"{path}: not a notebook ({_instead_of_json(data)}") from error
    if not isinstance(content, dict):
        raise NotebookError(f"{path}: not a notebook (no JSON object); hand in an .ipynb file")
    return content


def _whole(digits: str) -> int:
    """An integer; one of more digits than Python reads is in no field that counts."""
    return int(digits) if len(digits) < 1000 else 0


_KINDS = (
    (
        (b"PK", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ"),
        "an archive); unpack it and",
    ),
    ((b"%PDF",), "a PDF); it belongs beside the notebook:"),
    (
        (b"version https://git-lfs",),
        "a pointer of Git LFS); fetch what it stands for (git lfs pull) and",
    ),
    ((b"{\\rtf", b"\xd0\xcf\x11\xe0"), "a document of a word processor);"),
)


def _instead_of_json(data: bytes) -> str:
    """What a file holds that is no JSON, and what to do about it."""
    start = data.lstrip()[:1000]
    if not start:
        return "the file is empty); save it in Jupyter, and hand it in again"
    if b"\n<<<<<<< " in data:
        return "it has the marks of a merge, <<<<<<<); settle the conflict, and hand it in again"
    for begins, what in _KINDS:
        if start.startswith(begins):
            return f"it is {what} hand in the .ipynb"
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")) or b"\0" in start[:4]:
        return "its text is not UTF-8 but UTF-16 or 32); save it as UTF-8, and hand it in again"
    if start.startswith(b"<"):
        return "it is a web page); download the notebook itself, as .ipynb"
    if not start.startswith(b"{"):
        return "its text is not JSON); hand in the .ipynb, not a script"
    try:
        data.decode()
    except UnicodeDecodeError:
        return "its text is not UTF-8); save it as UTF-8, and hand it in again"
    return "its text is no whole JSON); download it again as .ipynb"


def _major(content: dict[str, Any]) -> int:
    major = content.get("nbformat")
    return major if isinstance(major, int) else 4


def source(cell: dict[str, Any]) -> str:
    """The text of a cell, whatever form it has."""
    text = cell.get("source", "")
    if isinstance(text, list):
        return "".join(part for part in text if isinstance(part, str))
    return text if isinstance(text, str) else ""


def grade_id(cell: dict[str, Any]) -> str:
    """The name by which nbgrader knows a cell, or the cell's own id; they begin alike."""
    metadata = cell.get("metadata")
    grading = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    name = grading.get("grade_id") if isinstance(grading, dict) else None
    for found in (name, cell.get("id")):
        if isinstance(found, str) and found:
            return found
    return ""


def locate_answers(cells: list[dict[str, Any]]) -> dict[str, Located]:
    """Each written answer: the longest cell of its name, or else what follows its question."""
    found: dict[str, Located] = {}
    names = [grade_id(cell) for cell in cells]
    for answer in ANSWERS:
        named = [
            Located(_written(cells[index]), (index,))
            for index, name in enumerate(names)
            if name == answer.id
        ]
        best = max(named, key=lambda located: len(located.text), default=None)
        if best is None or not best.text:
            best = _below_question(answer, cells, names) or best
        if best is not None:
            found[answer.id] = best
    return found


def _written(cell: dict[str, Any]) -> str:
    return source(cell).replace(PLACEHOLDER, "").strip()


def _below_question(
    answer: Answer, cells: list[dict[str, Any]], names: list[str]
) -> Located | None:
    """The text between a question and the next heading, code cell or passage of the homework."""
    for index, cell in enumerate(cells):
        paragraphs = source(cell).split("\n\n")
        asking = [n for n, text in enumerate(paragraphs) if answer.question in _flat(text)]
        if cell.get("cell_type") == "code" or not asking:
            continue
        parts, taken = ["\n\n".join(paragraphs[asking[0] + 1 :]).strip()], []
        for number in range(index + 1, len(cells)):
            if _ends_answer(cells[number]) or names[number] in _OTHER_CELLS - {answer.id}:
                break
            parts.append(_written(cells[number]))
            taken.append(number)
        text = "\n\n".join(part for part in parts if part)
        return Located(text, () if parts[0] else tuple(taken), index)
    return None


_OTHER_CELLS = {answer.id for answer in ANSWERS}
_PROSE = ("Now find it. Choose", "**Question (")  # what follows an answer without a heading


def _ends_answer(cell: dict[str, Any]) -> bool:
    text = _flat(source(cell))
    return cell.get("cell_type") == "code" or text.startswith("#") or any(p in text for p in _PROSE)


def _flat(text: str) -> str:
    return " ".join(text.split())


def words(text: str) -> int:
    """Words between blanks."""
    return len(text.split())


def answer_status(answer: Answer, text: str) -> str:
    """manual, over-limit or not-attempted."""
    count = words(text)
    if count == 0:
        return "not-attempted"
    return "over-limit" if count > answer.limit else "manual"
