"""Systematic mistakes: every small change to the reference's solution cells, one at a time.

An operator looks at one node of a solution's syntax tree and offers edits: an object of the
tree (a node, or a list of nodes) and what may stand in its place. The first operators know
Python only; the last ones are those of DeepCrime (Humbatova, Jahangirova and Tonella, ISSTA
2021) that apply here. Initial weights are left alone: nothing is promised about them.
"""

from __future__ import annotations

import ast
import copy
import difflib
import itertools
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import nbformat

REFERENCE = Path(__file__).resolve().parents[1] / "assignment" / "vae" / "vae.ipynb"
EQUIVALENT = Path(__file__).with_name("submissions") / "equivalent.toml"

# which task answers for a definition, or for a method
TASKS = {
    "Encoder": "encoder",
    "Decoder": "decoder",
    "make_data_loader": "data-loader",
    "train_autoencoder": "ae-training",
    "sample_images": "ae-sampling",
    "VAE.__init__": "vae-forward",
    "VAE.forward": "vae-forward",
    "VAE.loss": "vae-loss",
    "VAE.reconstruct": "vae-reconstruct",
    "train_vae": "vae-training",
    "TUNED_BETA": "beta-tuning",
}


@dataclass(frozen=True)
class Mutant:
    """The reference with one change; line: in its cell; source: the whole cell, changed."""

    name: str  # task:line:operator:number
    task: str
    operator: str
    line: int
    cell: str  # the grade id of the cell
    source: str
    change: str  # the lines that differ, before and after

    def notebook(self) -> nbformat.NotebookNode:
        """The reference's notebook with the changed cell."""
        notebook = copy.deepcopy(_reference())
        for cell in notebook.cells:
            if cell.id == self.cell:
                cell.source = self.source
        return notebook


class Edit(NamedTuple):
    """At `line`, `new` takes the place of `old`, an object of the tree."""

    line: int
    old: Any
    new: Any


@dataclass
class Scope:
    """What stands in one function: its variables, its own strings, the attributes of self."""

    names: list[str] = field(default_factory=list)
    strings: list[str] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)
    bare: set[int] = field(default_factory=set)  # ids of calls that are statements of their own

    def is_local(self, node: ast.expr) -> bool:
        """Whether an expression starts at a variable, not at a module or at self."""
        while isinstance(node, ast.Attribute | ast.Call):
            node = node.func if isinstance(node, ast.Call) else node.value
        return not isinstance(node, ast.Name) or node.id in self.names


Operator = Callable[[ast.AST, Scope], Iterator[Edit]]


def mutants() -> list[Mutant]:
    """All mutants of all solution cells, in the notebook's order, none twice."""
    return [m for cell in _reference().cells if _is_solution(cell) for m in of_cell(cell)]


def of_cell(cell: nbformat.NotebookNode) -> list[Mutant]:
    """The mutants of one solution cell."""
    tree = ast.parse(cell.source)
    plain = ast.unparse(tree)
    found, seen, numbers = [], {plain}, Counter[tuple[int, str]]()
    for operator, edit in _edits(tree, solution_lines(cell.source)):
        source = ast.unparse(_edited(tree, edit))
        if source in seen or not _compiles(source):
            continue
        seen.add(source)
        numbers[edit.line, operator] += 1
        task = _task(tree, edit.line)
        name = f"{task}:{edit.line}:{operator}:{numbers[edit.line, operator]}"
        change = _change(plain, source)
        found.append(Mutant(name, task, operator, edit.line, cell.id, source, change))
    return found


def equivalents() -> dict[str, str]:
    """Why a mutant is right after all, by its name."""
    listed = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))["equivalent"]
    return {name: group["reason"] for group in listed for name in group["mutants"]}


def solution_lines(source: str) -> set[int]:
    """The numbers of the lines between BEGIN SOLUTION and END SOLUTION."""
    lines, inside = set(), False
    for number, line in enumerate(source.splitlines(), start=1):
        inside = (inside or "### BEGIN SOLUTION" in line) and "### END SOLUTION" not in line
        if inside:
            lines.add(number)
    return lines


