"""Builds the homework's notebook: `python -m solution.notebook [--check]`.

The prose and the order of the cells come from assignment/vae.py, in jupytext's percent
format; the code of its solution cells, and of those given cells that name a `source`,
comes from this package. A cell's header says what the cell is:

    # %% solution="ID" source="MODULE.NAME ..."     students write what stands in the solution
    # %% test="TASK" points=N                       a locked test; its code is check("TASK")
    # %% [markdown] answer="TASK" points=N          a written answer; it holds a model answer
    # %% source="MODULE.NAME ..."                   given code out of this package
"""

import argparse
import ast
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat

from course import homework

HEADERS = {"solution", "test", "answer", "points", "source"}
PACKAGE = Path(__file__).resolve().parent
PROSE = PACKAGE.parent / "assignment" / "vae.py"
NOTEBOOK = PACKAGE.parent / "assignment" / "vae" / "vae.ipynb"


def definition(name: str) -> str:
    """The source of a function, class or constant, MODULE.NAME, with the comments around it."""
    module, _, wanted = name.partition(".")
    if not (PACKAGE / f"{module}.py").is_file():
        raise ValueError(f"there is no solution/{module}.py for source {name}")
    source = (PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    lines = source.splitlines()
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node]
        names = {getattr(target, "name", getattr(target, "id", None)) for target in targets}
        if wanted in names and node.end_lineno is not None:
            first, last = node.lineno - 1, node.end_lineno
            while first > 0 and lines[first - 1].startswith(("#", "@")):
                first -= 1
            while last < len(lines) and lines[last].lstrip().startswith("#"):
                last += 1
            return "\n".join(lines[first:last])
    raise ValueError(f"no {wanted} in solution/{module}.py")


def nbgrader_metadata(header: dict[str, Any]) -> dict[str, Any] | None:
    """What nbgrader wants to know of a cell; None of a cell that is none of its business."""
    kinds = [kind for kind in ("solution", "test", "answer") if kind in header]
    if not kinds:
        return None
    kind = kinds[0]
    metadata = {
        "grade_id": header[kind],
        "grade": kind != "solution",
        "solution": kind != "test",
        "locked": kind == "test",
        "task": False,
        "schema_version": 3,
    }
    if kind != "solution":
        metadata["points"] = header.get("points")
    return metadata


def build() -> str:
    """The notebook as JSON text, the same on every run; ValueError where it would be wrong."""
    prose = PROSE.read_text(encoding="utf-8")
    prose = prose[prose.index("\n# %%") + 1 :]  # less the notes to whoever edits the file
    notebook = nbformat.v4.new_notebook()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(jupytext.reads(prose, fmt="py:percent").cells):
        header = dict(cell.metadata)
        # jupytext notes blank lines there, too, and what it could not read
        unknown = {key for key in header if key not in HEADERS and not key.startswith("lines_to_")}
        if unknown:
            told = ", ".join(f"{k}: {header[k]}" if header[k] else k for k in sorted(unknown))
            begin = cell.source.partition("\n")[0]
            raise ValueError(f"the header of the cell that begins `{begin}` is unclear ({told})")
        metadata = nbgrader_metadata(header)
        cell.metadata = {"nbgrader": metadata} if metadata else {}
        cell.id = metadata["grade_id"] if metadata else f"cell-{number}"
        if "source" in header:
            cell.source = "\n\n\n".join(map(definition, header["source"].split()))
        notebook.cells.append(cell)
    found, notes = homework.faults(notebook.cells)
    if found:
        raise ValueError("; ".join(found))
    for note in notes:
        print(f"{PROSE}: {note}", file=sys.stderr)
    nbformat.validate(notebook)
    text: str = nbformat.writes(notebook)
    return text + "\n"


def main() -> None:
    """Writes the notebook, or says with exit status 1 that it is stale."""
    parser = argparse.ArgumentParser(prog="python -m solution.notebook", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--check", action="store_true", help="write nothing; fail if stale")
    check = parser.parse_args().check
    try:
        text = build()
    except ValueError as error:
        sys.exit(f"{PROSE}: {error}")
    if not check:
        NOTEBOOK.parent.mkdir(exist_ok=True)
        NOTEBOOK.write_text(text, encoding="utf-8")
    elif not NOTEBOOK.exists() or NOTEBOOK.read_text(encoding="utf-8") != text:
        sys.exit(f"{NOTEBOOK} is stale; rebuild it with `make notebook`")


if __name__ == "__main__":
    main()
