"""From the code cells of a notebook to the definitions that the promised names rest on.

A notebook is run without its training loops, plots and downloads: only statements that bind a
name which a promised name needs, directly or through others, are executed, in the notebook's
order. A statement that raises, or a cell that does not parse, costs what it binds and no more.
"""

from __future__ import annotations

import ast
import linecache
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)
_BINDERS = (*_SCOPES, *_IMPORTS, ast.Assign, ast.AnnAssign, ast.AugAssign)
_BLOCKS = (ast.If, ast.Try, ast.With)

_MAGIC = re.compile(r"^(\s*)([%!]|\?{1,2}\S|\S+\?{1,2}\s*$)")
_MAGIC_VALUE = re.compile(r"^(\s*[\w, .\[\]]+=\s*)([%!].*)$")
_KEPT_CELL_MAGICS = ("%%time", "%%timeit", "%%capture", "%%prun", "%%python3", "%%python")


@dataclass
class Statement:
    """One top-level statement of a notebook, with the names that it binds and reads."""

    cell: int
    index: int
    node: ast.stmt
    binds: set[str]
    reads: set[str]
    calls: set[str]
    changes: set[str]  # names whose objects it changes: `VAE.loss = ...`, `layers.append(...)`

    @property
    def runs(self) -> bool:
        """Whether it is of a kind that defines something (no loop, no bare expression)."""
        if isinstance(self.node, _BLOCKS):
            return not any(isinstance(part, _LOOPS) for part in ast.walk(self.node))
        return isinstance(self.node, _BINDERS)


@dataclass
class Notebook:
    """What the cells of a notebook say, before anything is run."""

    statements: list[Statement] = field(default_factory=list)
    broken: list[dict[str, Any]] = field(default_factory=list)  # cells that do not parse


def plain_python(source: str) -> str:
    """The source of a cell without the magics, shell lines and help marks of IPython."""
    first = source.lstrip().split(None, 1)[0] if source.strip() else ""
    if first.startswith("%%"):
        if first not in _KEPT_CELL_MAGICS:
            return ""
        source = source.replace(first, "#", 1)
    try:
        ast.parse(source)
        return source
    except (SyntaxError, ValueError):
        return "\n".join(_without_magic(line) for line in source.split("\n"))


def _without_magic(line: str) -> str:
    value = _MAGIC_VALUE.match(line)
    if value:
        return value[1] + "None"
    magic = _MAGIC.match(line)
    return magic[1] + "pass" if magic else line


def read(cells: list[str], progress: Callable[[int, int], bool]) -> Notebook:
    """Parse every cell; `progress(cell, -1)` is asked first and may refuse a cell."""
    notebook = Notebook()
    for number, source in enumerate(cells):
        if not progress(number, -1):
            message = "the grader could not read this cell"
            notebook.broken.append(_broken(number, source, message, 0))
            continue
        try:
            tree = ast.parse(plain_python(source), f"<cell {number + 1}>")
        except SyntaxError as error:
            message = f"{error.msg} (line {error.lineno})"
            notebook.broken.append(_broken(number, source, message, error.lineno or 0))
        except (ValueError, RecursionError, MemoryError) as error:
            notebook.broken.append(_broken(number, source, str(error) or "too complex", 0))
        else:
            notebook.statements += _statements(number, tree)
    return notebook


def _broken(cell: int, source: str, message: str, line: int) -> dict[str, Any]:
    names = re.findall(r"^\s*(?:class|def)\s+(\w+)|^(\w+)\s*(?::[^=\n]*)?=", source, re.MULTILINE)
    return {
        "cell": cell + 1,
        "line": line,
        "message": message[:300],
        "names": sorted({a or b for a, b in names})[:100],
    }


def _statements(cell: int, tree: ast.Module) -> Iterator[Statement]:
    for index, node in enumerate(tree.body):
        yield Statement(
            cell, index, node, set(_bound(node)), _read_names(node), _called(node), _changed(node)
        )


def _bound(node: ast.AST) -> Iterator[str]:
    """Names that a statement binds in its own scope."""
    if isinstance(node, _SCOPES):
        yield node.name
        return
    if isinstance(node, ast.Lambda):
        return
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
        yield node.id
    if isinstance(node, ast.alias):
        yield node.asname or node.name.split(".")[0]
    if isinstance(node, ast.ExceptHandler) and node.name:
        yield node.name
    for child in ast.iter_child_nodes(node):
        yield from _bound(child)