@cache
def _reference() -> nbformat.NotebookNode:
    notebook: nbformat.NotebookNode = nbformat.read(REFERENCE, as_version=4)
    return notebook


def _is_solution(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.metadata.get("nbgrader", {}).get("solution"))


def _edits(tree: ast.Module, lines: set[int]) -> Iterator[tuple[str, Edit]]:
    functions: list[ast.AST] = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    for function in functions or [tree]:
        scope = _scope(function)
        for name, operator in OPERATORS.items():
            for node in _parts(function):
                yield from ((name, e) for e in operator(node, scope) if e.line in lines)


def _edited(tree: ast.Module, edit: Edit) -> ast.Module:
    """A copy of the tree in which the old object is the new one."""
    return copy.deepcopy(tree, {id(edit.old): edit.new})


def _compiles(source: str) -> bool:
    try:
        compile(source, "<mutant>", "exec")
    except SyntaxError:
        return False
    return True


def _task(tree: ast.Module, line: int) -> str:
    for node in tree.body:
        if not node.lineno <= line <= (node.end_lineno or 0):
            continue
        inner = [p.name for p in ast.walk(node) if isinstance(p, ast.FunctionDef) and _at(p, line)]
        outer = node.name if isinstance(node, ast.ClassDef | ast.FunctionDef) else "TUNED_BETA"
        return TASKS.get(".".join([outer, *inner])) or TASKS[outer]
    raise LookupError(f"no definition at line {line}")


def _at(node: ast.FunctionDef, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or 0)


def _change(before: str, after: str) -> str:
    lines = difflib.ndiff(_lines(before), _lines(after))
    return "\n".join(line for line in lines if line[0] in "-+")


def _lines(source: str) -> list[str]:
    """One line a layer, though the parser puts a whole call on one."""
    return source.replace(", nn.", ",\nnn.").splitlines()


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """A node and everything below it but annotations, which are not evaluated."""
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _parts(child)


def _scope(function: ast.AST) -> Scope:
    scope = Scope()
    for node in _parts(function):
        match node:
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) if name != "self":
                scope.names.append(name)
            case ast.Constant(value=str(text)) if text.isidentifier():
                scope.strings.append(text)
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                scope.attributes.append(name)
            case ast.Expr(value=ast.Call() as call):
                scope.bare.add(id(call))
    for found in (scope.names, scope.strings, scope.attributes):
        found[:] = dict.fromkeys(found)
    return scope


# --- Python's own


def _constant(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    if not isinstance(node, ast.Constant):
        return
    for value in _other_values(node.value, scope):
        yield Edit(node.lineno, node, ast.Constant(value))


def _other_values(value: object, scope: Scope) -> list[Any]:
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1, value - 1]
        case float():
            return [2 * value, -value, 0.0, 1.0]
        case str() if value in scope.strings:
            return [value + "_", *(other for other in scope.strings if other != value)]
    return []


_OTHER_OPERATORS: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub, ast.Mult),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add, ast.Div, ast.Sub),
    ast.Div: (ast.Mult,),
    ast.Pow: (ast.Mult,),
}


def _arithmetic(node: ast.AST, _scope: Scope) -> Iterator[Edit]:
    if isinstance(node, ast.BinOp):
        for other in _OTHER_OPERATORS.get(type(node.op), ()):
            yield Edit(node.lineno, node, ast.BinOp(node.left, other(), node.right))


def _series(node: ast.AST) -> list[ast.expr]:
    """The expressions whose order matters: arguments, elements, values of a dict."""
    match node:
        case ast.Call(args=items) | ast.Tuple(elts=items) | ast.List(elts=items):
            return items
        case ast.Dict(values=items):
            return items
    return []


def _swap_arguments(node: ast.AST, _scope: Scope) -> Iterator[Edit]:
    items = _series(node)
    for i, (first, second) in enumerate(itertools.pairwise(items)):
        yield Edit(first.lineno, items, [*items[:i], second, first, *items[i + 2 :]])


