"""The claimed network: rebuilt on the host from a trace, confirmed, and read as layers.

A trace is what the worker says of one forward pass. It counts only once the network that the
host builds from it answers fresh inputs as the student's does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from autograder.outcomes import Wrong

SIZE_LIMIT = 1 << 25  # numbers in any tensor of a rebuilt network
TOLERANCE = 2e-3  # of the largest output: float32, another order of summation, batch norm

_CONVOLUTIONS = {"convolution", "_convolution"}
_PRODUCTS = {"addmm", "mm", "bmm", "baddbmm", "linear", "matmul"}
_BATCH_NORMS = {
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_functional",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_with_update",
    "_batch_norm_no_update",
    "cudnn_batch_norm",
}
_OTHER_NORMS = {"native_group_norm", "native_layer_norm"}
_POINTWISE = set(
    """
    leaky_relu leaky_relu_ relu relu_ sigmoid sigmoid_ tanh tanh_ elu elu_ gelu silu softplus
    hardtanh hardtanh_ hardsigmoid hardswish mish prelu _prelu_kernel log_sigmoid_forward celu
    threshold relu6 round floor ceil trunc frac sin cos tan asin acos atan sinh cosh erf erfc exp2
    remainder fmod softshrink hardshrink log2 log10 isnan isinf isfinite add add_ sub sub_ mul mul_
    div div_ rsub neg abs exp expm1 log log1p sqrt rsqrt
    reciprocal pow maximum minimum clamp clamp_ clamp_min clamp_max where gt ge lt le eq ne
    logical_not bitwise_not logical_and bitwise_and logical_or bitwise_or sign square masked_fill
    masked_fill_ heaviside
    """.split()
)
_SHAPES = set(
    """
    view _unsafe_view reshape _reshape_alias permute transpose t squeeze unsqueeze expand clone
    contiguous detach alias slice select split split_with_sizes unbind cat stack copy_ _to_copy
    constant_pad_nd reflection_pad2d replication_pad2d lift_fresh movedim flatten unflatten to
    as_strided narrow lift_fresh_copy
    """.split()
)
_POOLS = set(
    """
    max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d mean
    upsample_nearest2d upsample_bilinear2d _softmax _log_softmax pixel_shuffle sum amax amin std
    var max min norm linalg_vector_norm any all argmax argmin cumsum prod logsumexp roll flip gather
    index_select _local_scalar_dense
    """.split()
)
# writing to chosen elements: `h[h < 0] *= 0.2`
_MASKED = set(
    "index index_put index_put_ masked_select masked_scatter masked_scatter_ nonzero".split()
)
_REDUCTIONS = ("mean", "sum", "amax", "max", "avg_pool2d", "max_pool2d_with_indices")
_MAKERS = set(
    """
    empty zeros ones full zeros_like ones_like full_like empty_like arange scalar_tensor new_zeros
    new_ones new_full new_empty eye linspace var_mean fill_ zero_ _weight_norm_interface
    """.split()
)
_ALLOWED = (
    _CONVOLUTIONS | _PRODUCTS | _BATCH_NORMS | _OTHER_NORMS | _POINTWISE | _SHAPES | _POOLS
) | (_MAKERS | _MASKED)
_ELEMENTWISE = _POINTWISE | _MASKED
# results that share memory with the first argument, so that a change of one is a change of both
_VIEWS = set(
    """
    view reshape _reshape_alias permute transpose t squeeze unsqueeze expand detach alias slice
    select split split_with_sizes unbind as_strided narrow lift_fresh movedim flatten unflatten to
    contiguous
    """.split()
)
_PARAMETERS = ("trained", "frozen")
_DTYPES = {
    str(d): d for d in (torch.float16, torch.float32, torch.float64, torch.int64, torch.bool)
}


class Unconfirmed(Exception):
    """A claim that cannot be run, or that answers otherwise than the student's network."""


@dataclass(frozen=True)
class Operation:
    """One traced operation: its name, and its arguments with tensors by number."""

    name: str
    overload: str
    args: list[Any]
    kwargs: dict[str, Any]
    out: Any


