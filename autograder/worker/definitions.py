"""What the cells of a notebook say, before anything is run.

A cell that does not parse costs what it binds and no more.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from cells import WRITTEN_MODULE, plain_python
from statements import IMPORTS, Statement, statement_of

_VERSION = ".".join(map(str, sys.version_info[:2]))


@dataclass
class Notebook:
    """What the cells of a notebook say, before anything is run."""

    sources: list[str] = field(default_factory=list)  # of every cell, in plain Python
    statements: list[Statement] = field(default_factory=list)
    broken: list[dict[str, Any]] = field(default_factory=list)  # cells that are not run, or not all


def read(cells: list[str], progress: Callable[[int, int], bool]) -> Notebook:
    """Parse every cell; `progress(cell, -1)` is asked first and may refuse a cell."""
    notebook = Notebook()
    written: dict[str, set[str]] = {}  # what the modules define that cells write
    for number, source in enumerate(cells):
        notebook.sources.append("")
        if not progress(number, -1):
            message = "the grader could not read this cell"
            notebook.broken.append(_broken(number, source, message, 0))
            continue
        notebook.sources[-1] = plain_python(source)
        try:
            tree = ast.parse(notebook.sources[-1], f"<cell {number + 1}>")
            tree.body = [part for node in tree.body for part in _spelt_out(node)]
            tree.body = [made for node in tree.body for made in _of_notebook(node, written)]
            statements = list(_statements(number, tree))
        except SyntaxError as error:
            message = f"{error.msg} (line {error.lineno})"
            notebook.broken.append(_broken(number, source, message, error.lineno or 0))
        except (ValueError, RecursionError, MemoryError) as error:
            notebook.broken.append(_broken(number, source, str(error) or "too complex", 0))
        else:
            ended = next((i for i, s in enumerate(statements) if _raises(s)), len(statements))
            notebook.statements += statements[:ended]
            module = WRITTEN_MODULE.match(source)
            if module:
                defined = {name for s in statements[:ended] for name in s.binds}
                path = ".".join(re.findall(r"[\w-]+", module[1]))
                written[path] = written.get(path, set()) | defined
            names = {name for s in statements[ended:] for name in s.binds}
            if names:
                line = statements[ended].node.lineno
                message = f"ends with the `raise` in line {line}, before that"
                notebook.broken.append(_left_out(number, line, message, names))
    return notebook


def _spelt_out(node: ast.stmt) -> list[ast.stmt]:
    """A statement, or those of the text that it hands to `exec`: `exec("ngf = 32")`."""
    match node:
        case ast.Expr(ast.Call(ast.Name("exec"), [ast.Constant(str(text))], [])):
            pass
        case _:
            return [node]
    try:
        made = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return [node]
    for statement in made:
        for part in ast.walk(statement):
            if hasattr(part, "lineno"):
                ast.copy_location(part, node)
    return made


_NAMESPACE = "__import__('types').SimpleNamespace"


def _of_notebook(node: ast.stmt, written: dict[str, set[str]]) -> Iterator[ast.stmt]:
    """An import of modules that cells write, from the names that they define here."""
    if not isinstance(node, IMPORTS):
        yield node
        return
    made, left = list[str](), list[ast.alias]()
    within = "" if isinstance(node, ast.Import) else node.module or ""
    for alias in node.names:
        own, module = _held(within, written), _held(f"{within}.{alias.name}".strip("."), written)
        if within and own is not None:
            made += [f"{alias.asname} = {alias.name}"] if alias.asname else []
        elif module is not None:
            held, way = f"{_NAMESPACE}({', '.join(f'{n}={n}' for n in module)})", [alias.name]
            if alias.asname is None:
                way = alias.name.split(".")
                for step in reversed(way[1:]):
                    held = f"{_NAMESPACE}({step}={held})"
            made.append(f"{alias.asname or way[0]} = {held}")
        else:
            left.append(alias)
    if left:
        node.names = left
        yield node
    for statement in ast.parse("\n".join(made)).body:
        for part in ast.walk(statement):
            ast.copy_location(part, node)
        yield statement


def _held(name: str, written: dict[str, set[str]]) -> list[str] | None:
    """What a module defines that goes by the end of its path; None where no cell writes it."""
    found = (defined for path, defined in written.items() if f".{path}".endswith(f".{name}"))
    names = next(found, None)
    return None if names is None else sorted(names)


def _raises(statement: Statement) -> bool:
    """Whether it ends its cell, whatever holds, as what stands in for work to be done."""
    return isinstance(statement.node, ast.Raise)


def _broken(cell: int, source: str, message: str, line: int) -> dict[str, Any]:
    names = re.findall(
        r"^[^\S\n]*(?:class|def)\s+(\w+)|^(\w+)[^\S\n]*(?::[^=\n]*)?=", source, re.MULTILINE
    )
    found = {a or b for a, b in names}
    for listed in re.findall(
        r"^[^\S\n]*(?:from\s+\S+\s+)?import\s+([^#\n]+)", source, re.MULTILINE
    ):
        ways = [part.split() for part in listed.replace("(", " ").replace(")", " ").split(",")]
        found |= {way[-1].partition(".")[0] for way in ways if way}
    return _left_out(cell, line, f"does not parse in Python {_VERSION}: {message}", found)


def _left_out(cell: int, line: int, message: str, names: set[str]) -> dict[str, Any]:
    return {
        "cell": cell + 1,
        "line": line,
        "message": message[:300],
        "names": sorted(names)[:100],
    }


def _statements(cell: int, tree: ast.Module) -> Iterator[Statement]:
    for index, node in enumerate(tree.body):
        yield statement_of(cell, index, node)
