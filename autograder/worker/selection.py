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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn, optim
from torch.utils import data

from definitions import Notebook
from statements import (
    ASSIGNMENTS,
    BLOCKS,
    CHANGING,
    FUNCTIONS,
    IMPORTS,
    LOOPS,
    SCOPES,
    Statement,
    at_once,
    is_setattr,
    names_bound,
    names_changed,
    names_stored,
    names_touched,
    statement_of,
    statements_within,
)

_ARGUMENTS = "*"
# methods of what is no work of the notebook's: which is meant, only the class can tell
_COMMON = {
    name
    for kind in (dict, list, set, str, Path, nn.Module, optim.Optimizer, data.DataLoader)
    for name in dir(kind)
}


@dataclass
class _Training:
    """What trains in a notebook."""

    functions: set[str]  # and classes, to make an instance of which is to train
    methods: dict[str, set[str]]  # by class of the notebook
    kinds: dict[str, set[str]]  # by variable: what it is made by
    imported: set[str] = field(default_factory=set)
    modules: dict[str, str] = field(default_factory=dict)  # by imported name: where it is from
    values: dict[str, list[ast.expr | None]] = field(default_factory=dict)  # by variable
    properties: set[str] = field(default_factory=set)

    def size(self) -> int:
        """How much is known."""
        return len(self.functions) + sum(map(len, self.methods.values())) + len(self.properties)

    def calls(self, function: ast.expr) -> bool:
        """Whether to call this is to train."""
        if isinstance(function, ast.Name):
            return function.id in self.functions
        if isinstance(function, ast.Attribute):
            return self.reads(function)
        return _is_called_to_train(function, self)

    def reads(self, way: ast.Attribute) -> bool:
        """Whether an attribute is a method that trains."""
        kinds = self._kinds(way.value)
        if any(way.attr in self.methods.get(kind, ()) for kind in kinds):
            return True
        named = any(way.attr in methods for methods in self.methods.values())
        return "" in kinds and named and way.attr not in _COMMON

    def _kinds(self, value: ast.expr) -> set[str]:
        """The classes that an object may be of; "" if any."""
        if isinstance(value, ast.Name):
            if value.id in self.methods:
                return {value.id}
            made = self.kinds.get(value.id, {"object" if value.id in self.imported else ""})
            known = {*self.methods, *self.imported, "object", ""}
            return {kind if kind in known or value.id == "super" else "" for kind in made}
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
            if value.func.id == "super":
                return self.kinds.get("super", {""})
            return {value.func.id} if value.func.id in {*self.methods, *self.imported} else {""}
        root = _maker(value)
        return {root} if root in self.imported else {""}


def needed(notebook: Notebook, promised: set[str], trainers: set[str]) -> list[Statement]:
    """The statements that the promised names rest on, in the notebook's order.

    Training is left out: it takes minutes and defines nothing that is promised.
    """
    heavy = _training(notebook.statements, trainers)
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
    found = [s for s in candidates if id(s) in chosen]
    return found + list(_withdrawn(promised, notebook.statements, light))


def _withdrawn(
    promised: set[str], statements: list[Statement], light: list[Statement | None]
) -> Iterator[Statement]:
    """Statements that undo what names hold which came of work that is left out; no functions."""
    for name in sorted(promised):
        if _is_outcome(name, statements, light, len(statements), set()):
            last = [s for s in statements if name in s.binds][-1]
            text = f"callable(globals().get({name!r})) or globals().pop({name!r}, None)"
            undone = ast.parse(text).body[0]
            yield statement_of(last.cell, last.index, ast.copy_location(undone, last.node))


def _is_outcome(
    name: str,
    statements: list[Statement],
    light: list[Statement | None],
    end: int,
    seen: set[tuple[str, int]],
) -> bool:
    """Whether what a name holds above a statement rests, by assignments, on what is left out.

    light: the statements without what is left out; end: the place of that statement.
    """
    binding = (i for i in reversed(range(end)) if name in statements[i].binds)
    at = next(binding, None)
    if at is None or (name, at) in seen or isinstance(statements[at].node, (*SCOPES, *IMPORTS)):
        return False
    left = light[at]
    if left is None or name not in left.binds:
        return True
    seen.add((name, at))
    read = set(_read_for(name, left.node))
    if isinstance(left.node, (*BLOCKS, *LOOPS)):
        read -= statements[at].binds
    return any(_is_outcome(other, statements, light, at, seen) for other in read)