@dataclass
class Network:
    """The operations of one forward pass; tensor 0 is the input."""

    operations: list[Operation]
    values: dict[int, Tensor]
    trained: list[int]  # numbers of the parameters that are trained, in the module's order
    frozen: list[int]  # likewise, of those that are not
    result: int

    @property
    def follows_input(self) -> bool:
        """Whether operations lead from the input to the result."""
        flowing = {0}
        for operation in self.operations:
            if flowing & set(_inputs(operation)):
                flowing |= set(_numbers(operation.out))
        return self.result in flowing

    def run(self, x: Tensor) -> Tensor:
        """The network's output for an input of the traced shape; raises `Unconfirmed`."""
        copies = {k: v.clone() for k, v in self.values.items()}
        return self._execute({0: x.clone(), **copies})

    def gradients(self, x: Tensor, weights: Tensor) -> list[Tensor | None]:
        """The gradient of `(output * weights).sum()` for every parameter."""
        leaves = {n: self.values[n].clone().requires_grad_() for n in self.trained}
        output = self._execute({0: x.clone(), **self.values, **leaves})
        if not output.requires_grad:
            return [None for _ in leaves]
        inputs = list(leaves.values())
        return list(torch.autograd.grad((output * weights).sum(), inputs, allow_unused=True))

    def _execute(self, tensors: dict[int, Tensor]) -> Tensor:
        for operation in self.operations:
            try:
                perform(operation, tensors)
            except Exception as error:  # a claim may be any nonsense
                raise Unconfirmed(f"{operation.name} cannot be repeated: {error}") from error
        if self.result not in tensors:
            raise Unconfirmed("the result is not made by the traced operations")
        return tensors[self.result]


def claimed(told: Any) -> Network:
    """The network that a worker's trace claims; raises `Unconfirmed` where it has no form."""
    try:
        operations = [_operation(item) for item in told["operations"]]
        values = {int(k): _plain(v) for k, v in told["values"]}
        trained, frozen = ([int(k) for k in told[n] if int(k) in values] for n in _PARAMETERS)
        result = int(told["result"])
        return Network(_contributing(operations, result), values, trained, frozen, result)
    except Exception as error:  # as above
        raise Unconfirmed("the trace has no known form") from error


def _contributing(operations: list[Operation], result: int) -> list[Operation]:
    """The operations that the result rests on: not those of prints, checks and statistics."""
    memory: dict[int, int] = {}  # of a view: the tensor that it shares memory with

    def base(number: int) -> int:
        while number in memory:
            number = memory[number]
        return number

    for operation in operations:
        inputs = _numbers(operation.args)
        if operation.name in _VIEWS and inputs:
            for number in _numbers(operation.out):
                if base(number) != base(inputs[0]):
                    memory[base(number)] = base(inputs[0])
    live, kept = {base(result)}, list[Operation]()
    for operation in reversed(operations):
        if any(base(number) in live for number in _numbers(operation.out)):
            kept.append(operation)
            live |= {base(number) for number in _inputs(operation)}
    return kept[::-1]


