"""Reads a confirmed network as layers by what its operations do together, however they are spelt.

A convolution may be a sum over windows, a product of patches or two halves side by side. What
stands between two points of a network is one layer with weights if it is affine in its input,
row by row; if twice the weights give twice the result, which two layers in a row do not; and if
there are just as many weights as such a layer has. This is asked where the operations, read one
by one, are not those of the specification.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from autograder.layers import Layer, batch_norm, named_function, norm_layer, reads_as_crop
from autograder.networks import (
    BATCH_NORMS,
    OTHER_NORMS,
    Network,
    Unconfirmed,
    bounded,
    perform,
    tensors_in,
    tensors_of,
)
from autograder.norms import spelt_out

_LONGEST = 200  # operations that are taken for one layer
_PIXELS = 256  # of an image whose layer is looked at pixel by pixel
_CLOSE = 1e-3  # relative to the largest number


def read(network: Network, x: Tensor) -> list[Layer]:
    """The steps through which the input goes, as `layers.read` tells them.

    x: an input of the traced shape. Raises `Unconfirmed` where a step is none that is known.
    """
    try:
        with bounded():
            return _Reader(network.measured(x), x).read()
    except Unconfirmed:
        raise
    except Exception as error:  # a claim may be any nonsense
        raise Unconfirmed(f"its operations have no known effect: {error}") from error


@dataclass(frozen=True)
class _Stretch:
    """Operations in a row that take one tensor to another; `weights` are numbers that enter."""

    apply: Callable[[Tensor, float], Tensor]  # of an input, with the weights times a factor
    weights: list[int]
    numbers: int  # in all of the weights
    before: Tensor
    after: Tensor


class _Reader:
    """One reading: the values of all tensors, and where the input goes."""

    def __init__(self, network: Network, x: Tensor) -> None:
        self.network, self.operations = network, network.operations
        self.generator = torch.Generator().manual_seed(0)
        self.learned, self.fixed, flowing = set(network.trained), set(network.frozen), {0}
        self.path: list[int] = []  # indices of the operations through which the input goes
        self.values = {0: x.clone(), **{k: v.clone() for k, v in network.values.items()}}
        read = {network.result} | {n for o in self.operations for n in tensors_in(o)}
        for index, operation in enumerate(self.operations):
            perform(operation, self.values)
            inputs, outputs = tensors_in(operation), tensors_of(operation.out)
            if flowing & set(inputs):
                flowing |= set(outputs)
                if operation.name not in ("detach", "alias") or set(outputs) & read:
                    self.path.append(index)
            for known in (self.learned, self.fixed):
                if known & set(inputs) and not flowing & set(inputs):
                    known |= set(outputs)
        self.norms = spelt_out(network, x)
        self.found: list[Layer] = []

    def read(self) -> list[Layer]:
        position, current = 0, 0
        shape = self.values[0].shape
        while position < len(self.path):
            for end in range(position, min(position + _LONGEST, len(self.path))):
                made = self._end_of(position, end, current)
                if made is None or not self._known(position, end, current, made, shape):
                    continue
                shape = self._shape(end, made)
                position, current = end + 1, made
                break
            else:
                name = self.operations[self.path[position]].name
                raise Unconfirmed(f"{name} begins no layer that is known")
        if current != self.network.result:
            raise Unconfirmed("the result is not what the input becomes")
        return self.found

    def _shape(self, end: int, number: int) -> torch.Size:
        """The shape of a tensor as an operation made it: some are changed in place later."""
        outputs = [self.operations[self.path[end]].out]
        while outputs:
            item = outputs.pop()
            if isinstance(item, list):
                outputs += item
            elif isinstance(item, dict) and item.get("tensor") == number and "shape" in item:
                return torch.Size(item["shape"])
        return self.values[number].shape

    def _end_of(self, start: int, end: int, current: int) -> int | None:
        """The only tensor of these operations that is used later, if there is only one."""
        made = {current}
        for place in range(start, end + 1):
            made |= set(tensors_of(self.operations[self.path[place]].out))
        later = {n for place in self.path[end + 1 :] for n in tensors_in(self.operations[place])}
        used = made & (later | {self.network.result})
        last = set(tensors_of(self.operations[self.path[end]].out))
        return next(iter(used)) if len(used) == 1 and used <= last else None

    def _known(self, start: int, end: int, current: int, made: int, shape: torch.Size) -> bool:
        """Whether these operations are a layer, or leave no trace; a layer is written down."""
        first, last = self.path[start], self.path[end]
        operation = self.operations[last]
        if start == end and operation.name in BATCH_NORMS | OTHER_NORMS:
            self.found.append(norm_layer(operation))
            return True
        for norm in self.norms:
            if norm.first <= first <= norm.last:
                if last == norm.last:
                    self.found.append(batch_norm(norm.channels, norm.statistics))
                return last == norm.last
            if norm.first <= last <= norm.last:
                return False
        stretch = self._stretch(start, end, current, made, shape)
        crop = reads_as_crop(operation) if start == end else None
        if crop is not None and crop.resolution and shape[:2] == stretch.after.shape[:2]:
            self.found.append(crop)
            return True
        if not stretch.weights:
            return self._is_function(stretch)
        return self._belongs_to_last(stretch) or self._is_layer(stretch)

    def _stretch(
        self, start: int, end: int, current: int, made: int, shape: torch.Size
    ) -> _Stretch:
        steps = [self.operations[self.path[place]] for place in range(start, end + 1)]
        inside, entering = {current}, dict[int, None]()
        for operation in steps:
            entering |= dict.fromkeys(n for n in tensors_in(operation) if n not in inside)
            inside |= set(tensors_of(operation.out))
        weights = [n for n in entering if n in self.learned | self.fixed]

        def apply(x: Tensor, factor: float) -> Tensor:
            tensors = {n: self.values[n].clone() for n in entering}
            for n in weights:
                tensors[n] = tensors[n] * factor
            tensors[current] = x.clone()
            for operation in steps:
                perform(operation, tensors)
            return tensors[made]

        before = self._draw(shape)
        numbers = sum(self.values[n].numel() for n in weights)
        return _Stretch(apply, weights, numbers, before, apply(before, 1.0))

    def _draw(self, shape: torch.Size) -> Tensor:
        return torch.empty(shape).normal_(0, 2, generator=self.generator)

    def _is_function(self, stretch: _Stretch) -> bool:
        """A reshape, or an activation that has a name.

        Images stay images: what they are reshaped to is part of the layer that follows.
        """
        before, after = stretch.before, stretch.after
        if before.numel() != after.numel():
            return False
        if before.shape != after.shape and set(before.shape[2:]) - {1}:
            return False
        name = named_function(before.double().flatten(), after.double().flatten())
        if name and name != "identity":
            self.found.append(Layer("activation", name=name))
        return bool(name)

    def _belongs_to_last(self, stretch: _Stretch) -> bool:
        """The bias of the last layer, or scale and shift of the last norm, spelt out."""
        last = self.found[-1] if self.found else None
        if last is None or stretch.before.shape != stretch.after.shape:
            return False
        constant, rows = stretch.apply(torch.zeros_like(stretch.before), 1.0), stretch.after
        if not _same_everywhere(constant):
            return False
        if last.kind == "norm":
            ones = stretch.apply(torch.ones_like(stretch.before), 1.0)
            return _close(rows, constant + stretch.before * (ones - constant))
        if last.kind in ("linear", "conv", "transposed") and _close(
            rows, stretch.before + constant
        ):
            last.bias = True
            return True
        return False

    def _is_layer(self, stretch: _Stretch) -> bool:
        """A convolution, a transposed one, or a linear layer; see the module."""
        before, after, apply = stretch.before, stretch.after, stretch.apply
        if before.shape[0] != after.shape[0] or before.dim() < 2 or after.dim() < 2:
            return False
        other, nothing = self._draw(before.shape), torch.zeros_like(before)
        constant = apply(nothing, 1.0)
        mixed = apply(0.5 * before - 2 * other, 1.0)
        parts = 0.5 * (after - constant) - 2 * (apply(other, 1.0) - constant) + constant
        if not (_close(mixed, parts) and _close(apply(before, 2.0), 2 * after)):
            return False
        single = torch.cat([before[:1], other[1:]])
        if not _close(apply(single, 1.0)[:1], after[:1]) or not _same_everywhere(constant):
            return False
        layer = self._linear(stretch) or self._convolution(stretch, constant)
        if layer is None:
            return False
        layer.bias = bool(constant.abs().max() > 0)
        layer.trained = bool(self.learned & set(stretch.weights))
        layer.frozen = bool(self.fixed & set(stretch.weights))
        layer.weight = max(stretch.weights, key=lambda n: self.values[n].numel())
        self.found.append(layer)
        return True

    @staticmethod
    def _linear(stretch: _Stretch) -> Layer | None:
        before, after = stretch.before, stretch.after
        if {*before.shape[2:], *after.shape[2:]} - {1}:
            return None
        inputs, outputs = before.shape[1], after.shape[1]
        if not _as_many(stretch.numbers, inputs * outputs, outputs):
            return None
        return Layer("linear", outputs)

    def _convolution(self, stretch: _Stretch, constant: Tensor) -> Layer | None:
        before, after = stretch.before, stretch.after
        if before.dim() != 4 or after.dim() != 4:
            return None
        grows = after.shape[2] > before.shape[2]
        if math.prod((before if grows else after).shape[2:]) > _PIXELS:
            return None
        kernel = self._spread(stretch, constant) if grows else _field(stretch)
        channels = after.shape[1]
        if not _as_many(stretch.numbers, channels * before.shape[1] * math.prod(kernel), channels):
            return None
        kind = "transposed" if grows else "conv"
        return Layer(kind, channels, kernel, tuple(after.shape[2:]))

    def _spread(self, stretch: _Stretch, constant: Tensor) -> tuple[int, int]:
        """Height and width of what a single pixel of the input reaches, at most."""
        batch, channels, height, width = stretch.before.shape
        pixels = [(i, j) for i in range(height) for j in range(width)]
        sides = [(0, 0)]
        for first in range(0, len(pixels), batch):
            lit = torch.zeros_like(stretch.before)
            for row, (i, j) in enumerate(pixels[first : first + batch]):
                lit[row, :, i, j] = self._draw(torch.Size([channels]))
            sides += map(_box, (stretch.apply(lit, 1.0) - constant).abs().sum(1))
        return max(h for h, _ in sides), max(w for _, w in sides)


def _field(stretch: _Stretch) -> tuple[int, int]:
    """Height and width of what a single pixel of the output is made of, at most."""
    x = stretch.before.clone().requires_grad_()
    made = stretch.apply(x, 1.0)[0]
    sides = [(0, 0)]
    for i in range(made.shape[1]):
        for j in range(made.shape[2]):
            (gradient,) = torch.autograd.grad(made[:, i, j].sum(), x, retain_graph=True)
            sides.append(_box(gradient[0].abs().sum(0)))
    return max(h for h, _ in sides), max(w for _, w in sides)


def _box(image: Tensor) -> tuple[int, int]:
    """Height and width of the part of an image that is not zero; rounding is."""
    lit = image > 1e-6 * image.max()
    rows, columns = lit.any(1).nonzero(), lit.any(0).nonzero()
    if not len(rows):
        return 0, 0
    return int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1


def _as_many(numbers: int, weights: int, outputs: int) -> bool:
    """Whether there are as many numbers as weights and, it may be, one or two biases."""
    return numbers - weights in (0, outputs, 2 * outputs)


def _close(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    scale = float(second.abs().max())
    return bool(((first - second).abs() <= _CLOSE * scale).all())


def _same_everywhere(constant: Tensor) -> bool:
    """Whether a batch holds one number a channel, (B, C, ...)."""
    first = constant[:1].flatten(2)[..., :1] if constant.dim() > 2 else constant[:1]
    shape = (*first.shape[:2], *[1] * (constant.dim() - 2))
    return _close(constant, first.reshape(shape).expand_as(constant))
