"""The statements that the promised names of a notebook rest on.

A notebook is run without its training, plots and downloads: only statements that bind or change
what a promised name needs, directly or through others, are executed, in the notebook's order.
"""

from __future__ import annotations

import ast
import builtins
import copy
import re
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
    at_once,
    is_setattr,
    names_bound,
    names_changed,
    names_touched,
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
    registers = _registers(notebook.statements)
    light = [_without_training(s, heavy, registers) for s in notebook.statements]
    candidates = [
        s for s in light if s is not None and (s.runs or isinstance(s.node, ast.Expr | ast.Assert))
    ]
    own = {name for s in candidates if isinstance(s.node, SCOPES) for name in s.binds}
    names, chosen, before = set(promised), set[int](), -1
    while before != len(chosen):
        before = len(chosen)
        for s in reversed(candidates):  # what a statement rests on stands above it, as a rule
            serves = _serves(s, names, imported, own, registers) or _lasts(s, own)
            if id(s) not in chosen and serves:
                chosen.add(id(s))
                names |= s.reads | s.binds
    return [s for s in candidates if id(s) in chosen]


def _lasts(statement: Statement, own: set[str]) -> bool:
    """Whether a statement leaves what any other may need: folders, files, variables by name.

    What is written to files by the notebook's own functions is the outcome of work.
    """
    if statement.lasts == "files":
        return not statement.calls & own
    return bool(statement.lasts)


def _without_training(
    statement: Statement, heavy: set[str], registers: dict[str, set[str]]
) -> Statement | None:
    """A statement without the parts of it that train; None where nothing is left."""
    node = statement.node
    if isinstance(node, SCOPES):
        return statement
    if not isinstance(node, BLOCKS):
        if not _is_left_out(node, heavy, registers):
            return statement
        left = _last_turn(node, heavy)
        return None if left is None else statement_of(statement.cell, statement.index, left)
    if not any(_is_left_out(part, heavy, registers) for part in statements_within(node)):
        return statement
    try:
        pruned: ast.stmt = _Pruner(heavy, registers).visit(copy.deepcopy(node))
    except RecursionError:  # no work of a person's
        return None
    return statement_of(statement.cell, statement.index, pruned)


class _Pruner(ast.NodeTransformer):
    """Puts `pass` where a block trains, or loops for nothing."""

    def __init__(self, heavy: set[str], registers: dict[str, set[str]]) -> None:
        self.heavy, self.registers = heavy, registers

    def visit(self, node: ast.AST) -> Any:
        """Only statements within blocks are of interest."""
        if isinstance(node, (*BLOCKS, ast.ExceptHandler, ast.match_case)):
            return self.generic_visit(node)
        if isinstance(node, ast.stmt) and _is_left_out(node, self.heavy, self.registers):
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
    return None if _is_left_out(turn, heavy, {}) else turn


def _is_left_out(node: ast.stmt, heavy: set[str], registers: dict[str, set[str]]) -> bool:
    """Whether a statement trains, calls what trains, or is a loop that defines nothing."""
    if isinstance(node, (*SCOPES, *BLOCKS)):
        return False
    if isinstance(node, LOOPS) and (_trains_at_once(node, set()) or not _defines(node, registers)):
        return True
    return _trains_at_once(node, heavy, backward=False) or _spells_training(node, heavy)


def _spells_training(node: ast.stmt, heavy: set[str]) -> bool:
    """Whether a text that `exec` runs may train: it names what trains."""
    calls = [p for p in at_once(node) if isinstance(p, ast.Call)]
    texts = [
        str(part.value)
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "exec"
        for part in ast.walk(call)
        if isinstance(part, ast.Constant)
    ]
    return any(word in heavy for text in texts for word in re.findall(r"\w+", text))


def _defines(loop: ast.stmt, registers: dict[str, set[str]]) -> bool:
    """Whether a loop binds anything but its own variables, or changes what is not its own."""
    own = set(names_bound(loop.target)) if isinstance(loop, ast.For | ast.AsyncFor) else set()
    whole = statement_of(0, 0, loop)
    noted = any(registers.get(called) for called in whole.calls)
    return bool(whole.changes or whole.touches or whole.binds - own or whole.lasts or noted)


def _trains_at_once(node: ast.AST, heavy: set[str], backward: bool = True) -> bool:
    """Whether code calls what trains, or `backward`, and does not only define what will."""
    called = [part.func for part in at_once(node) if isinstance(part, ast.Call)]
    return any(isinstance(f, ast.Name) and f.id in heavy for f in called) or (
        backward and any(isinstance(f, ast.Attribute) and f.attr == "backward" for f in called)
    )


def _trainers_within(function: ast.AST, heavy: set[str]) -> set[str]:
    """The functions that a function defines, to call which is to train."""
    inner = (f for f in at_once(function) if isinstance(f, FUNCTIONS))
    return {f.name for f in inner if _trains(f, heavy) or _trainers_within(f, heavy)}


def _trains(function: ast.AST, heavy: set[str]) -> bool:
    """Whether to call a function is to train; one that returns a function that will does not."""
    if _trains_at_once(function, heavy):
        return True
    parts, inner = list(at_once(function)), _trainers_within(function, heavy)
    returned = {
        id(part)
        for statement in parts
        if isinstance(statement, ast.Return)
        for part in at_once(statement)
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
            changed = {name for part in parts for name in names_changed(part) | names_touched(part)}
            stored = {n for part in parts if isinstance(part, ast.Global) for n in part.names}
            handed = {part.arg for part in ast.walk(s.node.args) if isinstance(part, ast.arg)}
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
    if (statement.touches - imported) & names:
        return True
    for called, given in statement.handed.items():
        module, dot, _ = called.partition(".")
        if _ARGUMENTS in registers.get(called, ()) and given & names:
            return True  # by a function of the notebook; and by a library's:
        if dot and (module in imported or hasattr(builtins, module)) and given & names - imported:
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