def _plain(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError("a value is no tensor")
    return value.as_subclass(Tensor)


def _operation(item: Any) -> Operation:
    name, _, overload = str(item["op"]).removeprefix("aten.").partition(".")
    if not isinstance(item["args"], list) or not isinstance(item["kwargs"], dict):
        raise TypeError("an operation has no arguments")
    return Operation(name, overload or "default", item["args"], item["kwargs"], item["out"])


def perform(operation: Operation, tensors: dict[int, Tensor]) -> None:
    """Run one operation on the host and bind its results."""
    if operation.name not in _ALLOWED:
        raise RuntimeError("not among the operations of a network")
    function = getattr(getattr(torch.ops.aten, operation.name), operation.overload)
    args = [_argument(a, tensors) for a in operation.args]
    if _size_bound(operation.name, args) > SIZE_LIMIT:
        raise RuntimeError("a tensor would be too large")
    named = {k: _argument(v, tensors) for k, v in operation.kwargs.items()}
    if "device" in named:
        named["device"] = torch.device("cpu")
    named = {k: v for k, v in named.items() if k not in ("memory_format", "layout", "pin_memory")}
    if operation.name in _BATCH_NORMS:
        _check_batch_norm(args)
    if operation.name == "detach":  # what a cut gradient would be if it were whole
        function = torch.ops.aten.alias.default
    _bind(operation.out, function(*args, **named), tensors)


def _size_bound(name: str, args: list[Any]) -> int:
    """An upper bound on the numbers in an operation's result: its arguments are not trusted."""
    shapes = [tuple(a.shape) for a in args if isinstance(a, Tensor)]
    if name in _MASKED:
        chosen = [i.numel() for a in args[1:2] if isinstance(a, list) for i in a if i is not None]
        width = max(chosen, default=1) if name == "index" else args[0].dim()
        return int(args[0].numel()) * (
            1 if _is_mask(args) or name.startswith("index_put") else width
        )
    if name in _PRODUCTS:
        rows = [math.prod(shape[:-1]) for shape in shapes]
        return max(rows, default=0) * max((shape[-1] for shape in shapes if shape), default=0)
    if name in _CONVOLUTIONS:
        sizes = [n for a in args[3:8] if isinstance(a, list) for n in a if isinstance(n, int)]
        reach = max((abs(n) for n in sizes), default=1)
        image, weight = shapes[0], shapes[1]
        sides = [
            (n + 3) * max(reach, 1) * (k + 2) for n, k in zip(image[2:], weight[2:], strict=True)
        ]
        return image[0] * max(weight[:2]) * math.prod(sides) // 64
    asked = [n for a in args if isinstance(a, list) for n in a if isinstance(n, int) and n > 0]
    if name in _MAKERS | _POOLS | {"constant_pad_nd", "expand"} and asked:
        widest = max(map(math.prod, shapes), default=1)
        return math.prod(asked) * (widest if name == "constant_pad_nd" else 1)
    length = max(map(len, shapes), default=0)
    sides = [max(s[-i] if len(s) >= i else 1 for s in shapes) for i in range(1, length + 1)]
    return math.prod(sides)


def _is_mask(args: list[Any]) -> bool:
    chosen = args[1] if len(args) > 1 and isinstance(args[1], list) else []
    return all(isinstance(i, Tensor) and i.dtype is torch.bool for i in chosen)


def _argument(item: Any, tensors: dict[int, Tensor]) -> Any:
    if isinstance(item, list):
        return [_argument(part, tensors) for part in item]
    if isinstance(item, dict):
        if "tensor" in item:
            return tensors[item["tensor"]]
        return _DTYPES.get(str(item.get("symbol")))
    return item


def _check_batch_norm(args: list[Any]) -> None:
    channels = args[0].shape[1]
    for other in args[1:5]:
        if isinstance(other, Tensor) and tuple(other.shape) != (channels,):
            raise RuntimeError("batch norm with weights of another size")


def _bind(described: Any, result: Any, tensors: dict[int, Tensor]) -> None:
    if isinstance(result, Tensor):
        if result.numel() > SIZE_LIMIT:
            raise RuntimeError("a tensor is too large")
        if isinstance(described, dict) and type(described.get("tensor")) is int:
            tensors[described["tensor"]] = result
    elif isinstance(result, tuple | list) and isinstance(described, list):
        for part, value in zip(described, result, strict=False):
            _bind(part, value, tensors)


def agree(ours: Tensor, theirs: Any) -> bool:
    """Whether two outputs are equal up to rounding."""
    if not isinstance(theirs, Tensor) or ours.shape != theirs.shape:
        return False
    ours, theirs = ours.detach().double(), theirs.detach().double()
    scale = max(float(ours.abs().max()), 1e-6) if ours.numel() else 1.0
    return bool(((ours - theirs).abs() <= TOLERANCE * scale).all())


@dataclass
class Layer:
    """A step of a network: its kind, and what the specification may ask of it."""

    kind: str  # conv, transposed, linear, norm, activation, or the name of another operation
    channels: int = 0
    kernel: tuple[int, ...] = ()
    resolution: tuple[int, ...] = ()
    bias: bool = True
    name: str = ""
    trained: bool = True  # whether its weights come from parameters that are trained
    frozen: bool = False  # whether they come from parameters that are not
    statistics: str = ""  # of a batch norm: batch or running
    weight: int = -1  # the number of its first weight


@dataclass
class Block:
    """A layer with weights and what follows it, up to the next one."""

    weight: Layer
    after: list[Layer] = field(default_factory=list)

    @property
    def resolutions(self) -> list[tuple[int, ...]]:
        """Height and width of the layer, and after every crop or pad that follows it.

        A pad may serve the next layer, a crop this one.
        """
        return [layer.resolution for layer in [self.weight, *self.after] if layer.resolution]


def layers(network: Network, x: Tensor) -> list[Layer]:
    """The steps through which the input goes, in order; reshapes and pads leave no trace.

    x: an input of the traced shape. Raises `Unconfirmed` where the operations have no known form.
    """
    try:
        return _layers(network, x)
    except Exception as error:  # as above
        raise Unconfirmed(f"its operations have no known form: {error}") from error


def _layers(network: Network, x: Tensor) -> list[Layer]:
    flowing, learned, found = {0}, set(network.trained), list[Layer]()
    fixed = set(network.frozen)
    pending: list[Operation] = []
    for operation in network.operations:
        inputs = _inputs(operation)
        outputs = _numbers(operation.out)
        if not any(number in flowing for number in inputs):
            for known in (learned, fixed):
                if any(number in known for number in inputs):
                    known |= set(outputs)
            continue
        flowing |= set(outputs)
        if not pending and _is_affine(operation, found, flowing, learned):
            continue
        if operation.name in _ELEMENTWISE and not _is_bias(operation, found, flowing):
            pending.append(operation)
            continue
        if operation.name in _SHAPES and pending and not _closes(operation, pending):
            pending.append(operation)
            continue
        if operation.name not in _ELEMENTWISE | _MAKERS | {"detach", "alias"}:
            found += _pointwise(pending, network, x, learned)
            pending = []
        made = _layer(operation, network, flowing)
        for layer in made:
            layer.trained = any(number in learned for number in inputs)
            layer.frozen = any(number in fixed for number in inputs)
            layer.weight = next((n for n in inputs if n not in flowing), -1)
        if not _goes_on(made, found):
            found += made
    return found + _pointwise(pending, network, x, learned)


def _goes_on(made: list[Layer], found: list[Layer]) -> bool:
    """Whether a linear layer is the last one again, applied row by row."""
    last = found[-1] if found else None
    return (
        len(made) == 1
        and last is not None
        and made[0].kind == last.kind == "linear"
        and made[0].weight == last.weight != -1
    )


def _closes(operation: Operation, pending: list[Operation]) -> bool:
    """Whether a reshape follows a finished activation, and does not stand within one."""
    if operation.name in ("_to_copy", "clone", "copy_", "contiguous"):
        return False
    return set(_inputs(operation)) <= set(_numbers(pending[-1].out))


def _inputs(operation: Operation) -> list[int]:
    return _numbers(operation.args) + _numbers(list(operation.kwargs.values()))


def _numbers(item: Any) -> list[int]:
    if isinstance(item, list):
        return [number for part in item for number in _numbers(part)]
    if isinstance(item, dict) and type(item.get("tensor")) is int:
        return [item["tensor"]]
    return []


def _shape(item: Any) -> tuple[int, ...]:
    if isinstance(item, list) and item:
        item = item[0]
    shape = item.get("shape") if isinstance(item, dict) else None
    return tuple(shape) if isinstance(shape, list) else ()


def _is_affine(
    operation: Operation, found: list[Layer], flowing: set[int], learned: set[int]
) -> bool:
    """Whether this scales or shifts a norm by weights that are trained: its own, spelt out."""
    others = [n for n in _inputs(operation) if n not in flowing]
    return (
        operation.name in ("mul", "mul_", "add", "add_")
        and bool(found)
        and found[-1].kind == "norm"
        and len(others) == 1
        and others[0] in learned
    )


def _is_bias(operation: Operation, found: list[Layer], flowing: set[int]) -> bool:
    """Whether this adds a weight to a product or convolution: the bias, spelt out."""
    if operation.name not in ("add", "add_") or not found:
        return False
    added = [n for n in _inputs(operation) if n not in flowing]
    if len(added) == 1 and found[-1].kind in ("linear", "conv", "transposed"):
        found[-1].bias = True
        return True
    return False


def _layer(operation: Operation, network: Network, flowing: set[int]) -> list[Layer]:
    name, shape = operation.name, _shape(operation.out)
    if name in _CONVOLUTIONS:
        return [_convolution(operation, network, shape)]
    if name in _PRODUCTS:
        if len([n for n in _inputs(operation) if n in flowing]) > 1:
            return [Layer("product", name=name)]
        return [Layer("linear", channels=shape[-1] if shape else 0, bias=name != "mm")]
    if name in _BATCH_NORMS:
        return [_norm(operation, shape)]
    if name in _OTHER_NORMS:
        kind = name.removeprefix("native_").replace("_", " ")
        return [Layer("norm", resolution=shape[2:], name=kind)]
    if name in ("_softmax", "_log_softmax"):
        return [Layer("activation", name=name.strip("_").replace("_", " "))]
    if name in _SHAPES:
        crops = name in ("slice", "narrow", "constant_pad_nd") and len(shape) == 4
        return [Layer("crop", resolution=shape[2:])] if crops else []
    if name in _POINTWISE | _MAKERS:
        return []
    source = _shape(operation.args[0]) if operation.args else ()
    resizes = name.startswith(("_adaptive", "adaptive", "upsample"))
    pools = resizes or name in _REDUCTIONS
    if pools and (set(source[2:]) == {1} or (resizes and source == shape)):
        return []  # a pool over a single pixel
    resolution = shape[2:] if len(shape) == 4 else ()
    return [Layer("other", resolution=resolution, name=name.strip("_").replace("_", " "))]


def _norm(operation: Operation, shape: tuple[int, ...]) -> Layer:
    """A batch norm, or the instance norm that torch makes of one."""
    training = {
        "_batch_norm_with_update": True,
        "_batch_norm_no_update": False,
        "_native_batch_norm_legit_no_training": False,
    }.get(operation.name)
    if training is None:
        training = next((a for a in operation.args[3:6] if isinstance(a, bool)), False)
    channels = shape[1] if len(shape) > 1 else 0
    statistics = "batch" if training else "running"
    return Layer("norm", channels, (), shape[2:], name="batch norm", statistics=statistics)


def _convolution(operation: Operation, network: Network, shape: tuple[int, ...]) -> Layer:
    arguments = operation.args
    weight = network.values.get(next(iter(_numbers(arguments[1:2])), -1))
    size = tuple(weight.shape) if weight is not None else _shape(arguments[1])
    transposed = len(arguments) > 6 and arguments[6] is True
    groups = arguments[8] if len(arguments) > 8 and isinstance(arguments[8], int) else 1
    source = _shape(arguments[0])
    kernel = size[2:] if groups == 1 else (*size[2:], groups)
    bias = len(arguments) > 2 and bool(_numbers(arguments[2:3]))
    channels = shape[1] if len(shape) > 1 else 0
    if set(kernel) == {1} and set(source[2:]) == {1} and set(shape[2:]) == {1}:
        return Layer("linear", channels, bias=bias)
    kind = "transposed" if transposed else "conv"
    return Layer(kind, channels, kernel, shape[2:], bias)


_PROBE = torch.linspace(-3.0, 3.0, 61, dtype=torch.float64)
_KNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "ReLU": torch.relu,
    "ELU": torch.nn.functional.elu,
    "GELU": torch.nn.functional.gelu,
    "SiLU": torch.nn.functional.silu,
    "Softplus": torch.nn.functional.softplus,
}


