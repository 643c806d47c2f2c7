"""From the code cells of a notebook to the definitions that the promised names rest on.

A notebook is run without its training, plots and downloads: only statements that bind or change
what a promised name needs, directly or through others, are executed, in the notebook's order. A
statement that raises, or a cell that does not parse, costs what it binds and no more.
"""

from __future__ import annotations
import __future__

import ast
import copy
import linecache
import re
import symtable
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import newer
from absent import (
    Absent,
    AbsentData,
    define_torchvision_operators,
    imitate_mnist,
    is_imitated,
    is_want_of_data,
)

_VERSION = ".".join(map(str, sys.version_info[:2]))
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_ARGUMENTS = "*"
_IMPORTS = (ast.Import, ast.ImportFrom)
_BINDERS = (*_SCOPES, *_IMPORTS, ast.Assign, ast.AnnAssign, ast.AugAssign)
_ASSIGNMENTS = (ast.Assign, ast.AnnAssign)
_BLOCKS = (ast.If, ast.Try, ast.With, ast.Match)

_MAGIC = re.compile(r"^(\s*)(?:[%!]|\?{1,2}\S|\S.*?\?{1,2}\s*$)")
_TIMED = re.compile(r"^(\s*)%time\s+(?=\S)")
_MAGIC_VALUE = re.compile(r"^(\s*[\w, .\[\]]+=\s*)([%!].*)$")
# what a cell writes for another to import counts as if it were the notebook's own
_WRITTEN_MODULE = re.compile(r"\s*%%(?:write)?file\s+(?:-a\s+)?['\"]?([^\n'\"]+)\.py['\"]?\s*\n")
_KEPT_CELL_MAGICS = ("%%time", "%%timeit", "%%capture", "%%prun", "%%python3", "%%python")


@dataclass
class Statement:
    """One top-level statement of a notebook, with the names that it binds and reads."""

    cell: int
    index: int
    node: ast.stmt
    binds: set[str]
    reads: set[str]
    calls: set[str]  # what it or its decorators call by name
    changes: set[str]  # names whose objects it changes: `VAE.loss = ...`, `layers.append(...)`
    arguments: set[str]  # names that it, or a decorator of it, hands to what it calls

    @property
    def runs(self) -> bool:
        """Whether it is of a kind that defines something (no bare expression)."""
        return isinstance(self.node, (*_BINDERS, *_BLOCKS, *_LOOPS))


@dataclass
class Notebook:
    """What the cells of a notebook say, before anything is run."""

    sources: list[str] = field(default_factory=list)  # of every cell, in plain Python
    statements: list[Statement] = field(default_factory=list)
    broken: list[dict[str, Any]] = field(default_factory=list)  # cells that are not run, or not all


MAGICS = 500  # of a cell; a cell with more does not parse


def plain_python(source: str) -> str:
    """The source of a cell without the magics, prompts, shell lines and help marks of IPython."""
    source = _without_prompts(source)
    first = source.lstrip().split(None, 1)[0] if source.strip() else ""
    if first.startswith("%%"):
        if first not in _KEPT_CELL_MAGICS and not _WRITTEN_MODULE.match(source):
            return ""
        source = source.replace(first, "#", 1)
    lines = source.split("\n")
    for _ in lines[:MAGICS]:
        try:
            ast.parse("\n".join(lines))
            break
        except SyntaxError as error:
            if not _blank_magic(lines, error.lineno or 0):
                break
        except (ValueError, RecursionError, MemoryError):
            break
    plain = "\n".join(lines)
    return plain if _parses(plain) or not _parses(made := newer.older(plain)) else made


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


_BLANK_LINES = re.compile(r"\A([^\S\n]*(\n|\Z))+")  # at the start of a cell
# as IPython has it: of the first lines, whether there are prompts; of every line, what they are
_PROMPTS = (
    (re.compile(r">>>( |$)"), re.compile(r"^(>>>|\.\.\.)( |$)", re.MULTILINE)),
    (re.compile(r"In \[\d+\]: ?"), re.compile(r"^(In \[\d+\]| *\.{3,}): ?", re.MULTILINE)),
)