def _drop_argument(node: ast.AST, _scope: Scope) -> Iterator[Edit]:
    if isinstance(node, ast.Dict):
        for i, key in enumerate(node.keys):
            keys, values = node.keys[:i] + node.keys[i + 1 :], node.values[:]
            del values[i]
            yield Edit(key.lineno if key else node.lineno, node, ast.Dict(keys, values))
        return
    items = _series(node)
    for i, item in enumerate(items):
        if _root(node) != "nn" or not isinstance(item, ast.Constant):  # most layers then raise
            yield Edit(item.lineno, items, items[:i] + items[i + 1 :])


def _drop_keyword(node: ast.AST, _scope: Scope) -> Iterator[Edit]:
    if isinstance(node, ast.Call):
        words = node.keywords
        for i, word in enumerate(words):
            yield Edit(word.value.lineno, words, words[:i] + words[i + 1 :])


def _is_layers(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and len(node.args) > 3


def _repeat_layer(node: ast.AST, _scope: Scope) -> Iterator[Edit]:
    if _is_layers(node):
        layers = _series(node)
        for i, layer in enumerate(layers):
            yield Edit(layer.lineno, layers, [*layers[: i + 1], *layers[i:]])


def _drop_call(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    if not isinstance(node, ast.Call) or id(node) in scope.bare:
        return
    if isinstance(node.func, ast.Attribute) and scope.is_local(node.func):
        yield Edit(node.lineno, node, node.func.value)
    if node.args and not isinstance(node.args[0], ast.Constant):
        yield Edit(node.lineno, node, node.args[0])


def _repeat_call(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    if not isinstance(node, ast.Call) or id(node) in scope.bare or _root(node) == "nn":
        return
    if isinstance(node.func, ast.Attribute) and scope.is_local(node.func):
        again = ast.Attribute(node, node.func.attr, ast.Load())
        yield Edit(node.lineno, node, ast.Call(again, node.args, node.keywords))
    if len(node.args) == 1 and not isinstance(node.args[0], ast.Starred):
        yield Edit(node.lineno, node, ast.Call(node.func, [node], node.keywords))


def _root(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _body(node: ast.AST) -> list[ast.stmt]:
    body = getattr(node, "body", [])
    return body if isinstance(body, list) else []


def _drop_statement(node: ast.AST, _scope: Scope) -> Iterator[Edit]:
    body = _body(node)
    for i, statement in enumerate(body):
        yield Edit(statement.lineno, body, body[:i] + body[i + 1 :] or [ast.Pass()])
        if isinstance(statement, ast.For | ast.With):  # or only what stands before its colon
            yield Edit(statement.lineno, body, body[:i] + statement.body + body[i + 1 :])


def _repeat_statement(node: ast.AST, _scope: Scope) -> Iterator[Edit]:
    body = _body(node)
    for i, statement in enumerate(body):
        if isinstance(statement, ast.Expr | ast.For | ast.With):  # an assignment again is none
            yield Edit(statement.lineno, body, [*body[: i + 1], *body[i:]])


def _swap_statements(node: ast.AST, _scope: Scope) -> Iterator[Edit]:
    body = _body(node)
    for i, (first, second) in enumerate(itertools.pairwise(body)):
        yield Edit(first.lineno, body, [*body[:i], second, first, *body[i + 2 :]])


def _move_statement(node: ast.AST, _scope: Scope) -> Iterator[Edit]:
    """Out of a loop, to either side of it; or into the loop that follows or goes before."""
    body = _body(node)
    for i, loop in enumerate(body):
        if not isinstance(loop, ast.For):
            continue
        before, after = body[:i], body[i + 1 :]
        for j, inner in enumerate(loop.body):
            rest = _loop(loop, loop.body[:j] + loop.body[j + 1 :])
            yield Edit(inner.lineno, body, [*before, inner, rest, *after])
            yield Edit(inner.lineno, body, [*before, rest, inner, *after])
        for moved in before[-1:]:
            yield Edit(moved.lineno, body, [*before[:-1], _loop(loop, [moved, *loop.body]), *after])
        for moved in after[:1]:
            yield Edit(moved.lineno, body, [*before, _loop(loop, [*loop.body, moved]), *after[1:]])


def _loop(like: ast.For, body: list[ast.stmt]) -> ast.For:
    loop = copy.copy(like)
    loop.body = body or [ast.Pass()]
    return loop


def _next(name: str, among: list[str]) -> str:
    return among[(among.index(name) + 1) % len(among)]


def _swap_name(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    match node:
        case ast.Name(id=name, ctx=ast.Load()) if name in scope.names:
            yield Edit(node.lineno, node, ast.Name(_next(name, scope.names), ast.Load()))
        case ast.Attribute(value=ast.Name(id="self") as owner, attr=name):
            other = _next(name, scope.attributes)
            yield Edit(node.lineno, node, ast.Attribute(owner, other, node.ctx))


# names of functions that are easily taken for one another
_TWINS = {
    "sum": ("mean", "std"),
    "mean": ("sum", "median"),
    "exp": ("expm1", "exp2", "abs", "sigmoid"),
    "randn": ("rand", "zeros", "ones"),
    "randn_like": ("rand_like", "zeros_like", "ones_like"),
    "zeros_like": ("ones_like", "randn_like"),
    "zeros": ("ones",),
    "no_grad": ("enable_grad", "inference_mode"),
    "train": ("eval", "requires_grad_"),
    "item": ("detach", "clone", "tolist"),
    "chunk": ("split", "tensor_split"),
    "append": ("extend", "index"),
    "encoder": ("decoder",),
    "decoder": ("encoder",),
}


def _swap_function(node: ast.AST, _scope: Scope) -> Iterator[Edit]:
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        for twin in _TWINS.get(node.attr, ()):
            yield Edit(node.lineno, node, ast.Attribute(node.value, twin, node.ctx))


# --- deep learning's


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _callee(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    return ast.unparse(node.func).rpartition(".")[2]


def _called(node: ast.Call, name: str) -> ast.Call:
    """The same call of another function of the same module."""
    function: ast.expr = ast.Name(name, ast.Load())
    if isinstance(node.func, ast.Attribute):
        function = ast.Attribute(node.func.value, name, ast.Load())
    return ast.Call(function, node.args, node.keywords)


def _with_keyword(node: ast.Call, name: str, value: str) -> ast.Call:
    """The same call with one keyword argument more, or another value of it."""
    others = [word for word in node.keywords if word.arg != name]
    return ast.Call(node.func, node.args, [*others, ast.keyword(name, _expression(value))])


def _learning_rate(node: ast.AST, _scope: Scope) -> Iterator[Edit]:
    if isinstance(node, ast.keyword) and node.arg == "lr":
        rate = ast.unparse(node.value)
        for other in (f"10 * {rate}", f"{rate} / 10", f"2 * {rate}", "0.001", "0.0002"):
            yield Edit(node.value.lineno, node.value, _expression(other))


_OPTIMISERS = ("SGD", "RMSprop", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta")
_OPTIONS = {
    "weight_decay": ("0.0001", "0.01"),
    "betas": ("(0.5, 0.999)", "(0.9, 0.99)"),
    "eps": ("0.001", "1e-06"),
    "amsgrad": ("True",),
    "maximize": ("True",),
}


def _optimiser(node: ast.AST, _scope: Scope) -> Iterator[Edit]:
    if isinstance(node, ast.Call) and _callee(node) == "Adam":
        for other in _OPTIMISERS:
            yield Edit(node.lineno, node, _called(node, other))
        for option, values in _OPTIONS.items():
            for value in values:
                yield Edit(node.lineno, node, _with_keyword(node, option, value))


_ACTIVATIONS = {
    "LeakyReLU": "ReLU ELU SiLU Tanh Identity",
    "Sigmoid": "Tanh ReLU Hardsigmoid Softplus Identity",
}


def _activation(node: ast.AST, _scope: Scope) -> Iterator[Edit]:
    """Another activation, or one more, after a layer that has weights."""
    if isinstance(node, ast.Call):
        for other in _ACTIVATIONS.get(_callee(node), "").split():
            yield Edit(node.lineno, node, _expression(f"nn.{other}()"))
    if _is_layers(node):
        layers = _series(node)
        for i, layer in enumerate(layers):
            if _callee(layer) in ("Linear", "Conv2d", "ConvTranspose2d"):
                more = _expression("nn.ReLU()")
                yield Edit(layer.lineno, layers, [*layers[: i + 1], more, *layers[i + 1 :]])


def _bias(node: ast.AST, _scope: Scope) -> Iterator[Edit]:
    if isinstance(node, ast.Call):
        if _callee(node) in ("Linear", "Conv2d", "ConvTranspose2d"):
            yield Edit(node.lineno, node, _with_keyword(node, "bias", "False"))
        if _callee(node) == "BatchNorm2d":
            yield Edit(node.lineno, node, _with_keyword(node, "affine", "False"))


_CRITERIA = ("l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy")


def _loss(node: ast.AST, _scope: Scope) -> Iterator[Edit]:
    if isinstance(node, ast.Call) and _callee(node) == "mse_loss":
        for other in _CRITERIA:
            yield Edit(node.lineno, node, _called(node, other))
        for reduction in ("'sum'", "'none'"):
            yield Edit(node.lineno, node, _with_keyword(node, "reduction", reduction))


_LOADERS = (
    "[next(iter(data_loader))]",
    "[next(iter(data_loader))] * len(data_loader)",
    "list(data_loader)[1:]",
    "list(data_loader)[:-1]",
    "list(data_loader) * 2",
)
_LOADER_OPTIONS = {
    "batch_size": ("1", "64", "2 * batch_size", "None"),
    "drop_last": ("True",),
    "sampler": ("range(len(dataset))",),
}
_SUBSETS = (
    "torch.utils.data.Subset(dataset, range(len(dataset) // 2))",
    "torch.utils.data.Subset(dataset, range(1, len(dataset)))",
    "torch.utils.data.ConcatDataset([dataset, dataset])",
)


def _batching(node: ast.AST, _scope: Scope) -> Iterator[Edit]:
    """Other batches than those of the loader, or another loader."""
    if isinstance(node, ast.For) and ast.unparse(node.iter) == "data_loader":
        for other in _LOADERS:
            yield Edit(node.lineno, node.iter, _expression(other))
    if isinstance(node, ast.Call) and _callee(node) == "DataLoader":
        for option, values in _LOADER_OPTIONS.items():
            for value in values:
                yield Edit(node.lineno, node, _with_keyword(node, option, value))
        for subset in _SUBSETS:
            yield Edit(node.lineno, node.args[0], _expression(subset))


_PASSES = (
    "range(1)",
    "range(10)",
    "range(epochs + 1)",
    "range(epochs - 1)",
    "range(1, epochs)",
    "range(2 * epochs)",
)


def _epochs(node: ast.AST, _scope: Scope) -> Iterator[Edit]:
    if isinstance(node, ast.For) and ast.unparse(node.iter) == "range(epochs)":
        for other in _PASSES:
            yield Edit(node.lineno, node.iter, _expression(other))


OPERATORS: dict[str, Operator] = {
    "learning-rate": _learning_rate,
    "optimiser": _optimiser,
    "activation": _activation,
    "bias": _bias,
    "loss": _loss,
    "batching": _batching,
    "epochs": _epochs,
    "constant": _constant,
    "arithmetic": _arithmetic,
    "swap-arguments": _swap_arguments,
    "drop-argument": _drop_argument,
    "drop-keyword": _drop_keyword,
    "repeat-layer": _repeat_layer,
    "drop-call": _drop_call,
    "repeat-call": _repeat_call,
    "drop-statement": _drop_statement,
    "repeat-statement": _repeat_statement,
    "swap-statements": _swap_statements,
    "move-statement": _move_statement,
    "swap-name": _swap_name,
    "swap-function": _swap_function,
}
