"""The claimed network: rebuilt on the host from a trace, and confirmed.

A trace is what the worker says of one forward pass. It counts only once the network that the
host builds from it answers fresh inputs as the student's does.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autograder.outcomes import Unchecked

SIZE_LIMIT = 1 << 25  # numbers in any tensor of a rebuilt network
OPERATION_LIMIT = 2_000  # as the worker has it
WRITES_LIMIT = 250_000  # to views, times the views that share their memory
MEMORY_LIMIT = 2 << 30  # bytes that a rebuilt network may take, where the system can tell
WORK_LIMIT = 1 << 37  # multiplications in one of its operations
SECONDS_LIMIT = 10.0  # for one run or reading of it, which takes an honest one a tenth of one
TOLERANCE = 2e-3  # of the largest output: float32, another order of summation, batch norm

CONVOLUTIONS = {"convolution", "_convolution"}
FOLDS = {"im2col", "col2im"}  # a convolution is a product between them
PRODUCTS = {"addmm", "mm", "bmm", "baddbmm", "linear", "matmul", "mv", "addmv", "dot"}
BATCH_NORMS = {
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_functional",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_with_update",
    "_batch_norm_no_update",
    "cudnn_batch_norm",
}
OTHER_NORMS = {"native_group_norm", "native_layer_norm"}
POINTWISE = set(
    """
    leaky_relu leaky_relu_ relu relu_ sigmoid sigmoid_ tanh tanh_ elu elu_ gelu silu softplus
    hardtanh hardtanh_ hardsigmoid hardswish mish prelu _prelu_kernel log_sigmoid_forward celu
    threshold relu6 round floor ceil trunc frac sin cos tan asin acos atan sinh cosh erf erfc exp2
    remainder fmod softshrink hardshrink log2 log10 isnan isinf isfinite add add_ sub sub_ mul mul_
    div div_ rsub neg abs exp expm1 log log1p sqrt rsqrt
    reciprocal pow maximum minimum clamp clamp_ clamp_min clamp_max where gt ge lt le eq ne
    logical_not bitwise_not logical_and bitwise_and logical_or bitwise_or sign square masked_fill
    masked_fill_ heaviside exp_ neg_ pow_ sqrt_ rsqrt_ reciprocal_ square_ abs_ log_ log1p_ expm1_
    clamp_min_ clamp_max clamp_max_ logaddexp logaddexp2 fmax fmin lerp lerp_ addcmul addcmul_
    addcdiv addcdiv_ xlogy xlog1py logit sinc atan2 hypot copysign sgn signbit nan_to_num
    """.split()
)
SHAPES = set(
    """
    view _unsafe_view reshape _reshape_alias permute transpose t squeeze unsqueeze expand clone
    contiguous detach alias slice select split split_with_sizes unbind cat stack copy_ _to_copy
    constant_pad_nd reflection_pad2d replication_pad2d lift_fresh movedim flatten unflatten to
    as_strided narrow lift_fresh_copy repeat unfold squeeze_ unsqueeze_ transpose_ t_ swapaxes
    unsafe_split unsafe_split_with_sizes diagonal
    """.split()
)
_POOLS = set(
    """
    max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d mean
    upsample_nearest2d upsample_bilinear2d _softmax _log_softmax pixel_shuffle sum amax amin std
    var max min norm linalg_vector_norm any all argmax argmin cumsum prod logsumexp roll flip gather
    index_select _local_scalar_dense std_mean pixel_unshuffle channel_shuffle native_channel_shuffle
    slice_scatter select_scatter index_add index_add_ index_fill index_copy convolution_backward
    """.split()
)
# writing to chosen elements: `h[h < 0] *= 0.2`
MASKED = set(
    "index index_put index_put_ masked_select masked_scatter masked_scatter_ nonzero".split()
)
MAKERS = set(
    """
    empty zeros ones full zeros_like ones_like full_like empty_like arange scalar_tensor new_zeros
    new_ones new_full new_empty eye linspace var_mean fill_ zero_ _weight_norm_interface
    """.split()
)
_ALLOWED = (
    CONVOLUTIONS | FOLDS | PRODUCTS | BATCH_NORMS | OTHER_NORMS | POINTWISE | SHAPES | _POOLS
) | (MAKERS | MASKED)
# results that share memory with the first argument, so that a change of one is a change of both
_VIEWS = set(
    """
    view reshape _reshape_alias permute transpose t squeeze unsqueeze expand detach alias slice
    select split split_with_sizes unbind as_strided narrow lift_fresh movedim flatten unflatten to
    contiguous squeeze squeeze_ unsqueeze_ transpose_ t_ unfold diagonal swapaxes
    """.split()
)
_PARAMETERS = ("trained", "frozen")
_RRELU = {"lower": 1 / 8, "upper": 1 / 3, "training": False}  # torch's defaults
_SYMBOLS = {
    str(symbol): symbol
    for symbol in (
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool),
        *(torch.uint8, torch.int32, torch.int64),
        *(torch.contiguous_format, torch.preserve_format, torch.channels_last),
    )
}


class Unconfirmed(Unchecked):
    """A claim that cannot be run, or that answers otherwise than the student's network.

    It is a verdict wherever it comes up: no claim makes the grader fail.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"Your network could not be followed layer by layer: {reason}.")
        self.reason = reason


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
            if flowing & set(tensors_in(operation)):
                flowing |= set(tensors_of(operation.out))
        return self.result in flowing

    def measured(self, x: Tensor) -> Network:
        """The network with the shapes that its tensors have, whatever the claim says of them.

        Raises `Unconfirmed` where the input reaches tensors by ways that the claim does not tell.
        """
        operations: list[Operation] = []
        tensors = {0: x.clone(), **{k: v.clone() for k, v in self.values.items()}}
        flowing, reached = {0}, {_memory(tensors[0])}
        for operation in self.operations:
            args, kwargs = _measured(operation.args, tensors), _measured(operation.kwargs, tensors)
            read = [n for n in tensors_in(operation) if n in tensors]
            perform(operation, tensors)
            made = [n for n in tensors_of(operation.out) if n in tensors]
            if any(n in flowing for n in read):
                flowing |= set(made)
                written = read[:1] if operation.name.endswith("_") else []
                reached |= {_memory(tensors[n]) for n in made + written}
            elif any(_memory(tensors[n]) in reached for n in read):
                raise Unconfirmed("the input takes ways that are not told")
            out = _measured(operation.out, tensors)
            operations.append(Operation(operation.name, operation.overload, args, kwargs, out))
        return replace(self, operations=operations)

    def run(self, x: Tensor) -> Tensor:
        """The network's output for an input of the traced shape; raises `Unconfirmed`."""
        with bounded():
            copies = {k: v.clone() for k, v in self.values.items()}
            return self._execute({0: x.clone(), **copies})

    def gradients(self, x: Tensor, weights: Tensor) -> list[Tensor | None]:
        """The gradient of `(output * weights).sum()` for every parameter."""
        with bounded():
            values = {n: v.clone() for n, v in self.values.items()}
            leaves = {n: values[n].requires_grad_() for n in self.trained}
            copies = {n: leaf.clone() for n, leaf in leaves.items()}  # may be changed in place
            output = self._execute({0: x.clone(), **values, **copies})
            if not output.requires_grad:
                return [None for _ in leaves]
            inputs = list(leaves.values())
            try:
                total = (output * weights).sum()
                return list(torch.autograd.grad(total, inputs, allow_unused=True))
            except Exception as error:  # as in `_execute`
                raise Unconfirmed(f"it has no gradient here: {error}") from error

    @property
    def parameters(self) -> list[int]:
        """The numbers of all parameters."""
        return [*self.trained, *self.frozen]

    def with_values(self, values: dict[int, Tensor]) -> Network:
        """The network with other weights."""
        return replace(self, values={**self.values, **values})

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
        if len(told["operations"]) > OPERATION_LIMIT:  # an honest worker stops there
            raise ValueError("too many operations")
        operations = [_operation(item) for item in told["operations"]]
        values = {int(k): _plain(v) for k, v in told["values"]}
        trained, frozen = ([int(k) for k in told[n] if int(k) in values] for n in _PARAMETERS)
        result = int(told["result"])
        return Network(_contributing(operations, result), values, trained, frozen, result)
    except Exception as error:  # as above
        raise Unconfirmed("the trace has no known form") from error


