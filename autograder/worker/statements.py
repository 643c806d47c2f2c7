"""The top-level statements of a notebook: which names they bind, read, call and change."""

from __future__ import annotations

import ast
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
    augments = isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name)
    return {node.target.id} if augments else set()  # type: ignore[attr-defined]


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
        return {name for part in statements_within(node) for name in _changed_at_once(part)}
    return _changed_at_once(node)


def _changed_at_once(node: ast.stmt) -> set[str]:
    if isinstance(node, SCOPES):  # `@registry.register` puts what it decorates into a registry
        return {_root(d) for d in node.decorator_list if _attribute(d)} - {""}
    if isinstance(node, ast.Assign):
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


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""