def _pointwise(
    operations: list[Operation], network: Network, x: Tensor, learned: set[int]
) -> list[Layer]:
    """What a run of elementwise operations computes: one activation, several, or nothing."""
    if not operations:
        return []
    whole = _name_function(operations)
    if whole is None and not learned & {n for o in operations for n in _inputs(o)}:
        whole = _name_effect(operations, network, x)
    if whole:
        return [] if whole == "identity" else [Layer("activation", name=whole)]
    single = []
    for operation in operations:
        if operation.name in _SHAPES:
            continue
        name = _name_function([operation]) or operation.name.strip("_").replace("_", " ")
        if name != "identity":
            single.append(Layer("activation", name=name))
    return single


def _name_function(operations: list[Operation]) -> str | None:
    """Probe elementwise operations as a function of one number.

    Empty where they are one without a name, None where they are none.
    """
    made = {n for o in operations for n in _numbers(o.out)}
    source = [n for o in operations for n in _inputs(o)]
    outside = dict.fromkeys(n for n in source if n not in made or n == source[0])
    if len(outside) != 1:
        return None
    tensors = {next(iter(outside)): _PROBE.clone()}
    try:
        for operation in operations:
            if operation.name not in _SHAPES:
                perform(operation, tensors)
            else:
                tensors[_numbers(operation.out)[0]] = tensors[_inputs(operation)[0]]
    except Exception:  # not a function of one number
        return None
    result = tensors.get(next(iter(_numbers(operations[-1].out)), -1))
    if result is None or result.shape != _PROBE.shape:
        return None
    return _name_pairs(_PROBE, result.double()) or ""