def _read_for(name: str, node: ast.stmt) -> Iterator[str]:
    """What a statement reads for what it binds a name to, or whether it does."""
    if name not in set(names_bound(node)) or isinstance(node, SCOPES):
        return
    if isinstance(node, (*BLOCKS, *LOOPS)):
        parts: list[ast.AST] = [
            getattr(node, "test", ast.Pass()),
            getattr(node, "iter", ast.Pass()),
        ]
        for part in ast.iter_child_nodes(node):
            inner = [part] if isinstance(part, ast.stmt) else statements_within(part)
            for statement in inner:
                yield from _read_for(name, statement)
    else:
        parts = [node]
        if isinstance(node, ast.AugAssign):
            yield name
    for read in (p for part in parts for p in [part, *at_once(part)]):
        if isinstance(read, ast.Name) and isinstance(read.ctx, ast.Load):
            yield read.id


def _lasts(statement: Statement, own: set[str]) -> bool:
    """Whether a statement leaves what any other may need: folders, files, variables by name.

    What is written to files by the notebook's own functions is the outcome of work.
    """
    if statement.lasts == "files":
        return not statement.calls & own
    return bool(statement.lasts)


def _without_training(
    statement: Statement, heavy: _Training, registers: dict[str, set[str]]
) -> Statement | None:
    """A statement without the parts of it that train; None where nothing is left."""
    node = statement.node
    if isinstance(node, SCOPES):
        return statement
    if not isinstance(node, BLOCKS):
        if not _is_left_out(node, heavy, registers):
            return statement
        left = _rest(node, heavy, registers)
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

    def __init__(self, heavy: _Training, registers: dict[str, set[str]]) -> None:
        self.heavy, self.registers = heavy, registers

    def visit(self, node: ast.AST) -> Any:
        """Only statements within blocks are of interest."""
        if isinstance(node, (*BLOCKS, ast.ExceptHandler, ast.match_case)):
            return self.generic_visit(node)
        if isinstance(node, ast.stmt) and _is_left_out(node, self.heavy, self.registers):
            return _rest(node, self.heavy, self.registers) or ast.copy_location(ast.Pass(), node)
        return node


def _rest(node: ast.stmt, heavy: _Training, registers: dict[str, set[str]]) -> ast.stmt | None:
    """What is left of a statement that trains: cheap parts of a loop, or `name := value`."""
    if isinstance(node, LOOPS):
        return _cheap_loop(node, heavy, registers) or _last_turn(node, heavy)
    named = [part for part in at_once(node) if isinstance(part, ast.NamedExpr)]
    light = [part for part in named if not _trains_at_once(part, heavy)]
    if not light:
        return None
    made = ast.Expr(ast.Tuple([*light], ast.Load()))
    return ast.fix_missing_locations(ast.copy_location(made, node))


def _cheap_loop(
    loop: ast.stmt, heavy: _Training, registers: dict[str, set[str]]
) -> ast.stmt | None:
    """A loop without what trains in it and what rests on that, if what is left costs nothing."""
    leaps = (ast.Break, ast.Continue, ast.Return, ast.Yield, ast.YieldFrom, ast.Await, ast.While)
    if not isinstance(loop, ast.For) or loop.orelse or not _is_cheap_source(loop.iter, heavy):
        return None
    if any(isinstance(part, leaps) for part in ast.walk(loop)) or not _trains_at_once(loop, heavy):
        return None
    kept, lost, before = [*loop.body], set[str](), -1
    while before != len(kept):
        before = len(kept)
        for part in [*kept]:
            s = statement_of(0, 0, part)
            trains = _trains_at_once(part, heavy)
            if trains or (s.reads | s.binds) & lost:
                kept.remove(part)
                lost |= s.binds | (names_stored(part) if trains else s.changes | s.touches)
                lost |= {name for called in s.calls for name in registers.get(called, ())}
    kept = [part for part in kept if not isinstance(part, ast.Expr | ast.Pass) or _notes(part)]
    if set(names_bound(loop.target)) & lost or not all(_is_cheap(part, heavy) for part in kept):
        return None
    made = ast.For(loop.target, loop.iter, kept or [ast.Pass()], [])
    return ast.fix_missing_locations(ast.copy_location(made, loop))


def _notes(node: ast.stmt) -> bool:
    """Whether a bare expression changes something."""
    return bool(names_touched(node) or set(names_bound(node)))


_CHEAP = """abs bool dict divmod enumerate float format int len list max min pow print range
reversed round set sorted str sum tuple zip tqdm trange""".split()
_CHEAP_MODULES = (
    "numpy",
    "math",
    "itertools",
    "statistics",
    "fractions",
    "decimal",
    "copy",
    "tqdm",
)
_CHEAP_OF_TORCH = ("arange", "geomspace", "linspace", "logspace", "tensor")
_TURNS = 10000  # of a loop that is repeated
_CHEAP_METHODS = ("copy", "get", "item", "items", "keys", "tolist", "values", "format")


