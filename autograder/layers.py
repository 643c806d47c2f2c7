"""Reads a confirmed network as layers: convolutions, norms, activations, and whatever else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from autograder.networks import (
    BATCH_NORMS,
    CONVOLUTIONS,
    MAKERS,
    MASKED,
    OTHER_NORMS,
    POINTWISE,
    PRODUCTS,
    SHAPES,
    Network,
    Operation,
    Unconfirmed,
    bounded,
    cuts_off_fractions,
    perform,
    tensors_in,
    tensors_of,
)
from autograder.norms import spelt_out

_ELEMENTWISE = POINTWISE | MASKED
_REDUCTIONS = ("mean", "sum", "amax", "max", "avg_pool2d", "max_pool2d_with_indices")


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
    statistics: str = ""  # of a batch norm: batch, running or still
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


def read(network: Network, x: Tensor) -> list[Layer]:
    """The steps through which the input goes, in order; reshapes and pads leave no trace.

    x: an input of the traced shape. Raises `Unconfirmed` where the operations have no known form.
    """
    try:
        with bounded():
            return _read(network.measured(x), x)
    except Exception as error:  # as above
        raise Unconfirmed(f"its operations have no known form: {error}") from error


def _read(network: Network, x: Tensor) -> list[Layer]:
    flowing, learned, found = {0}, set(network.trained), list[Layer]()
    fixed = set(network.frozen)
    pending: list[Operation] = []
    norms = spelt_out(network, x)
    unfolded: Operation | None = None
    for index, operation in enumerate(network.operations):
        inputs = tensors_in(operation)
        outputs = tensors_of(operation.out)
        if not any(number in flowing for number in inputs):
            for known in (learned, fixed):
                if any(number in known for number in inputs):
                    known |= set(outputs)
            continue
        flowing |= set(outputs)
        norm = next((norm for norm in norms if norm.first <= index <= norm.last), None)
        if norm is not None:
            if index == norm.last:
                found += _pointwise(pending, network, x, learned)
                pending = []
                found.append(batch_norm(norm.channels, norm.statistics))
            continue
        if not pending and _is_affine(operation, found, flowing, learned):
            continue
        if cuts_off_fractions(operation):
            pending.append(operation)
            continue
        if operation.name in _ELEMENTWISE and not _is_bias(operation, found, flowing, learned):
            pending.append(operation)
            continue
        if operation.name in SHAPES and pending and not _closes(operation, pending):
            pending.append(operation)
            continue
        if operation.name not in _ELEMENTWISE | MAKERS | {"detach", "alias"}:
            found += _pointwise(pending, network, x, learned)
            pending = []
        if operation.name == "im2col":
            unfolded = operation
            continue
        if operation.name == "col2im":
            found += _folded(operation, found)
            continue
        made = _layer(operation, network, flowing)
        if unfolded is not None and made and made[0].kind == "linear":
            made = [_unfolded_convolution(unfolded, operation, flowing)]
            unfolded = None
        for layer in made:
            layer.trained = any(number in learned for number in inputs)
            layer.frozen = any(number in fixed for number in inputs)
            layer.weight = next((n for n in inputs if n not in flowing), -1)
            a_weight = layer.trained or layer.frozen
            if a_weight and operation.name in CONVOLUTIONS and layer.bias:  # a constant is none
                layer.bias = bool((learned | fixed) & set(tensors_of(operation.args[2:3])))
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
    return set(tensors_in(operation)) <= set(tensors_of(pending[-1].out))


def _shape(item: Any) -> tuple[int, ...]:
    if isinstance(item, list) and item:
        item = item[0]
    shape = item.get("shape") if isinstance(item, dict) else None
    return tuple(shape) if isinstance(shape, list) else ()


def _is_affine(
    operation: Operation, found: list[Layer], flowing: set[int], learned: set[int]
) -> bool:
    """Whether this scales or shifts a norm by weights that are trained: its own, spelt out."""
    others = [n for n in tensors_in(operation) if n not in flowing]
    return (
        operation.name in ("mul", "mul_", "add", "add_")
        and bool(found)
        and found[-1].kind == "norm"
        and len(others) == 1
        and others[0] in learned
    )


def _is_bias(
    operation: Operation, found: list[Layer], flowing: set[int], learned: set[int]
) -> bool:
    """Whether this adds weights to a product or convolution, for every channel: its bias."""
    if operation.name not in ("add", "add_") or not found:
        return False
    last = found[-1]
    added = [a for a in operation.args if tensors_of(a) and not flowing & set(tensors_of(a))]
    if len(added) != 1 or last.kind not in ("linear", "conv", "transposed"):
        return False
    numbers = math.prod(_shape(added[0]))
    if not learned & set(tensors_of(added[0])) or numbers == 0 or numbers % last.channels:
        return False
    last.bias = True
    return True


def _layer(operation: Operation, network: Network, flowing: set[int]) -> list[Layer]:
    name, shape = operation.name, _shape(operation.out)
    if name in CONVOLUTIONS:
        return [_convolution(operation, network, shape)]
    if name in PRODUCTS:
        if len([n for n in tensors_in(operation) if n in flowing]) > 1:
            return [Layer("product", name=name)]
        return [Layer("linear", channels=shape[-1] if shape else 0, bias=name != "mm")]
    if name in BATCH_NORMS | OTHER_NORMS:
        return [norm_layer(operation, network.values)]
    if name in ("_softmax", "_log_softmax"):
        return [Layer("activation", name=name.strip("_").replace("_", " "))]
    if (crop := reads_as_crop(operation)) is not None:
        return [crop] if crop.resolution else []
    if name in POINTWISE | MAKERS:
        return []
    source = _shape(operation.args[0]) if operation.args else ()
    resizes = name.startswith(("_adaptive", "adaptive", "upsample"))
    pools = resizes or name in _REDUCTIONS
    if pools and (set(source[2:]) == {1} or (resizes and source == shape)):
        return []  # a pool over a single pixel
    resolution = shape[2:] if len(shape) == 4 else ()
    name = name.strip("_").removesuffix("_with_indices").replace("_", " ")
    return [Layer("other", resolution=resolution, name=name)]


def reads_as_crop(operation: Operation) -> Layer | None:
    """A crop or a pad of images; one without a resolution for any other reshape."""
    if operation.name not in SHAPES:
        return None
    shape = _shape(operation.out)
    crops = operation.name in ("slice", "narrow", "constant_pad_nd") and len(shape) == 4
    return Layer("crop", resolution=shape[2:] if crops else ())


def norm_layer(operation: Operation, values: Mapping[int, Tensor]) -> Layer:
    """A batch norm, or the instance norm that torch makes of one; or one of another kind.

    values: of weights and statistics, by number.
    """
    shape = _shape(operation.out)
    if operation.name in OTHER_NORMS:
        kind = operation.name.removeprefix("native_").replace("_", " ")
        return Layer("norm", resolution=shape[2:], name=kind)
    training = {
        "_batch_norm_with_update": True,
        "_batch_norm_no_update": False,
        "_native_batch_norm_legit_no_training": False,
    }.get(operation.name)
    if training is None:
        training = next((a for a in operation.args[3:6] if isinstance(a, bool)), False)
    channels = shape[1] if len(shape) > 1 else 0
    if training:
        return batch_norm(channels, "batch")
    mean, var = ([values[n] for n in tensors_of([a]) if n in values] for a in operation.args[3:5])
    moved = any(bool(m.any()) for m in mean) or any(bool((v != 1).any()) for v in var)
    return batch_norm(channels, "running" if moved or not mean else "still")


def batch_norm(channels: int, statistics: str) -> Layer:
    """A batch norm; statistics: batch, running, or still: running ones that are as at first."""
    return Layer("norm", channels, name="batch norm", statistics=statistics)


def _convolution(operation: Operation, network: Network, shape: tuple[int, ...]) -> Layer:
    arguments = operation.args
    size = _shape(arguments[1])
    transposed = len(arguments) > 6 and arguments[6] is True
    groups = arguments[8] if len(arguments) > 8 and isinstance(arguments[8], int) else 1
    source = _shape(arguments[0])
    kernel = size[2:] if groups == 1 else (*size[2:], groups)
    bias = len(arguments) > 2 and bool(tensors_of(arguments[2:3]))
    channels = shape[1] if len(shape) > 1 else 0
    if set(kernel) == {1} and set(source[2:]) == {1} and set(shape[2:]) == {1}:
        return Layer("linear", channels, bias=bias)
    kind = "transposed" if transposed else "conv"
    return Layer(kind, channels, kernel, shape[2:], bias)


def _unfolded_convolution(unfolded: Operation, product: Operation, flowing: set[int]) -> Layer:
    """A convolution that is written as a product with the patches of the image."""
    sides = _shape(unfolded.args[0])[-2:]
    kernel, dilation, padding, stride = unfolded.args[1:5]
    resolution = tuple(
        (side + 2 * p - d * (k - 1) - 1) // s + 1
        for side, k, d, p, s in zip(sides, kernel, dilation, padding, stride, strict=True)
    )
    patch = _shape(unfolded.out)[-2]
    weights = [_shape(a) for a in product.args if not flowing & set(tensors_of(a))]
    sizes = [math.prod(shape[-2:]) for shape in weights if patch in shape[-2:]]
    bias = product.name in ("addmm", "baddbmm")
    return Layer("conv", sizes[0] // patch if sizes else 0, tuple(kernel), resolution, bias)


def _folded(operation: Operation, found: list[Layer]) -> list[Layer]:
    """The transposed convolution that a product is whose results are summed where they overlap."""
    shape = _shape(operation.out)
    if not found or found[-1].kind != "linear":
        return [Layer("other", resolution=shape[2:], name="fold")]
    product = found.pop()
    kernel = tuple(operation.args[2])
    made = Layer("transposed", shape[1], kernel, shape[2:], bias=False)
    made.trained, made.frozen, made.weight = product.trained, product.frozen, product.weight
    return [made]


_PROBE = torch.linspace(-2.97, 3.01, 61, dtype=torch.float64)  # no round numbers
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
    if whole is None and not learned & {n for o in operations for n in tensors_in(o)}:
        whole = _name_effect(operations, network, x)
    if whole:
        return [] if whole == "identity" else [Layer("activation", name=whole)]
    single = []
    for operation in operations:
        if cuts_off_fractions(operation):
            single.append(Layer("activation", name="a cast to integers"))
        if operation.name in SHAPES:
            continue
        name = _name_function([operation]) or operation.name.strip("_").replace("_", " ")
        if name != "identity":
            single.append(Layer("activation", name=name))
    return single


def _name_function(operations: list[Operation]) -> str | None:
    """Probe elementwise operations as a function of one number.

    Empty where they are one without a name, None where they are none.
    """
    made = {n for o in operations for n in tensors_of(o.out)}
    source = [n for o in operations for n in tensors_in(o)]
    outside = dict.fromkeys(n for n in source if n not in made or n == source[0])
    if len(outside) != 1:
        return None
    tensors = {next(iter(outside)): _PROBE.clone()}
    try:
        for operation in operations:
            if operation.name not in SHAPES or cuts_off_fractions(operation):
                perform(operation, tensors)
            else:
                tensors[tensors_of(operation.out)[0]] = tensors[tensors_in(operation)[0]]
    except Exception:  # not a function of one number
        return None
    result = tensors.get(next(iter(tensors_of(operations[-1].out)), -1))
    if result is None or result.shape != _PROBE.shape:
        return None
    return named_function(_PROBE, result.double()) or ""


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
            before = [tensors[n].clone() for n in dict.fromkeys(tensors_in(first)) if n in tensors]
        perform(operation, tensors)
        if operation is last and inside:
            break
    after = tensors.get(next(iter(tensors_of(last.out)), -1))
    for candidate in before:
        if after is not None and candidate.shape == after.shape and candidate.is_floating_point():
            name = named_function(candidate.double().flatten(), after.double().flatten())
            if name is not None:
                return name
    return None


def named_function(before: Tensor, after: Tensor) -> str | None:
    """The activation that takes each of these numbers to the other, or "identity".

    None where it is none of those that have a name.
    """
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
        if slope not in (0, 1) and fits:
            return f"LeakyReLU with a slope of {slope:.3g}"
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