def _name_effect(operations: list[Operation], network: Network, x: Tensor) -> str | None:
    """Name what elementwise operations did to the numbers of one forward pass, constants and all.

    None where an element of the result is not a function of the same element of the input.
    """
    first, last = operations[0], operations[-1]
    tensors = {0: x.clone(), **{k: v.clone() for k, v in network.values.items()}}
    inside = False
    before: list[Tensor] = []
    for operation in network.operations:
        if operation is first:
            inside = True
            before = [tensors[n].clone() for n in dict.fromkeys(_inputs(first)) if n in tensors]
        perform(operation, tensors)
        if operation is last and inside:
            break
    after = tensors.get(next(iter(_numbers(last.out)), -1))
    for candidate in before:
        if after is not None and candidate.shape == after.shape and candidate.is_floating_point():
            name = _name_pairs(candidate.double().flatten(), after.double().flatten())
            if name is not None:
                return name
    return None


def _name_pairs(before: Tensor, after: Tensor) -> str | None:
    """The function that takes each of these numbers to the other."""
    if torch.allclose(after, before, atol=1e-6):
        return "identity"
    positive = before > 0
    if bool(positive.any()) and torch.allclose(after[positive], before[positive], atol=1e-5):
        negative = before < 0
        worst = int(before.argmin())
        slope = float(after[worst] / before[worst])
        fits = torch.allclose(after[negative], slope * before[negative], atol=1e-5)
        if 0 < slope < 1 and fits:
            return "LeakyReLU"
    for name, function in _KNOWN.items():
        if torch.allclose(after, function(before), atol=1e-5):
            return name
    return None