def _is_cheap(node: ast.AST, heavy: _Training) -> bool:
    """Whether code calls but functions of numbers."""
    calls = (part.func for part in [node, *at_once(node)] if isinstance(part, ast.Call))
    return all(_is_cheap_function(function, heavy) for function in calls)


def _is_cheap_function(function: ast.expr, heavy: _Training) -> bool:
    root = function
    while isinstance(root, ast.Attribute):
        root = root.value
    name = root.id if isinstance(root, ast.Name) else ""
    module = heavy.modules.get(name, "").split(".")[0]
    if isinstance(function, ast.Attribute) and not module:
        return function.attr in _CHEAP_METHODS or bool(CHANGING.fullmatch(function.attr))
    last = function.attr if isinstance(function, ast.Attribute) else name
    if module == "torch":
        return last in _CHEAP_OF_TORCH
    return name in _CHEAP or (
        module in _CHEAP_MODULES and not re.match("load|save|from|open", last)
    )


def _is_cheap_source(node: ast.AST, heavy: _Training, depth: int = 3) -> bool:
    """Whether an iterable is written out, or made of what is: numbers, not images."""
    functions = {id(part.func) for part in ast.walk(node) if isinstance(part, ast.Call)}
    names = {p.id for p in ast.walk(node) if isinstance(p, ast.Name) and id(p) not in functions}
    values = [v for name in names - {*heavy.modules} for v in heavy.values.get(name, [None])]
    numbers = [p.value for p in ast.walk(node) if isinstance(p, ast.Constant)]
    if any(isinstance(n, int) and n > _TURNS for n in numbers):
        return False
    if any(isinstance(part, ast.Pow | ast.Mult) for part in ast.walk(node)) and "range" in {
        *(part.id for part in ast.walk(node) if isinstance(part, ast.Name))
    }:
        return False
    return _is_cheap(node, heavy) and all(
        value is not None and depth > 0 and _is_cheap_source(value, heavy, depth - 1)
        for value in values
    )


def _last_turn(loop: ast.stmt, heavy: _Training) -> ast.Assign | None:
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


def _is_left_out(node: ast.stmt, heavy: _Training, registers: dict[str, set[str]]) -> bool:
    """Whether a statement trains, calls what trains, or is a loop that defines nothing."""
    if isinstance(node, (*SCOPES, *BLOCKS)):
        return False
    if isinstance(node, LOOPS) and (
        _trains_at_once(node, _Training(set(), {}, {})) or not _defines(node, registers)
    ):
        return True
    return _trains_at_once(node, heavy, backward=False) or _spells_training(node, heavy)


def _spells_training(node: ast.stmt, heavy: _Training) -> bool:
    """Whether a text that `exec` runs may train: it names what trains."""
    calls = [p for p in at_once(node) if isinstance(p, ast.Call)]
    texts = [
        str(part.value)
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "exec"
        for part in ast.walk(call)
        if isinstance(part, ast.Constant)
    ]
    return any(word in heavy.functions for text in texts for word in re.findall(r"\w+", text))


def _defines(loop: ast.stmt, registers: dict[str, set[str]]) -> bool:
    """Whether a loop binds anything but its own variables, or changes what is not its own."""
    own = set(names_bound(loop.target)) if isinstance(loop, ast.For | ast.AsyncFor) else set()
    whole = statement_of(0, 0, loop)
    noted = any(registers.get(called) for called in whole.calls)
    return bool(whole.changes or whole.touches or whole.binds - own or whole.lasts or noted)


def _trains_at_once(node: ast.AST, heavy: _Training, backward: bool = True) -> bool:
    """Whether code calls what trains, or `backward`, and does not only define what will."""
    parts = [node, *at_once(node)]
    called = [part.func for part in parts if isinstance(part, ast.Call)]
    read = (p for p in parts if isinstance(p, ast.Attribute) and p.attr in heavy.properties)
    return (
        any(map(heavy.calls, called))
        or any(map(heavy.reads, read))
        or (backward and any(isinstance(f, ast.Attribute) and f.attr == "backward" for f in called))
    )


def _trainers_within(function: ast.AST, heavy: _Training) -> set[str]:
    """The functions that a function defines, to call which is to train."""
    inner = (f for f in at_once(function) if isinstance(f, FUNCTIONS))
    return {f.name for f in inner if _trains(f, heavy) or _trainers_within(f, heavy)}


