"""The statements that the promised names of a notebook rest on.

A notebook is run without its training, plots and downloads: only statements that bind or change
what a promised name needs, directly or through others, are executed, in the notebook's order.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Iterator
from typing import Any

from definitions import Notebook
from statements import (
    ASSIGNMENTS,
    BLOCKS,
    FUNCTIONS,
    IMPORTS,
    LOOPS,
    SCOPES,
    Statement,
    is_setattr,
    names_bound,
    names_changed,
    statement_of,
    statements_within,
)

_ARGUMENTS = "*"


def needed(notebook: Notebook, promised: set[str], trainers: set[str]) -> list[Statement]:
    """The statements that the promised names rest on, in the notebook's order.

    Training is left out: it takes minutes and defines nothing that is promised.
    """
    heavy = _heavy(notebook.statements, trainers)
    imported = {
        name for s in notebook.statements if isinstance(s.node, IMPORTS) for name in s.binds
    }
    light = (_without_training(s, heavy) for s in notebook.statements)
    candidates = [s for s in light if s is not None and (s.runs or isinstance(s.node, ast.Expr))]
    registers = _registers(candidates)
    own = {name for s in candidates if isinstance(s.node, SCOPES) for name in s.binds}
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
    if isinstance(node, SCOPES):
        return statement
    if not isinstance(node, BLOCKS):
        if not _is_left_out(node, heavy):
            return statement
        left = _last_turn(node, heavy)
        return None if left is None else statement_of(statement.cell, statement.index, left)
    if not any(_is_left_out(part, heavy) for part in statements_within(node)):
        return statement
    try:
        pruned: ast.stmt = _Pruner(heavy).visit(copy.deepcopy(node))
    except RecursionError:  # no work of a person's
        return None
    return statement_of(statement.cell, statement.index, pruned)


class _Pruner(ast.NodeTransformer):
    """Puts `pass` where a block trains, or loops for nothing."""

    def __init__(self, heavy: set[str]) -> None:
        self.heavy = heavy

    def visit(self, node: ast.AST) -> Any:
        """Only statements within blocks are of interest."""
        if isinstance(node, (*BLOCKS, ast.ExceptHandler, ast.match_case)):
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
    if isinstance(node, (*SCOPES, *BLOCKS)):
        return False
    if isinstance(node, LOOPS) and (_trains_at_once(node, set()) or not _defines(node)):
        return True
    return _trains_at_once(node, heavy, backward=False)


def _defines(loop: ast.stmt) -> bool:
    """Whether a loop binds anything but its own variables, or changes an object."""
    own = set(names_bound(loop.target)) if isinstance(loop, ast.For | ast.AsyncFor) else set()
    return bool(names_changed(loop) or set(names_bound(loop)) - own)


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
        elif not isinstance(child, (*FUNCTIONS, ast.Lambda)):
            yield from _at_once(child)


def _trainers_within(function: ast.AST, heavy: set[str]) -> set[str]:
    """The functions that a function defines, to call which is to train."""
    inner = (f for f in _at_once(function) if isinstance(f, FUNCTIONS))
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
        if isinstance(s.node, FUNCTIONS):
            parts = list(_parts_of_scope(s.node))
            changed = {name for part in parts for name in names_changed(part)}
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
    if isinstance(node, (ast.Expr, *SCOPES)) and (
        (statement.calls | statement.changes) & imported and statement.arguments & names & own
    ):
        return True
    changed = statement.changes & names
    if not (isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) or is_setattr(node)):
        changed -= imported  # a call such as `torch.manual_seed(0)` changes nothing of the notebook
    return bool(changed)


def _heavy(statements: Iterable[Statement], trainers: set[str]) -> set[str]:
    """The training functions, others that do, and every function or class that calls one."""
    heavy, makers = set(trainers), set[str]()  # makers return functions that train
    while True:
        before = len(heavy), len(makers)
        for s in statements:
            if isinstance(s.node, ast.ClassDef):
                heavy |= s.binds if s.calls & heavy else set()
            elif isinstance(s.node, FUNCTIONS) and _trains(s.node, heavy):
                heavy |= s.binds
            elif isinstance(s.node, FUNCTIONS) and _trainers_within(s.node, heavy):
                makers |= s.binds
            elif isinstance(s.node, ASSIGNMENTS) and _is_trainer(s.node.value, heavy | makers):
                heavy |= s.binds
        if before == (len(heavy), len(makers)):
            return heavy


def _is_trainer(value: ast.expr | None, names: set[str]) -> bool:
    """Whether a value may be a function that trains: one of these, made of one, or by one."""
    parts = ast.walk(value) if value is not None else ()
    return any(isinstance(part, ast.Name) and part.id in names for part in parts)