def _without_prompts(source: str) -> str:
    """The source without what IPython takes off: an indent of the whole cell, and prompts.

    What no editor shows goes as well: a byte order mark, null bytes, halves of characters.
    """
    source = source.removeprefix("\ufeff").replace("\0", "")
    source = source.encode(errors="replace").decode()
    written = _BLANK_LINES.sub("", source)
    indent = written[: len(written) - len(written.lstrip(" \t"))]
    if indent:
        source = re.sub(f"^{indent}", "", source, flags=re.MULTILINE)
    begin = _BLANK_LINES.sub("", source).split("\n", 2)[:2]
    for first, every in _PROMPTS:
        if any(map(first.match, begin)):
            source = every.sub("", source)
    return source


def _blank_magic(lines: list[str], number: int) -> bool:
    """Replace the magic at a line that does not parse, with its continuations, if it is one."""
    if not 1 <= number <= len(lines):
        return False
    first = number - 1
    plain = _without_magic(lines[first])
    if plain is None:
        return False
    while lines[first].endswith("\\") and first + 1 < len(lines):
        lines[first] = ""
        first += 1
    lines[first] = ""
    lines[number - 1] = plain
    return True


def _without_magic(line: str) -> str | None:
    """A line without IPython's syntax, or None where it has none."""
    timed = _TIMED.match(line)
    if timed:
        return timed[1] + line[timed.end() :]
    value = _MAGIC_VALUE.match(line)
    if value:
        return value[1] + "None"
    magic = _MAGIC.match(line)
    return magic[1] + "pass" if magic else None


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
            module = _WRITTEN_MODULE.match(source)
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


_NAMESPACE = "__import__('types').SimpleNamespace"


def _of_notebook(node: ast.stmt, written: dict[str, set[str]]) -> Iterator[ast.stmt]:
    """An import of modules that cells write, from the names that they define here."""
    if not isinstance(node, _IMPORTS):
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
        yield _statement(cell, index, node)


def _statement(cell: int, index: int, node: ast.stmt) -> Statement:
    binds = set(_walrus(node) if isinstance(node, ast.Expr) else _bound(node))
    return Statement(
        cell,
        index,
        node,
        binds,
        _read_names(node),
        _called(node),
        _changed(node),
        _arguments(node),
    )


def _arguments(node: ast.stmt) -> set[str]:
    calls = [*getattr(node, "decorator_list", [getattr(node, "value", None)])]
    given: list[ast.expr | None] = []
    while calls:  # `register(A, B)(f)` hands over all three
        call = calls.pop()
        if isinstance(call, ast.Call):
            given += [*call.args, *(k.value for k in call.keywords)]
            calls = [*calls, call.func]
    parts = [*given, *(p for g in given if isinstance(g, ast.List | ast.Tuple) for p in g.elts)]
    return {part.id for part in parts if isinstance(part, ast.Name)}


def _walrus(node: ast.AST) -> Iterator[str]:
    """Names that an expression binds: `print(n := 3)`."""
    for part in ast.walk(node):
        if isinstance(part, ast.NamedExpr) and isinstance(part.target, ast.Name):
            yield part.target.id


def _bound(node: ast.AST) -> Iterator[str]:
    """Names that a statement binds in its own scope."""
    if isinstance(node, _SCOPES):
        yield node.name
        return
    if isinstance(node, ast.Lambda):
        return
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
        yield node.id
    if isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
        yield node.name
    if isinstance(node, ast.alias):
        yield node.asname or node.name.split(".")[0]
    if isinstance(node, ast.ExceptHandler) and node.name:
        yield node.name
    for child in ast.iter_child_nodes(node):
        yield from _bound(child)


def _read_names(node: ast.stmt) -> set[str]:
    """Names of the notebook that a statement reads, now or when what it defines is called."""
    try:
        source = ast.unparse(ast.Module(body=[node], type_ignores=[]))
        table = symtable.symtable(source, "<statement>", "exec")
    except (SyntaxError, ValueError, RecursionError):
        return {
            part.id
            for part in ast.walk(node)
            if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Store)
        } | _augmented(node)
    return set(_free(table)) | _augmented(node)