def blocks(steps: list[Layer]) -> tuple[list[Layer], list[Block]]:
    """What stands before the first layer with weights, and the blocks."""
    before: list[Layer] = []
    found: list[Block] = []
    for step in steps:
        if step.kind in ("conv", "transposed", "linear"):
            found.append(Block(step))
        else:
            (found[-1].after if found else before).append(step)
    return before, found


@dataclass(frozen=True)
class Spec:
    """A row of the specification: a layer with weights, its norm and its activation."""

    kind: str
    channels: int
    kernel: int = 0
    resolution: int = 0
    norm: bool = False
    activation: str = ""

    def __str__(self) -> str:
        size = f"{self.resolution}x{self.resolution}"
        names = {"conv": "convolution", "transposed": "transposed convolution"}
        if self.kind == "linear":
            return f"the linear layer to {self.channels}" if self.channels else "the linear layer"
        return f"the {names[self.kind]} to {self.channels} channels at {size}"


def compare_weights(found: list[Block], spec: list[Spec]) -> None:
    """Hold layers with weights against the specification; raises `Wrong` at the first fault."""
    _compare_sequence(found, spec)
    for block, row in zip(found, spec, strict=True):
        _compare_layer(block, row)


def _compare_sequence(found: list[Block], spec: list[Spec]) -> None:
    pairs = _align(found, spec)
    ours = sorted((r.kind, r.channels) for r in spec if r.kind != "linear")
    theirs = sorted((b.weight.kind, b.weight.channels) for b in found if b.weight.kind != "linear")
    if (
        ours == theirs
        and len(found) == len(spec)
        and any(
            b.weight.kind != r.kind or (r.kind != "linear" and b.weight.channels != r.channels)
            for b, r in zip(found, spec, strict=True)
        )
    ):
        raise Wrong("The layers are the right ones, but in another order.", "wrong-order")
    for block, row in pairs:
        if block is None and row is not None:
            seen = _named([b.weight for b in found])
            raise Wrong(f"There is no layer for {row}; found: {seen}.", "missing-layer")
    for block, row in pairs:
        if row is None and block is not None:
            seen = _named([block.weight])
            raise Wrong(f"There is a layer too many: {seen}.", "extra-layer")