def as_far_as_it_got(told: dict[str, Any]) -> dict[str, Any]:
    """The trace of a call that raised, with the last that became of its input as the result."""
    result, flowing = 0, {0}
    try:
        for operation in map(_operation, told["operations"]):
            if flowing & set(tensors_in(operation)):
                numbers = tensors_of(operation.out)
                flowing |= set(numbers)
                result = numbers[-1] if numbers else result
    except Exception as error:  # of a claim of no form
        raise Unconfirmed("the trace has no known form") from error
    return {**told, "result": result}


def parameters_told(told: Any) -> dict[int, str]:
    """The names of the module's parameters and buffers in a trace, by number."""
    listed = told.get("names") if isinstance(told, dict) else None
    items = listed if isinstance(listed, list) else []
    pairs = [p for p in items if isinstance(p, list) and len(p) == 2]
    return {n: name for n, name in pairs if type(n) is int and isinstance(name, str)}


def names_told(told: Any) -> set[str]:
    """The names of the operations in a trace, whatever else it holds."""
    listed = told.get("operations") if isinstance(told, dict) else None
    items = listed if isinstance(listed, list) else []
    return {str(item.get("op", "")) for item in items if isinstance(item, dict)}


class _Memories:
    """Which tensors of a trace share memory, as far as its views tell."""

    def __init__(self) -> None:
        self.bases: dict[int, int] = {}  # of a view: the tensor that it shares memory with
        self.families: dict[int, list[int]] = {}  # of a base: it and its views

    def base(self, number: int) -> int:
        """The tensor whose memory it is."""
        way = []
        while number in self.bases:
            way.append(number)
            number = self.bases[number]
        self.bases.update(dict.fromkeys(way, number))  # so that long chains are gone along once
        return number

    def note(self, operation: Operation) -> None:
        """Take in a view."""
        inputs = tensors_of(operation.args)
        if operation.name not in _VIEWS or not inputs:
            return
        for number in tensors_of(operation.out):
            old, new = self.base(number), self.base(inputs[0])
            if old != new:
                self.bases[old] = new
                family = self.families.setdefault(new, [new])
                family += self.families.pop(old, [old])

    def sharing(self, number: int) -> list[int]:
        """It, and whatever shares its memory."""
        return self.families.get(self.base(number), [number])


