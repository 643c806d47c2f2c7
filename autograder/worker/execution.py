"""Running the definitions of a notebook.

A statement that raises costs what it binds and no more.
"""

from __future__ import annotations
import __future__

import ast
import linecache
import opcode
import sys
import traceback
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from absent import (
    Absent,
    AbsentData,
    define_torchvision_operators,
    imitate_mnist,
    is_imitated,
    is_want_of_data,
)
from statements import ASSIGNMENTS, IMPORTS, Statement

_RAISE = opcode.opmap["RAISE_VARARGS"]


@dataclass
class Outcome:
    """The namespace after the definitions ran, and what went wrong on the way."""

    namespace: dict[str, Any]
    errors: dict[str, dict[str, Any]] = field(default_factory=dict)  # by the name not defined


def execute(
    statements: list[Statement], sources: list[str], progress: Callable[[int, int], bool]
) -> Outcome:
    """Run the statements in a fresh `__main__`; `progress` is asked first and may refuse one."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    namespace = module.__dict__
    namespace.update(display=_display, get_ipython=lambda: Absent("ipython"))
    for number, source in enumerate(sources):
        lines = source.splitlines(keepends=True)
        linecache.cache[f"<cell {number + 1}>"] = (len(source), None, lines, f"<cell {number + 1}>")
    outcome = Outcome(namespace)
    for statement in statements:
        if not progress(statement.cell, statement.index):
            error: dict[str, Any] | None
            error = {"type": "Stopped", "message": "it did not end, or ended the process"}
        else:
            error = _run(statement, namespace)
        for name in statement.binds:
            if error is None:
                outcome.errors.pop(name, None)
            else:
                outcome.errors[name] = {**error, "cell": statement.cell + 1}
    return outcome


def _run(statement: Statement, namespace: dict[str, Any]) -> dict[str, Any] | None:
    if isinstance(statement.node, ASSIGNMENTS) and _handles_absent_data(statement, namespace):
        _leave_absent(statement, namespace)
        return None
    imitate_mnist()
    try:
        try:
            _execute(statement, namespace, _future(namespace))
        except NameError as error:
            if not _is_annotation(error.name, statement.node):
                raise
            lazy = __future__.annotations.compiler_flag
            _execute(statement, namespace, _future(namespace) | lazy)
    except BaseException as error:  # SystemExit and KeyboardInterrupt end nothing here
        if isinstance(statement.node, ASSIGNMENTS) and (
            is_want_of_data(error) or _handles_absent_data(statement, namespace, statement.reads)
        ):
            _leave_absent(statement, namespace)
        if not isinstance(statement.node, IMPORTS):
            return describe(error)
        if "torchvision::nms" in str(error):
            define_torchvision_operators()
            return _run(statement, namespace)
        if isinstance(error, ImportError):
            _import_what_is_there(statement.node, namespace)
            for name in statement.binds:
                namespace.setdefault(name, Absent(name))
        return describe(error)
    for name in statement.binds if isinstance(statement.node, IMPORTS) else ():
        if getattr(namespace.get(name), "__module__", None) == "IPython.core.display_functions":
            namespace[name] = _display  # IPython's own returns nothing outside of Jupyter
    return None


def _display(*_: Any, **__: Any) -> Absent:
    """Shows nothing; what it returns can be updated."""
    return Absent("display")


def _execute(statement: Statement, namespace: dict[str, Any], flags: int) -> None:
    module = ast.Module(body=[statement.node], type_ignores=[])
    code = compile(module, f"<cell {statement.cell + 1}>", "exec", flags, dont_inherit=True)
    exec(code, namespace)


def _is_annotation(name: Any, node: ast.AST) -> bool:
    """Whether a name stands in an annotation: a function is none the worse if it is missing."""
    found = (getattr(part, at, None) for part in ast.walk(node) for at in ("annotation", "returns"))
    used = (part for value in found if isinstance(value, ast.expr) for part in ast.walk(value))
    return any(isinstance(part, ast.Name) and part.id == name for part in used)


def _import_what_is_there(node: ast.stmt, namespace: dict[str, Any]) -> None:
    """Of `from module import a, b` what there is of it: a newer version may have the rest."""
    if isinstance(node, ast.ImportFrom) and not node.level and node.module in sys.modules:
        for alias in node.names:
            if hasattr(sys.modules[node.module], alias.name):
                value = getattr(sys.modules[node.module], alias.name)
                namespace.setdefault(alias.asname or alias.name, value)


def _handles_absent_data(
    statement: Statement, namespace: dict[str, Any], names: Iterable[str] = ()
) -> bool:
    """Whether one of these names, or what a statement hands to its calls, is data not here.

    Among what it reads, if it raised, a dataset of too few images counts, too.
    """
    found = [namespace.get(name) for name in (*names, *statement.arguments)]
    return any(isinstance(v, AbsentData) or (names and is_imitated(v)) for v in found)


def _leave_absent(statement: Statement, namespace: dict[str, Any]) -> None:
    for name in statement.binds:
        namespace.setdefault(name, AbsentData(f"what {name} should hold"))


def _future(namespace: dict[str, Any]) -> int:
    """The compiler's flags after the notebook's own `from __future__ import ...` so far."""
    flags = 0
    for value in list(namespace.values()):
        if isinstance(value, __future__._Feature):
            flags |= value.compiler_flag
    return flags


def describe(error: BaseException) -> dict[str, Any]:
    """An exception of student code, in the words of the notebook: type, text, cell and line."""
    try:
        text = str(error)
    except BaseException:
        text = ""
    way = traceback.extract_tb(error.__traceback__)
    frames = [f for f in way if f.filename.startswith("<cell ")]
    found = {"type": type(error).__name__[:80], "message": " ".join(text.split())[:400]}
    name = getattr(error, "name", None)
    if isinstance(error, NameError) and isinstance(name, str):
        found["name"] = name[:80]
    if frames:
        found["where"] = f"cell {frames[-1].filename[6:-1]}, line {frames[-1].lineno}"
        found["by"] = "itself" if frames[-1] is way[-1] and _raises(error) else "what it calls"
    return found


def _raises(error: BaseException) -> bool:
    """Whether a statement of the code that was reached last raised the error, and no call did."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    code = b"" if last is None else last.tb_frame.f_code.co_code
    at = -1 if last is None else last.tb_lasti
    return code[at : at + 1] == bytes([_RAISE])
