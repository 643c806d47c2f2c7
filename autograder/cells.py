"""What the code of a notebook's cells says, as far as it can be read: hints, never verdicts."""

from __future__ import annotations

import ast
import re
import warnings

LONGEST = 200_000  # characters of a cell whose syntax is looked at; one with more holds data
_DEFINED = re.compile(r"^[^\S\n]*(?:def|class)\s+(\w+)", re.MULTILINE)


def _nodes(cell: str) -> list[ast.AST] | None:
    """The syntax of a cell, or None of one with magics or without measure."""
    if len(cell) > LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(ast.walk(ast.parse(cell)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def calls_cuda(cell: str) -> bool:
    """Whether the code of a cell, strings and remarks apart, calls a method `cuda`."""
    if "cuda" not in cell:
        return False
    nodes = _nodes(cell)
    if nodes is None:
        return ".cuda(" in cell
    return any(isinstance(node, ast.Attribute) and node.attr == "cuda" for node in nodes)


def reads_device(name: str, cells: list[str]) -> bool:
    """Whether a training function reads its fifth argument before it is given another value.

    As far as its code can be read.
    """
    defined = [
        node
        for cell in cells
        if name in cell
        for node in _nodes(cell) or ()
        if isinstance(node, ast.FunctionDef) and node.name == name and len(node.args.args) == 5
    ]
    return not defined or any(_reads_argument(node, node.args.args[4].arg) for node in defined)


def _reads_argument(function: ast.FunctionDef, argument: str) -> bool:
    """Whether an argument is read, in its first assignment or above it."""
    used = [n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == argument]
    assigned = [
        node.end_lineno or node.lineno
        for node in ast.walk(function)
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and any(n in used and isinstance(n.ctx, ast.Store) for n in ast.walk(node))
    ]
    last = min(assigned, default=function.end_lineno or function.lineno)
    return any(isinstance(n.ctx, ast.Load) and n.lineno <= last for n in used)


def cells_behind(name: str, cells: list[str]) -> list[str]:
    """The cells that define a function, or what is named in such a cell, and so on."""
    defining: dict[str, list[int]] = {}
    for index, cell in enumerate(cells):
        for defined in _DEFINED.findall(cell):
            defining.setdefault(defined, []).append(index)
    found: dict[int, None] = {}
    coming = [name]
    while coming:
        for index in defining.pop(coming.pop(), ()):
            if index not in found:
                found[index] = None
                coming += sorted({*re.findall(r"\w+", cells[index])} & defining.keys())
    return [cells[index] for index in found]


def own_and_shared(
    name: str, other: str, cells: list[str]
) -> tuple[list[ast.stmt], list[ast.stmt]]:
    """The definitions that a function runs and another does not, and those that both run.

    They are found by the names that are read, from definition to definition.
    """
    defined: dict[str, ast.stmt] = {}
    for cell in cells:
        for node in _nodes(cell) or ():
            if isinstance(node, ast.Module):
                found = (n for n in node.body if isinstance(n, ast.FunctionDef | ast.ClassDef))
                defined.update({n.name: n for n in found})
    mine, theirs = _reached(name, defined), _reached(other, defined)
    return [defined[n] for n in mine - theirs], [defined[n] for n in mine & theirs]


def _reached(name: str, defined: dict[str, ast.stmt]) -> set[str]:
    """The definitions that one reads, directly or not, itself among them."""
    found, coming = set[str](), [name]
    while coming:
        now = coming.pop()
        if now in defined and now not in found:
            found.add(now)
            coming += [n.id for n in ast.walk(defined[now]) if isinstance(n, ast.Name)]
    return found


def says(statements: list[ast.stmt]) -> set[str]:
    """The names and attributes in some code, and `for` where it has a loop."""
    found = set[str]()
    for node in (n for statement in statements for n in ast.walk(statement)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.For | ast.While | ast.comprehension):
            found.add("for")
    return found