def _free(table: symtable.SymbolTable) -> Iterator[str]:
    """Names that a scope and the scopes within it take from the notebook."""
    for symbol in table.get_symbols():
        own = table.get_type() == "module" or symbol.is_global()
        if symbol.is_referenced() and (own or table.get_type() == "class"):
            yield symbol.get_name()
    for inner in table.get_children():
        yield from _free(inner)


def _augmented(node: ast.AST) -> set[str]:
    """The name that `+=` and its kind read as well as bind."""
    augments = isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name)
    return {node.target.id} if augments else set()  # type: ignore[attr-defined]


def _called(node: ast.AST) -> set[str]:
    called = {
        part.func.id
        for part in ast.walk(node)
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Name)
    }
    return called | {_root(d) for d in getattr(node, "decorator_list", ())} - {""}


def _changed(node: ast.stmt) -> set[str]:
    """Names whose objects a statement, or one within it, changes without binding them."""
    if isinstance(node, (*_BLOCKS, *_LOOPS)):
        return {name for part in _parts(node) for name in _changed_at_once(part)}
    return _changed_at_once(node)


def _changed_at_once(node: ast.stmt) -> set[str]:
    if isinstance(node, _SCOPES):  # `@registry.register` puts what it decorates into a registry
        return {_root(d) for d in node.decorator_list if _attribute(d)} - {""}
    if isinstance(node, ast.Assign):
        targets: list[ast.expr] = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = node.value.func
        targets = [called.func if isinstance(called, ast.Call) else called]
        if _sets(node):
            return {_root(argument) for argument in node.value.args[:1]} - {""}
    else:
        return set()
    parts = [part for target in targets for part in _unpacked(target)]
    return {_root(t) for t in parts if isinstance(t, ast.Attribute | ast.Subscript)} - {""}


def _unpacked(target: ast.expr) -> Iterator[ast.expr]:
    """The targets of an assignment: `VAE.forward, (VAE.loss, *rest) = ...` has three."""
    if isinstance(target, ast.Tuple | ast.List):
        for part in target.elts:
            yield from _unpacked(part)
    else:
        yield target.value if isinstance(target, ast.Starred) else target


def _attribute(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Attribute)


