"""The top-level statements of a notebook: which names they bind, read, call and change."""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterator
from dataclasses import dataclass

LOOPS = (ast.For, ast.AsyncFor, ast.While)
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
IMPORTS = (ast.Import, ast.ImportFrom)
_BINDERS = (*SCOPES, *IMPORTS, ast.Assign, ast.AnnAssign, ast.AugAssign)
ASSIGNMENTS = (ast.Assign, ast.AnnAssign)
BLOCKS = (ast.If, ast.Try, ast.With, ast.Match)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_NAMESPACES = ("globals", "locals", "vars")
_FOLDERS = ("makedirs", "mkdir")
_FILES = ("write_text", "write_bytes")
# methods that change their object, or what a library's function is handed first
CHANGING = re.compile(
    r"(?:add|append|clear|copyto|del|discard|extend|fill|heap|insert|insort|load_state|merge|move_to"
    r"|place|pop|push|put|register|remove|reverse|rotate|set|shuffle|sort(?!ed)|subtract|update"
    r"|__(?:set|del|i)\w+__)\w*|\w*[^\W_]_"
)


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
    touches: set[str]  # names whose objects calls within it change: `last = rows.pop()`
    handed: dict[str, set[str]]  # names that calls within it are handed, by what is called
    lasts: str  # what it leaves that has no name: "names", "folders", "files" or nothing

    @property
    def runs(self) -> bool:
        """Whether it is of a kind that defines something (no bare expression)."""
        if isinstance(self.node, ast.Delete):
            return not any(isinstance(target, ast.Name) for target in self.node.targets)
        return isinstance(self.node, (*_BINDERS, *BLOCKS, *LOOPS))


def statement_of(cell: int, index: int, node: ast.stmt) -> Statement:
    """A statement with its names; index: its place in the cell."""
    binds = set(_walrus(node) if isinstance(node, ast.Expr) else names_bound(node))
    return Statement(
        cell,
        index,
        node,
        binds,
        _read_names(node),
        _called(node),
        names_changed(node),
        _arguments(node),
        names_touched(node),
        _handed(node),
        _lasts(node),
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


def names_bound(node: ast.AST) -> Iterator[str]:
    """Names that a statement binds in its own scope."""
    if isinstance(node, SCOPES):
        yield node.name
        return
    if isinstance(node, ast.Lambda):
        return
    if isinstance(node, _COMPREHENSIONS):
        yield from _walrus(node)
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
        yield from names_bound(child)


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
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        return {node.target.id}
    return set()


def _called(node: ast.AST) -> set[str]:
    called = {
        part.func.id
        for part in ast.walk(node)
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Name)
    }
    return called | {_root(d) for d in getattr(node, "decorator_list", ())} - {""}


def names_changed(node: ast.stmt) -> set[str]:
    """Names whose objects a statement, or one within it, changes without binding them."""
    if isinstance(node, (*BLOCKS, *LOOPS)):
        changed = {name for part in statements_within(node) for name in _changed_at_once(part)}
        return _with_sources(node, changed)
    return _changed_at_once(node)


def _changed_at_once(node: ast.stmt) -> set[str]:
    if isinstance(node, SCOPES):  # `@registry.register` puts what it decorates into a registry
        return {_root(d) for d in node.decorator_list if _attribute(d)} - {""}
    if isinstance(node, ast.Assign | ast.Delete):
        targets: list[ast.expr] = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = node.value.func
        targets = [called.func if isinstance(called, ast.Call) else called]
        if is_setattr(node):
            return {_root(argument) for argument in node.value.args[:1]} - {""}
    else:
        return set()
    parts = [part for target in targets for part in _unpacked(target)]
    return {_root(t) for t in parts if isinstance(t, ast.Attribute | ast.Subscript)} - {""}


def is_setattr(node: ast.stmt) -> bool:
    """Whether it is a call of `setattr`."""
    call = node.value if isinstance(node, ast.Expr) else None
    function = call.func if isinstance(call, ast.Call) else None
    return isinstance(function, ast.Name) and function.id == "setattr"


def names_stored(node: ast.stmt) -> set[str]:
    """Names whose attributes or items a statement, or one within it, assigns."""
    stored = (
        part
        for part in at_once(node)
        if isinstance(part, ast.Attribute | ast.Subscript) and isinstance(part.ctx, ast.Store)
    )
    return {_root(part) for part in stored} - {""}


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