def _named(found: list[Layer]) -> str:
    def one(layer: Layer) -> str:
        if layer.kind == "linear":
            return f"linear to {layer.channels}"
        size = "x".join(map(str, layer.resolution))
        kind = "conv" if layer.kind == "conv" else "transposed conv"
        return f"{kind} to {layer.channels} at {size}"

    return ", ".join(one(layer) for layer in found) or "none"


def _cost(block: Block, row: Spec) -> float:
    if block.weight.kind != row.kind:
        return 3.0
    if row.kind == "linear":
        return 0.0 if block.weight.channels == row.channels or not row.channels else 0.5
    return (
        0.6 * (block.weight.channels != row.channels)
        + 0.3 * ((row.resolution, row.resolution) not in block.resolutions)
        + 0.2 * (block.weight.kernel != (row.kernel, row.kernel))
    )


def _align(found: list[Block], spec: list[Spec]) -> list[tuple[Block | None, Spec | None]]:
    """The cheapest alignment of two sequences; a gap costs 1."""
    best: dict[tuple[int, int], tuple[float, list[tuple[Block | None, Spec | None]]]] = {}
    for i in range(len(found), -1, -1):
        for j in range(len(spec), -1, -1):
            options: list[tuple[float, list[tuple[Block | None, Spec | None]]]] = []
            if i < len(found):  # first: of two that fit, the earlier one is too many
                cost, rest = best[i + 1, j]
                options.append((cost + 1, [(found[i], None), *rest]))
            if i < len(found) and j < len(spec):
                cost, rest = best[i + 1, j + 1]
                options.append((cost + _cost(found[i], spec[j]), [(found[i], spec[j]), *rest]))
            if j < len(spec):
                cost, rest = best[i, j + 1]
                options.append((cost + 1, [(None, spec[j]), *rest]))
            best[i, j] = min(options, key=lambda o: o[0]) if options else (0.0, [])
    return best[0, 0][1]


def _compare_layer(block: Block, row: Spec) -> None:
    layer = block.weight
    if row.kind == "linear":
        if row.channels and layer.channels != row.channels:
            raise Wrong(f"{row} gives {layer.channels} numbers.".capitalize(), "wrong-channels")
        return
    size, kernel = (row.resolution,) * 2, (row.kernel,) * 2
    if layer.channels != row.channels:
        raise Wrong(f"Expected {row}, found {layer.channels} channels.", "wrong-channels")
    if layer.kernel != kernel:
        seen = "x".join(map(str, layer.kernel[:2]))
        grouped = " in groups" if len(layer.kernel) > 2 else ""
        raise Wrong(
            f"Expected a {row.kernel}x{row.kernel} kernel in {row}, found {seen}{grouped}.",
            "wrong-kernel",
        )
    if size not in block.resolutions:
        seen = "x".join(map(str, block.resolutions[-1]))
        raise Wrong(f"Expected {row}, but yours is at {seen}.", "wrong-resolution")
    if not layer.bias:
        raise Wrong(f"Expected a bias in {row}, found none.", "missing-bias")