def _trains(function: ast.AST, heavy: _Training) -> bool:
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


def _training(statements: Iterable[Statement], trainers: set[str]) -> _Training:
    """What trains: the training functions, whatever calls these, and classes to make which does."""
    nodes = [part for s in statements for part in _top_level(s.node)]
    found = _Training(set(trainers), {}, _kinds(nodes))
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            found.methods[node.name] = set()
        elif isinstance(node, IMPORTS):
            found.imported.update(names_bound(node))
            for alias in node.names:
                name = alias.asname or alias.name.split(".")[0]
                found.modules[name] = getattr(node, "module", None) or alias.name
        elif isinstance(node, ASSIGNMENTS):
            for name in names_bound(node):
                found.values.setdefault(name, []).append(node.value)
    makers = set[str]()  # they return functions that train
    while True:
        before = found.size() + len(makers)
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                _note_class(node, found)
            elif isinstance(node, FUNCTIONS) and _trains(node, found):
                found.functions.add(node.name)
            elif isinstance(node, FUNCTIONS) and _trainers_within(node, found):
                makers.add(node.name)
            elif isinstance(node, ASSIGNMENTS) and _is_trainer(node.value, found, makers):
                found.functions |= set(names_bound(node))
        if before == found.size() + len(makers):
            return found


def _top_level(node: ast.stmt) -> Iterator[ast.stmt]:
    yield node
    if isinstance(node, BLOCKS):
        yield from statements_within(node)


def _note_class(node: ast.ClassDef, found: _Training) -> None:
    """Note which methods of a class train, and whether to make an instance does."""
    bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
    own = [part for part in node.body if isinstance(part, FUNCTIONS)]
    training = found.methods[node.name]
    inherited = set().union(*(found.methods.get(base, set()) for base in bases))
    training |= inherited - {method.name for method in own}
    for method in own:
        first = [a.arg for a in [*method.args.posonlyargs, *method.args.args][:1]]
        kinds = {**found.kinds, "super": {*bases}, **{name: {node.name} for name in first}}
        if _trains(method, replace(found, kinds=kinds)):
            training.add(method.name)
            ways = {
                part.id
                for d in method.decorator_list
                for part in ast.walk(d)
                if isinstance(part, ast.Name)
            }
            ways |= {getattr(d, "attr", "") for d in method.decorator_list}
            if ways & {"property", "cached_property"}:
                found.properties.add(method.name)
    if any(name.startswith("__") and name != "__call__" for name in training):
        found.functions.add(node.name)


def _kinds(nodes: Iterable[ast.AST]) -> dict[str, set[str]]:
    """By variable: the names that it is made by; "" where that is not known."""
    kinds: dict[str, set[str]] = {}
    for part in (part for node in nodes for part in ast.walk(node)):
        names, maker = list[str](), ""
        if isinstance(part, ASSIGNMENTS):
            names, maker = list(names_bound(part)), _maker(part.value)
        elif isinstance(part, ast.arg):
            names = [part.arg]
        elif isinstance(part, ast.For | ast.comprehension):
            names = list(names_bound(part.target))
        elif isinstance(part, ast.withitem | ast.NamedExpr):
            names = list(names_bound(part))
        for name in names:
            kinds.setdefault(name, set()).add(maker)
    return kinds


def _maker(value: ast.expr | None) -> str:
    """The class, or the package, that makes a value, as far as it is written."""
    if isinstance(value, ast.Dict | ast.List | ast.Set | ast.Constant | ast.JoinedStr):
        return "object"
    while isinstance(value, ast.Call | ast.Attribute):
        value = value.func if isinstance(value, ast.Call) else value.value
    return value.id if isinstance(value, ast.Name) else ""


def _is_trainer(value: ast.expr | None, found: _Training, makers: set[str]) -> bool:
    """Whether a value may be a function that trains: one of these, made of one, or by one."""
    parts = [value, *ast.walk(value)] if value is not None else []
    called = {id(part.func) for part in parts if isinstance(part, ast.Call)}
    return any(
        (isinstance(part, ast.Name) and part.id in found.functions | makers)
        or (isinstance(part, ast.Attribute) and id(part) not in called and found.reads(part))
        for part in parts
    ) or (_is_called_to_train(value, found))


def _is_called_to_train(value: ast.expr | None, found: _Training) -> bool:
    """Whether a value is an instance that trains once it is called."""
    function = value.func if isinstance(value, ast.Call) else None
    return isinstance(function, ast.Name) and "__call__" in found.methods.get(function.id, ())