def _contributing(operations: list[Operation], result: int) -> list[Operation]:
    """The operations that the result rests on: not those of prints, checks and statistics."""
    memories = _Memories()
    for operation in operations:
        memories.note(operation)
    live, kept = {memories.base(result)}, list[Operation]()
    for operation in reversed(operations):
        if any(memories.base(number) in live for number in tensors_of(operation.out)):
            kept.append(operation)
            live |= {memories.base(number) for number in tensors_in(operation)}
    return _with_all_results(kept[::-1])


def _with_all_results(operations: list[Operation]) -> list[Operation]:
    """Operations with all that they change: a write to a view is one to what it is a view of."""
    memories, told, count = _Memories(), list[Operation](), 0
    for operation in operations:
        memories.note(operation)
        out = operation.out
        if operation.name.endswith("_") and operation.name not in _VIEWS:
            written = tensors_of(operation.args)[:1]
            own = set(tensors_of(out))
            others = [n for w in written for n in memories.sharing(w) if n not in own]
            count += len(others)
            if count > WRITES_LIMIT:
                raise ValueError("too many writes to views")
            if others:
                out = [out, *({"tensor": n} for n in others)]
        told.append(replace(operation, out=out))
    return told


def _plain(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError("a value is no tensor")
    return value.as_subclass(Tensor)


def _operation(item: Any) -> Operation:
    name, _, overload = str(item["op"]).removeprefix("aten.").partition(".")
    if not isinstance(item["args"], list) or not isinstance(item["kwargs"], dict):
        raise TypeError("an operation has no arguments")
    made = Operation(name, overload or "default", item["args"], item["kwargs"], item["out"])
    return _without_chance(made) if name.startswith("rrelu_with_noise") else made


def _without_chance(operation: Operation) -> Operation:
    """A randomised LeakyReLU as the plain one that it is where no slope is drawn."""
    given = dict(zip(("lower", "upper", "training"), operation.args[2:5], strict=False))
    low, high, training = ({**given, **operation.kwargs}.get(n, d) for n, d in _RRELU.items())
    if operation.overload != "default" or (training is True and low != high):
        return operation
    name = "leaky_relu_" if operation.name.endswith("_") else "leaky_relu"
    slope = (float(low) + float(high)) / 2
    return Operation(name, "default", [operation.args[0], slope], {}, operation.out)


def cuts_off_fractions(operation: Operation) -> bool:
    """Whether it turns numbers into integers or truth values, as `x.long()` does."""
    kind = operation.kwargs.get("dtype")
    dtype = _SYMBOLS.get(str(kind.get("symbol"))) if isinstance(kind, dict) else None
    plain = isinstance(dtype, torch.dtype) and not dtype.is_floating_point
    return operation.name == "_to_copy" and plain


def perform(operation: Operation, tensors: dict[int, Tensor]) -> None:
    """Run one operation on the host and bind its results."""
    if operation.name not in _ALLOWED:
        raise RuntimeError("not among the operations of a network")
    if time.monotonic() > _ends[-1]:
        raise RuntimeError(f"its operations take more than {SECONDS_LIMIT:g} seconds")
    packet = getattr(torch.ops.aten, operation.name)
    if operation.overload not in packet.overloads():
        raise RuntimeError("no such overload")
    function = getattr(packet, operation.overload)
    if not _writes_as_told(operation.name, function):
        raise RuntimeError("it writes where nobody would look")
    args = [_argument(a, tensors) for a in operation.args]
    if _size_bound(operation.name, args) > SIZE_LIMIT:
        raise RuntimeError("a tensor would be too large")
    if _work_bound(operation.name, args) > WORK_LIMIT:
        raise RuntimeError("it would take too long")
    named = {k: _argument(v, tensors) for k, v in operation.kwargs.items()}
    if "device" in named:
        named["device"] = torch.device("cpu")
    named = {k: v for k, v in named.items() if k not in ("layout", "pin_memory")}
    if operation.name in BATCH_NORMS:
        _check_batch_norm([*args, *named.values()])
        args = [args[0], *(a.clone() if isinstance(a, Tensor) else a for a in args[1:])]
    if operation.name == "heaviside":  # torch knows no derivative, not even that it is none
        args = [a.detach() if isinstance(a, Tensor) else a for a in args]
    if operation.name == "detach":  # what a cut gradient would be if it were whole
        function = torch.ops.aten.alias.default
    _bind(operation.out, function(*args, **named), tensors)


def _writes_as_told(name: str, function: Any) -> bool:
    """Whether an operation changes its first argument at most, and says so by its name.

    Batch norm changes its statistics, too: copies of them.
    """
    written = [
        index
        for index, argument in enumerate(function._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return not written or name in BATCH_NORMS or (written == [0] and name.endswith("_"))


def _work_bound(name: str, args: list[Any]) -> int:
    """An upper bound on the multiplications of an operation, 0 where they are few."""
    shapes = [tuple(a.shape) for a in args if isinstance(a, Tensor)]
    if name in PRODUCTS:
        return _size_bound(name, args) * max((shape[-1] for shape in shapes if shape), default=1)
    if name in CONVOLUTIONS and len(shapes) > 1:
        return _size_bound(name, args) * math.prod(shapes[1][1:])
    return 0


_ends = [math.inf]  # when the blocks that are bounded have to be over


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Bound the time and the memory of all that a block computes from a claim, taken together."""
    _ends.append(min(_ends[-1], time.monotonic() + SECONDS_LIMIT))
    try:
        with _bounded_memory():
            yield
    finally:
        _ends.pop()


@contextlib.contextmanager
def _bounded_memory() -> Iterator[None]:
    """Let memory run out early in a block that does what a worker says: an error, not an end."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError, ValueError):  # no Linux
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + MEMORY_LIMIT
    if before[0] == resource.RLIM_INFINITY or limit < before[0]:
        resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _size_bound(name: str, args: list[Any]) -> int:
    """An upper bound on the numbers in an operation's result: its arguments are not trusted."""
    shapes = [tuple(a.shape) for a in args if isinstance(a, Tensor)]
    if name in MASKED:
        chosen = [i.numel() for a in args[1:2] if isinstance(a, list) for i in a if i is not None]
        width = max(chosen, default=1) if name == "index" else args[0].dim()
        return int(args[0].numel()) * (
            1 if _is_mask(args) or name.startswith("index_put") else width
        )
    if name in PRODUCTS:
        rows = [math.prod(shape[:-1]) for shape in shapes]
        return max(rows, default=0) * max((shape[-1] for shape in shapes if shape), default=0)
    if name in CONVOLUTIONS:
        sizes = [n for a in args[3:8] if isinstance(a, list) for n in a if isinstance(n, int)]
        reach = max((abs(n) for n in sizes), default=1)
        image, weight = shapes[0], shapes[1]
        sides = [
            (n + 3) * max(reach, 1) * (k + 2) for n, k in zip(image[2:], weight[2:], strict=True)
        ]
        return image[0] * max(weight[:2]) * math.prod(sides) // 64
    if name == "im2col":
        padded = [n + 2 * pad for n, pad in zip(shapes[0][-2:], args[3], strict=True)]
        return math.prod([*shapes[0][:2], *args[1], *padded])
    asked = [n for a in args if isinstance(a, list) for n in a if isinstance(n, int) and n > 0]
    if name in MAKERS | _POOLS | {"constant_pad_nd", "expand", "repeat"} and asked:
        widest = max(map(math.prod, shapes), default=1)
        return math.prod(asked) * (widest if name in ("constant_pad_nd", "repeat") else 1)
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
        if type(item.get("tensor")) is int:  # 1.0 would be found, but not followed
            return tensors[item["tensor"]]
        return _SYMBOLS.get(str(item.get("symbol")))
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


def _memory(tensor: Tensor) -> int:
    """What the views of one tensor have in common."""
    found: int = tensor.untyped_storage()._cdata
    return found


def _measured(item: Any, tensors: dict[int, Tensor]) -> Any:
    """An argument or result with the shapes of its tensors."""
    if isinstance(item, list):
        return [_measured(part, tensors) for part in item]
    if isinstance(item, dict) and "tensor" not in item:
        return {k: _measured(v, tensors) for k, v in item.items()}
    if isinstance(item, dict):
        found = tensors.get(item["tensor"]) if type(item["tensor"]) is int else None
        return item if found is None else {**item, "shape": list(found.shape)}
    return item


def tensors_in(operation: Operation) -> list[int]:
    """The tensors that an operation reads, by number."""
    return tensors_of(operation.args) + tensors_of(list(operation.kwargs.values()))


def tensors_of(item: Any) -> list[int]:
    """The tensors in an argument or result, by number."""
    if isinstance(item, list):
        return [number for part in item for number in tensors_of(part)]
    if isinstance(item, dict) and type(item.get("tensor")) is int:
        return [item["tensor"]]
    return []


def agree(ours: Tensor, theirs: Any) -> bool:
    """Whether two outputs are equal up to rounding."""
    if not isinstance(theirs, Tensor) or ours.shape != theirs.shape:
        return False
    ours, theirs = ours.detach().double(), theirs.detach().double()
    scale = max(float(ours.abs().max()), 1e-6) if ours.numel() else 1.0
    return bool(((ours - theirs).abs() <= TOLERANCE * scale).all())