def compare_rest(
    before: list[Layer], found: list[Block], spec: list[Spec], training: bool = False
) -> None:
    """Hold norms, activations and all else against the specification; raises `Wrong`.

    training: whether the network was followed in train mode.
    """
    for step in before:
        if step.kind != "crop":
            raise _extra(step, "before the first layer")
    pairs = _align(found, spec)
    for index, (block, row) in enumerate(pairs):
        if block is None or row is None:
            continue
        _compare_following(block, row, [b for b, r in pairs[index + 1 : index + 2] if r is None])
        _compare_statistics(block, row, training)
        if not block.weight.trained:
            raise Wrong(
                f"The weights of {row} are not trained: no optimiser sees them, or they are "
                "frozen.",
                "detached-gradient" if block.weight.frozen else None,
            )


def _compare_following(block: Block, row: Spec, extra: list[Block | None]) -> None:
    """What follows a layer; a layer too many behind it may have taken its norm and activation."""
    rests = [block.after]
    for other in extra:
        if other is not None:
            rests += [other.after, block.after + other.after]
    faults = []
    for after in rests:
        try:
            return _compare_after(Block(block.weight, after), row)
        except Wrong as fault:
            faults.append(fault)
    raise faults[0]


def _compare_statistics(block: Block, row: Spec, training: bool) -> None:
    """Batch norm uses the batch in train mode, and what it has seen before in eval mode."""
    expected = "batch" if training else "running"
    for norm in block.after:
        if norm.statistics and norm.statistics != expected:
            text = f"The batch norm after {row} should use {expected} statistics in this mode."
            raise Wrong(text, "mode-dependent")


def _extra(step: Layer, where: str) -> Wrong:
    slug = "extra-batchnorm" if step.kind == "norm" else "extra-layer"
    return Wrong(f"There is a {step.name} {where}, where the specification has none.", slug)


def _compare_after(block: Block, row: Spec) -> None:
    steps = [s for s in block.after if s.kind != "crop"]
    for step in steps:
        if step.kind not in ("norm", "activation"):
            raise _extra(step, f"after {row}")
    norms = [s for s in steps if s.kind == "norm"]
    for norm in norms if row.norm else ():
        split = block.weight.kind != "linear" and norm.channels not in (0, block.weight.channels)
        if norm.name != "batch norm" or split:
            seen = "an instance norm" if norm.name == "batch norm" else f"a {norm.name}"
            text = f"Expected a batch norm after {row}, found {seen}."
            raise Wrong(text, "missing-batchnorm")
    activations = [s for s in steps if s.kind == "activation"]
    if row.norm and not norms:
        raise Wrong(f"There is no batch norm after {row}.", "missing-batchnorm")
    if len(norms) > row.norm:
        raise _extra(norms[-1], f"after {row}")
    if row.activation and not activations:
        slug = "missing-layer" if row.activation == "sigmoid" else "missing-activation"
        raise Wrong(f"There is no {row.activation} after {row}.", slug)
    if not row.activation and activations:
        raise _extra(activations[0], f"after {row}")
    if activations and [a.name for a in activations] != [row.activation]:
        seen = " and ".join(a.name for a in activations)
        if len(activations) > 1 and row.activation in [a.name for a in activations]:
            raise Wrong(
                f"Expected {row.activation} alone after {row}, found {seen}.", "extra-layer"
            )
        raise Wrong(f"Expected {row.activation} after {row}, found {seen}.", "wrong-activation")
    if norms and activations and steps.index(norms[0]) > steps.index(activations[0]):
        raise Wrong(f"Batch norm belongs before the activation of {row}.", "wrong-order")