def _parts(node: ast.AST) -> Iterator[ast.stmt]:
    """The statements within a block or loop, however deep, but not those within a scope."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        if not isinstance(child, _SCOPES):
            yield from _parts(child)


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def needed(notebook: Notebook, promised: set[str], trainers: set[str]) -> list[Statement]:
    """The statements that the promised names rest on, in the notebook's order.

    Training is left out: it takes minutes and defines nothing that is promised.
    """
    heavy = _heavy(notebook.statements, trainers)
    imported = {
        name for s in notebook.statements if isinstance(s.node, _IMPORTS) for name in s.binds
    }
    light = (_without_training(s, heavy) for s in notebook.statements)
    candidates = [s for s in light if s is not None and (s.runs or isinstance(s.node, ast.Expr))]
    registers = _registers(candidates)
    own = {name for s in candidates if isinstance(s.node, _SCOPES) for name in s.binds}
    names, chosen, before = set(promised), set[int](), -1
    while before != len(chosen):
        before = len(chosen)
        for s in reversed(candidates):  # what a statement rests on stands above it, as a rule
            if id(s) not in chosen and _serves(s, names, imported, own, registers):
                chosen.add(id(s))
                names |= s.reads | s.binds
    return [s for s in candidates if id(s) in chosen]


def _without_training(statement: Statement, heavy: set[str]) -> Statement | None:
    """A statement without the parts of it that train; None where nothing is left."""
    node = statement.node
    if isinstance(node, _SCOPES):
        return statement
    if not isinstance(node, _BLOCKS):
        if not _is_left_out(node, heavy):
            return statement
        left = _last_turn(node, heavy)
        return None if left is None else _statement(statement.cell, statement.index, left)
    if not any(_is_left_out(part, heavy) for part in _parts(node)):
        return statement
    try:
        pruned: ast.stmt = _Pruner(heavy).visit(copy.deepcopy(node))
    except RecursionError:  # no work of a person's
        return None
    return _statement(statement.cell, statement.index, pruned)


class _Pruner(ast.NodeTransformer):
    """Puts `pass` where a block trains, or loops for nothing."""

    def __init__(self, heavy: set[str]) -> None:
        self.heavy = heavy

    def visit(self, node: ast.AST) -> Any:
        """Only statements within blocks are of interest."""
        if isinstance(node, (*_BLOCKS, ast.ExceptHandler, ast.match_case)):
            return self.generic_visit(node)
        if isinstance(node, ast.stmt) and _is_left_out(node, self.heavy):  # a scope is not
            return _last_turn(node, self.heavy) or ast.copy_location(ast.Pass(), node)
        return node


def _last_turn(loop: ast.stmt, heavy: set[str]) -> ast.Assign | None:
    """What a loop over values that are written out leaves in its variable, without a turn of it."""
    if not isinstance(loop, ast.For) or not isinstance(loop.iter, ast.Tuple | ast.List):
        return None
    values = loop.iter.elts
    if not values or isinstance(values[-1], ast.Starred):
        return None
    if any(isinstance(part, ast.Break) for part in ast.walk(loop)):
        return None
    turn = ast.copy_location(ast.Assign([loop.target], values[-1]), loop)
    return None if _is_left_out(turn, heavy) else turn


def _is_left_out(node: ast.stmt, heavy: set[str]) -> bool:
    """Whether a statement trains, calls what trains, or is a loop that defines nothing."""
    if isinstance(node, (*_SCOPES, *_BLOCKS)):
        return False
    if isinstance(node, _LOOPS) and (_trains_at_once(node, set()) or not _defines(node)):
        return True
    return _trains_at_once(node, heavy, backward=False)


def _defines(loop: ast.stmt) -> bool:
    """Whether a loop binds anything but its own variables, or changes an object."""
    own = set(_bound(loop.target)) if isinstance(loop, ast.For | ast.AsyncFor) else set()
    return bool(_changed(loop) or set(_bound(loop)) - own)


def _trains_at_once(node: ast.AST, heavy: set[str], backward: bool = True) -> bool:
    """Whether code calls what trains, or `backward`, and does not only define what will."""
    called = [part.func for part in _at_once(node) if isinstance(part, ast.Call)]
    return any(isinstance(f, ast.Name) and f.id in heavy for f in called) or (
        backward and any(isinstance(f, ast.Attribute) and f.attr == "backward" for f in called)
    )


def _at_once(node: ast.AST) -> Iterator[ast.AST]:
    """What is within a statement or a function, but not within functions that it defines."""
    for child in ast.iter_child_nodes(node):
        yield child
        if isinstance(child, ast.ClassDef):
            yield from ast.walk(child)
        elif not isinstance(child, (*_FUNCTIONS, ast.Lambda)):
            yield from _at_once(child)


def _trainers_within(function: ast.AST, heavy: set[str]) -> set[str]:
    """The functions that a function defines, to call which is to train."""
    inner = (f for f in _at_once(function) if isinstance(f, _FUNCTIONS))
    return {f.name for f in inner if _trains(f, heavy) or _trainers_within(f, heavy)}


def _trains(function: ast.AST, heavy: set[str]) -> bool:
    """Whether to call a function is to train; one that returns a function that will does not."""
    if _trains_at_once(function, heavy):
        return True
    parts, inner = list(_at_once(function)), _trainers_within(function, heavy)
    returned = {
        id(part)
        for statement in parts
        if isinstance(statement, ast.Return)
        for part in _at_once(statement)
    }
    called = {id(part.func) for part in parts if isinstance(part, ast.Call)}
    return any(
        isinstance(part, ast.Name)
        and part.id in inner
        and (id(part) not in returned or id(part) in called)
        for part in parts
    )


def _registers(statements: list[Statement]) -> dict[str, set[str]]:
    """Functions that change objects of the notebook, and which: `def add(f): TABLE[...] = f`.

    `_ARGUMENTS` stands for those that are handed in, as in `def add_to(cls): setattr(cls, ...)`.
    """
    found: dict[str, set[str]] = {}
    for s in statements:
        if isinstance(s.node, _FUNCTIONS):
            parts = list(_parts_of_scope(s.node))
            changed = {name for part in parts for name in _changed(part)}
            stored = {n for part in parts if isinstance(part, ast.Global) for n in part.names}
            handed = {a.arg for a in [*s.node.args.posonlyargs, *s.node.args.args]}
            own = {_ARGUMENTS} if changed & handed else set[str]()
            found[s.node.name] = (changed & s.reads) | stored | own
    return found


def _parts_of_scope(node: ast.AST) -> Iterator[ast.stmt]:
    return (part for part in ast.walk(node) if part is not node and isinstance(part, ast.stmt))


def _serves(
    statement: Statement,
    names: set[str],
    imported: set[str],
    own: set[str],
    registers: dict[str, set[str]],
) -> bool:
    """Whether a statement binds or changes what is needed, or tells a library of it.

    own: the classes and functions of the notebook. What is handed such a one may note it, as
    `register_kl(Posterior, Prior)` does.
    """
    node = statement.node
    if "*" in statement.binds or not statement.binds.isdisjoint(names):
        return True
    if getattr(node, "module", None) == "__future__":
        return True
    for called in statement.calls:
        changed = registers.get(called, set())
        if changed & names or (_ARGUMENTS in changed and statement.arguments & names):
            return True
    if isinstance(node, (ast.Expr, *_SCOPES)) and (
        (statement.calls | statement.changes) & imported and statement.arguments & names & own
    ):
        return True
    changed = statement.changes & names
    if not (isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) or _sets(node)):
        changed -= imported  # a call such as `torch.manual_seed(0)` changes nothing of the notebook
    return bool(changed)


def _sets(node: ast.stmt) -> bool:
    """Whether it is a call of `setattr`."""
    call = node.value if isinstance(node, ast.Expr) else None
    function = call.func if isinstance(call, ast.Call) else None
    return isinstance(function, ast.Name) and function.id == "setattr"


def _heavy(statements: Iterable[Statement], trainers: set[str]) -> set[str]:
    """The training functions, others that do, and every function or class that calls one."""
    heavy, makers = set(trainers), set[str]()  # makers return functions that train
    while True:
        before = len(heavy), len(makers)
        for s in statements:
            if isinstance(s.node, ast.ClassDef):
                heavy |= s.binds if s.calls & heavy else set()
            elif isinstance(s.node, _FUNCTIONS) and _trains(s.node, heavy):
                heavy |= s.binds
            elif isinstance(s.node, _FUNCTIONS) and _trainers_within(s.node, heavy):
                makers |= s.binds
            elif isinstance(s.node, _ASSIGNMENTS) and _is_trainer(s.node.value, heavy | makers):
                heavy |= s.binds
        if before == (len(heavy), len(makers)):
            return heavy


def _is_trainer(value: ast.expr | None, names: set[str]) -> bool:
    """Whether a value may be a function that trains: one of these, made of one, or by one."""
    parts = ast.walk(value) if value is not None else ()
    return any(isinstance(part, ast.Name) and part.id in names for part in parts)


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
    if isinstance(statement.node, _ASSIGNMENTS) and _handles_absent_data(statement, namespace):
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
        if isinstance(statement.node, _ASSIGNMENTS) and (
            is_want_of_data(error) or _handles_absent_data(statement, namespace, statement.reads)
        ):
            _leave_absent(statement, namespace)
        if not isinstance(statement.node, _IMPORTS):
            return describe(error)
        if "torchvision::nms" in str(error):
            define_torchvision_operators()
            return _run(statement, namespace)
        if isinstance(error, ImportError):
            _import_what_is_there(statement.node, namespace)
            for name in statement.binds:
                namespace.setdefault(name, Absent(name))
        return describe(error)
    return None


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
        found["by"] = "itself" if frames[-1] is way[-1] else "what it calls"
    return found