def statements_within(node: ast.AST) -> Iterator[ast.stmt]:
    """The statements within a block or loop, however deep, but not those within a scope."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        if not isinstance(child, SCOPES):
            yield from statements_within(child)


def at_once(node: ast.AST) -> Iterator[ast.AST]:
    """What is within a statement or a function, but not within functions that it defines."""
    for child in ast.iter_child_nodes(node):
        yield child
        if isinstance(child, ast.ClassDef):
            yield from ast.walk(child)
        elif not isinstance(child, (*FUNCTIONS, ast.Lambda)):
            yield from at_once(child)


def _calls_at_once(node: ast.AST) -> list[ast.Call]:
    if isinstance(node, SCOPES):
        return []
    return [part for part in at_once(node) if isinstance(part, ast.Call)]


def names_touched(node: ast.stmt) -> set[str]:
    """Names whose objects the calls within a statement change: `print(table.pop('a'))`."""
    touched = set[str]()
    for call in _calls_at_once(node):
        function = call.func
        if isinstance(function, ast.Attribute) and CHANGING.fullmatch(function.attr):
            touched.add(_plain_root(function.value))
        elif isinstance(function, ast.Name) and function.id in ("setattr", "delattr", "next"):
            touched |= {_plain_root(argument) for argument in call.args[:1]}
    return _with_sources(node, touched) - {""}


def _handed(node: ast.stmt) -> dict[str, set[str]]:
    """What calls within a statement are handed, by the name of what is called.

    `name.`, with a dot, stands for what `name.append` and its kind are handed first.
    """
    handed: dict[str, set[str]] = {}
    for call in _calls_at_once(node):
        function, given = call.func, [*call.args, *(k.value for k in call.keywords)]
        if isinstance(function, ast.Name):
            called = function.id
        elif isinstance(function, ast.Attribute) and CHANGING.fullmatch(function.attr):
            called, given = f"{_plain_root(function)}.", given[:1]
        else:
            continue
        parts = [part for argument in given for part in _unpacked(argument)]
        roots = _with_sources(node, {_plain_root(part) for part in parts}) - {""}
        handed[called] = handed.get(called, set()) | roots
    return handed


def _with_sources(node: ast.AST, names: set[str]) -> set[str]:
    """Names, and for those that are variables of loops within a statement what they go through."""
    sources: dict[str, set[str]] = {}
    loops = [
        part for part in (node, *at_once(node)) if isinstance(part, ast.For | ast.comprehension)
    ]
    for loop in loops if names else ():
        for target, iterated in _pairs(loop.target, loop.iter):
            for name in names_bound(target):
                sources.setdefault(name, set()).update(iterated)
    found, coming = set[str](), [*names]
    while coming:
        name = coming.pop()
        if name not in found:
            found.add(name)
            coming += sources.get(name, ())
    return found


def _pairs(target: ast.expr, iterated: ast.expr) -> Iterator[tuple[ast.expr, set[str]]]:
    """The variables of a loop, each with the names that hold what it stands for."""
    called = iterated.func if isinstance(iterated, ast.Call) else None
    way, parts = getattr(called, "id", ""), getattr(target, "elts", [])
    given = iterated.args if isinstance(iterated, ast.Call) else []
    if way == "enumerate" and len(parts) == 2 and given:
        yield from _pairs(parts[1], given[0])
    elif way == "zip" and len(parts) == len(given):
        for part, argument in zip(parts, given, strict=True):
            yield from _pairs(part, argument)
    else:
        functions = {id(part.func) for part in ast.walk(iterated) if isinstance(part, ast.Call)}
        names = (p for p in ast.walk(iterated) if isinstance(p, ast.Name))
        yield target, {name.id for name in names if id(name) not in functions}


def _lasts(node: ast.stmt) -> str:
    """What a statement leaves that has no name: "names", "folders", "files" or nothing.

    A block or loop counts if it does nothing else but bind names, and print.
    """
    if isinstance(node, SCOPES):
        return ""
    if not isinstance(node, (*BLOCKS, *LOOPS)):
        return _leaves(node)
    inner = [part for part in statements_within(node) if not isinstance(part, (*BLOCKS, *LOOPS))]
    found = {_leaves(part) for part in inner}
    if "names" in found:
        return "names"
    files = {name for part in (node, *statements_within(node)) for name in _files(part)}
    done = (part for part in inner if isinstance(part, ast.Expr) and not _leaves(part))
    if any(not (_names(part) & (files | {"print"})) for part in done):
        return ""
    found |= {"files"} if files else set()
    return max(found, default="")


def _leaves(node: ast.stmt) -> str:
    """What a statement that is no block leaves; see `_lasts`."""
    targets = [*getattr(node, "targets", ()), getattr(node, "target", None)]
    ways = [ast.unparse(t) for t in targets if isinstance(t, ast.Attribute | ast.Subscript)]
    found = {_kept_by(way) for way in ways}
    for call in _calls_at_once(node):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        if name in _FOLDERS or name == "putenv":
            found.add("folders")
        elif name in _FILES or _opens_to_write(call):
            found.add("files")
        elif isinstance(call.func, ast.Name):
            found.add("names" if name == "exec" else "")
        elif CHANGING.fullmatch(name):
            found.add(_kept_by(ast.unparse(call.func)))
    return max(found, default="")


def _kept_by(way: str) -> str:
    """What is left by a change of an object that is spelt so: of a namespace or `os.environ`."""
    if re.match(rf"(?:{'|'.join(_NAMESPACES)})\(\)", way):
        return "names"
    return "folders" if re.search(r"(?:^|\.)environ\b", way) else ""


def _files(node: ast.stmt) -> Iterator[str]:
    """Names of the files that a `with` opens to write to them."""
    for item in node.items if isinstance(node, ast.With) else ():
        if isinstance(item.context_expr, ast.Call) and _opens_to_write(item.context_expr):
            yield from names_bound(item)


def _opens_to_write(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    given = [*call.args, *(k.value for k in call.keywords)]
    modes = [part.value for part in given if isinstance(part, ast.Constant)]
    return name == "open" and any(re.fullmatch(r"[wax][bt+]*", str(mode)) for mode in modes)


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        if isinstance(node, ast.Call) and _passes_on(node):
            node = node.args[0]
        else:
            node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _plain_root(node: ast.expr) -> str:
    """The name that a chain of attributes and items begins with; a call of it is something else."""
    while True:
        if isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
            node = node.value
        elif isinstance(node, ast.Call) and _passes_on(node):
            node = node.args[0]
        else:
            return node.id if isinstance(node, ast.Name) else ""


def _passes_on(call: ast.Call) -> bool:
    """Whether a call gives a part of its first argument: `vars(args)`."""
    return (
        isinstance(call.func, ast.Name) and call.func.id in ("vars", "getattr") and bool(call.args)
    )