def _read_names(node: ast.AST) -> set[str]:
    return {
        part.id
        for part in ast.walk(node)
        if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Store)
    } | _augmented(node)


def _augmented(node: ast.AST) -> set[str]:
    """The name that `+=` and its kind read as well as bind."""
    augments = isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name)
    return {node.target.id} if augments else set()  # type: ignore[attr-defined]


def _called(node: ast.AST) -> set[str]:
    return {
        part.func.id
        for part in ast.walk(node)
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Name)
    }


def _changed(node: ast.stmt) -> set[str]:
    """Names whose objects a statement changes without binding them."""
    if isinstance(node, ast.Assign):
        targets: list[ast.expr] = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        targets = [node.value.func]
        if isinstance(node.value.func, ast.Name) and node.value.func.id == "setattr":
            return {_root(argument) for argument in node.value.args[:1]} - {""}
    else:
        return set()
    return {_root(t) for t in targets if isinstance(t, ast.Attribute | ast.Subscript)} - {""}


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def needed(notebook: Notebook, promised: set[str], trainers: set[str]) -> list[Statement]:
    """The statements that the promised names rest on, in the notebook's order.

    Statements that call a training function, or a helper that does, are left out: they take
    minutes and define nothing that is promised.
    """
    heavy = _heavy(notebook.statements, trainers)
    imported = {
        name for s in notebook.statements if isinstance(s.node, _IMPORTS) for name in s.binds
    }
    candidates = [
        s
        for s in notebook.statements
        if (s.runs or isinstance(s.node, ast.Expr))
        and (isinstance(s.node, _SCOPES) or not s.calls & heavy)
    ]
    names, chosen = set(promised), set[int]()
    while True:
        found = {id(s) for s in candidates if id(s) not in chosen and _serves(s, names, imported)}
        if not found:
            return [s for s in candidates if id(s) in chosen]
        chosen |= found
        for s in candidates:
            if id(s) in found:
                names |= s.reads | s.binds


def _serves(statement: Statement, names: set[str], imported: set[str]) -> bool:
    if statement.runs and (statement.binds & names or "*" in statement.binds):
        return True
    if isinstance(statement.node, ast.Expr):
        return bool(statement.changes & (names - imported))
    return bool(statement.changes & names)


def _heavy(statements: Iterable[Statement], trainers: set[str]) -> set[str]:
    """The training functions and every function or class that calls one."""
    scopes = [s for s in statements if isinstance(s.node, _SCOPES)]
    heavy = set(trainers)
    while True:
        more = {name for s in scopes if s.calls & heavy for name in s.binds} - heavy
        if not more:
            return heavy
        heavy |= more


class Absent(types.ModuleType):
    """Stands in for a package that this machine lacks, so that loggers and bars cost nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if args and (callable(args[0]) or hasattr(args[0], "__iter__")) else self

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        return None


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
    namespace.update(display=lambda *a, **k: None, get_ipython=lambda: Absent("ipython"))
    for number, source in enumerate(sources):
        lines = plain_python(source).splitlines(keepends=True)
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
    module = ast.Module(body=[statement.node], type_ignores=[])
    try:
        exec(compile(module, f"<cell {statement.cell + 1}>", "exec"), namespace)
    except BaseException as error:  # SystemExit and KeyboardInterrupt end nothing here
        if not isinstance(statement.node, _IMPORTS):
            return describe(error)
        if "torchvision::nms" in str(error):
            _define_torchvision_operators()
            return _run(statement, namespace)
        if not isinstance(error, ModuleNotFoundError):
            return describe(error)
        for name in statement.binds:
            namespace.setdefault(name, Absent(name))
    return None


def _define_torchvision_operators() -> None:
    """A CUDA build of torchvision beside a CPU build of torch lacks two operators.

    Nothing in the homework calls them. The reference guards itself in solution/data.py, which a
    worker never sees.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]


_KEPT: list[Any] = []


def describe(error: BaseException) -> dict[str, Any]:
    """An exception of student code, in the words of the notebook: type, text, cell and line."""
    try:
        text = str(error)
    except BaseException:
        text = ""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith("<cell ")
    ]
    found = {"type": type(error).__name__[:80], "message": " ".join(text.split())[:400]}
    name = getattr(error, "name", None)
    if isinstance(error, NameError) and isinstance(name, str):
        found["name"] = name[:80]
    if frames:
        found["where"] = f"cell {frames[-1].filename[6:-1]}, line {frames[-1].lineno}"
    return found
