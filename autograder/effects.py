"""Reads a confirmed network as layers by what its operations do together, however they are spelt.

A convolution may be a sum over windows, a product of patches or two halves side by side. What
stands between two points of a network is one layer with weights if it does, to numbers that are
drawn and to those that went through it, what torch's own layer does with a kernel whose numbers
are those of the weights, each once. So a pool, a rescaling or a second layer beside or before it
is no part of it. This is asked where the operations, read one by one, are not those of the
specification.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
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
_STRIDES = range(1, 5)
_CLOSE = 1e-3  # relative to the largest number
_EQUAL = 1e-5  # likewise, of numbers that are copies of one another


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
class _Snapshot:
    """A tensor as it was at some time, with all of the memory that it is a part of.

    memory: a number of that memory. flat: what it held. addresses: where the tensor is in it.
    """

    memory: int
    flat: Tensor
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, tensor: Tensor) -> _Snapshot:
        """One of now."""
        storage = tensor.untyped_storage()
        count = storage.nbytes() // tensor.element_size()
        flat = tensor.as_strided((count,), (1,), 0).clone()
        shape, stride = tuple(tensor.shape), tuple(tensor.stride())
        return cls(storage.data_ptr(), flat, shape, stride, int(tensor.storage_offset()))

    def within(self, flat: Tensor) -> Tensor:
        """The tensor, as a view of memory that holds this."""
        return flat.as_strided(self.shape, self.stride, self.offset)

    @property
    def addresses(self) -> Tensor:
        """Where in its memory the numbers of the tensor are."""
        return self.within(torch.arange(len(self.flat))).flatten()


@dataclass(frozen=True)
class _Stretch:
    """Operations in a row that take one tensor to another.

    apply: to an input, with the weights times a factor. weights: the tensors with weights that
    enter, by number; numbers: all that are in them, each once. pairs: inputs with what became of
    them, first one that is drawn, then the one that went through the network.
    """

    apply: Callable[[Tensor, float], Tensor]
    weights: set[int]
    numbers: Tensor
    pairs: tuple[tuple[Tensor, Tensor], ...]

    @property
    def drawn(self) -> tuple[Tensor, Tensor]:
        """An input that was drawn, and its output."""
        return self.pairs[0]

    def does(self, function: Callable[[Tensor], Tensor]) -> bool:
        """Whether it does to its inputs what a function does."""
        return all(_close(after, function(before)) for before, after in self.pairs)

    def holds(self, *parts: Tensor) -> bool:
        """Whether the numbers of its weights are those of these tensors."""
        flat = torch.cat([part.flatten() for part in parts]).sort().values
        if flat.shape != self.numbers.shape:
            return False
        scale = float(flat.abs().max()) if len(flat) else 0.0
        return bool(((flat - self.numbers.sort().values).abs() <= _EQUAL * scale).all())


class _Reader:
    """One reading: the values of all tensors, and where the input goes."""

    def __init__(self, network: Network, x: Tensor) -> None:
        self.network, self.operations = network, network.operations
        self.generator = torch.Generator().manual_seed(0)
        self.learned, self.fixed, flowing = set(network.trained), set(network.frozen), {0}
        self.path: list[int] = []  # indices of the operations through which the input goes
        # as they were when an operation, by index, made or read them: some are changed later
        self.made: dict[tuple[int, int], Tensor] = {(-1, 0): x.clone()}
        self.entering: dict[tuple[int, int], _Snapshot] = {}
        values = {0: x.clone(), **{k: v.clone() for k, v in network.values.items()}}
        read = {network.result} | {n for o in self.operations for n in tensors_in(o)}
        for index, operation in enumerate(self.operations):
            inputs, outputs = set(tensors_in(operation)), set(tensors_of(operation.out))
            used = inputs | (outputs & set(values))  # what is changed in place, too
            for number in used - flowing if flowing & inputs else ():
                self.entering[index, number] = _Snapshot.of(values[number])
            perform(operation, values)
            if flowing & inputs:
                flowing |= outputs
                if operation.name not in ("detach", "alias") or outputs & read:
                    self.path.append(index)
                    self.made.update({(index, n): values[n].clone() for n in outputs & set(values)})
            else:
                for known in (self.learned, self.fixed):
                    known |= outputs if known & inputs else set()
        self.kept = values  # alive, so that no two tensors have had one place
        self.norms = spelt_out(network, x)
        self.found: list[Layer] = []
        self.reshapes = False  # whether the last step is a reshape

    def read(self) -> list[Layer]:
        position, current, flow = 0, 0, self.made[-1, 0]
        reshaped: tuple[int, int, Tensor] | None = None  # where it was when reshapes began
        while position < len(self.path):
            step = self._step(position, position, current, flow)
            if step is None and reshaped is not None:  # they may be a part of what follows
                start, current, flow = reshaped
                step = self._step(start, position, current, flow)
            if step is None:
                name = self.operations[self.path[position]].name
                raise Unconfirmed(f"{name} begins no layer that is known")
            if not self.reshapes:
                reshaped = None
            elif reshaped is None:
                reshaped = position, current, flow
            position, current = step
            flow = self.made[self.path[position - 1], current]
        if current != self.network.result:
            raise Unconfirmed("the result is not what the input becomes")
        return self.found

    def _step(self, start: int, least: int, current: int, flow: Tensor) -> tuple[int, int] | None:
        """The place after the next layer or reshape, and the tensor that it leaves.

        start: where it begins, and least: where it ends at the earliest.
        """
        self.reshapes = False
        for end in range(least, min(start + _LONGEST, len(self.path))):
            made = self._end_of(start, end, current)
            if made is not None and self._known(start, end, current, made, flow):
                return end + 1, made
        return None

    def _end_of(self, start: int, end: int, current: int) -> int | None:
        """The only tensor of these operations that is used later, if there is only one."""
        made = {current}
        for place in range(start, end + 1):
            made |= set(tensors_of(self.operations[self.path[place]].out))
        later = {n for place in self.path[end + 1 :] for n in tensors_in(self.operations[place])}
        used = made & (later | {self.network.result})
        last = set(tensors_of(self.operations[self.path[end]].out))
        return next(iter(used)) if len(used) == 1 and used <= last else None

    def _known(self, start: int, end: int, current: int, made: int, flow: Tensor) -> bool:
        """Whether these operations are a layer, or leave no trace; a layer is written down."""
        first, last = self.path[start], self.path[end]
        operation = self.operations[last]
        if start == end and operation.name in BATCH_NORMS | OTHER_NORMS:
            self.found.append(norm_layer(operation, self.network.values))
            return True
        for norm in self.norms:
            if norm.first <= first <= norm.last:
                if last == norm.last:
                    self.found.append(batch_norm(norm.channels, norm.statistics))
                return last == norm.last
            if norm.first <= last <= norm.last:
                return False
        crop = reads_as_crop(operation) if start == end else None
        planes = flow.shape[:2] == self.made[last, made].shape[:2]
        if crop is not None and crop.resolution and planes:
            self.found.append(crop)
            return True
        stretch = self._stretch(start, end, current, made, flow)
        if stretch is None:
            return False
        if not stretch.weights:
            return self._is_function(stretch)
        return self._belongs_to_last(stretch) or self._is_layer(stretch)

    def _stretch(
        self, start: int, end: int, current: int, made: int, flow: Tensor
    ) -> _Stretch | None:
        """None where the operations, alone, do not give what they gave in the network."""
        places = self.path[start : end + 1]
        inside, entering = {current}, dict[int, int]()  # numbers, and where they are read first
        for index in places:
            made_here = tensors_of(self.operations[index].out)
            for number in [*tensors_in(self.operations[index]), *made_here]:
                known = number in inside or number in entering
                if not known and (index, number) in self.entering:
                    entering[number] = index
            inside |= set(made_here)
        weights = {n for n in entering if n in self.learned | self.fixed}

        def apply(x: Tensor, factor: float) -> Tensor:
            memories: dict[int, Tensor] = {}
            tensors = {current: x.clone()}
            for number, index in entering.items():
                told = self.entering[index, number]
                if told.memory not in memories:
                    memories[told.memory] = (
                        told.flat * factor if number in weights else told.flat.clone()
                    )
                tensors[number] = told.within(memories[told.memory])
            for index in places:
                perform(self.operations[index], tensors)
            return tensors[made]

        before, seen = self._draw(flow.shape), self.made[places[-1], made]
        if not _close(apply(flow, 1.0), seen):
            return None
        pairs = ((before, apply(before, 1.0)), (flow, seen))
        numbers = _each_once([self.entering[entering[n], n] for n in weights])
        return _Stretch(apply, weights, numbers, pairs)

    def _draw(self, shape: torch.Size) -> Tensor:
        return torch.empty(shape).normal_(0, 2, generator=self.generator)

    def _is_function(self, stretch: _Stretch) -> bool:
        """A reshape, or an activation that has a name.

        Images stay images: what they are reshaped to is part of the layer that follows.
        """
        before, after = stretch.drawn
        if before.numel() != after.numel():
            return False
        if before.shape != after.shape and set(before.shape[2:]) - {1}:
            return False
        shape = tuple(after.shape)
        before, after = (
            torch.cat([t.flatten() for t in ts]) for ts in zip(*stretch.pairs, strict=True)
        )
        name = named_function(before.double(), after.double())
        if name == "identity":
            self.reshapes = True
            self._see_as_images(shape)
        elif name:
            self.found.append(Layer("activation", name=name))
        return bool(name)

    def _see_as_images(self, shape: tuple[int, ...]) -> None:
        """A product without a bias that becomes images is a transposed convolution of one pixel."""
        last = self.found[-1] if self.found else None
        if last is None or last.kind != "linear" or last.bias or len(shape) != 4:
            return
        if last.channels == math.prod(shape[1:]) and set(shape[2:]) != {1}:
            last.kind, last.channels = "transposed", shape[1]
            last.kernel = last.resolution = shape[2:]

    def _belongs_to_last(self, stretch: _Stretch) -> bool:
        """The bias of the last layer, or scale and shift of the last norm, spelt out."""
        last = self.found[-1] if self.found else None
        before, after = stretch.drawn
        if last is None or before.shape != after.shape or not stretch.weights <= self.learned:
            return False
        shift = _by_channel(stretch.apply(torch.zeros_like(before), 1.0))
        if shift is None:
            return False
        wide = shift.reshape(1, -1, *[1] * (before.dim() - 2))
        if last.kind in ("linear", "conv", "transposed"):
            if last.bias or not stretch.does(lambda x: x + wide) or not stretch.holds(shift):
                return False
            last.bias = True
            return True
        sum_ = _by_channel(stretch.apply(torch.ones_like(before), 1.0))
        if last.kind != "norm" or sum_ is None:
            return False
        scale = (sum_ - shift).reshape(wide.shape)
        parts = [p for p, trivial in ((scale, 1), (shift, 0)) if not bool((p == trivial).all())]
        return stretch.does(lambda x: scale * x + wide) and stretch.holds(*parts)

    def _is_layer(self, stretch: _Stretch) -> bool:
        """A convolution, a transposed one, or a linear layer; see the module."""
        before, after = stretch.drawn
        if before.shape[0] != after.shape[0] or before.dim() < 2 or after.dim() < 2:
            return False
        shift = _by_channel(stretch.apply(torch.zeros_like(before), 1.0))
        if shift is None or not _close(stretch.apply(before, 2.0), 2 * after):
            return False
        bias = bool(shift.abs().max() > 0)
        sides = {*before.shape[2:], *after.shape[2:]}
        makers = [self._transposed, self._convolution] if sides - {1} else [self._linear]
        for make in makers:
            made = make(stretch, shift)
            if made is not None and stretch.holds(made[1], *[shift] * bias):
                layer = made[0]
                layer.bias = bias
                layer.trained = stretch.weights <= self.learned
                layer.frozen = bool(self.fixed & stretch.weights)
                layer.weight = max(stretch.weights)
                self.found.append(layer)
                return True
        return False

    def _linear(self, stretch: _Stretch, shift: Tensor) -> tuple[Layer, Tensor] | None:
        x, row = stretch.drawn[0].clone().requires_grad_(), stretch.drawn[1][0]
        if x[0].numel() < row.numel():
            units = torch.eye(x[0].numel()).reshape(-1, *x.shape[1:])
            weight = torch.stack([it.flatten() for it in self._answers(stretch, units)], dim=1)
        else:
            row = stretch.apply(x, 1.0)[0].flatten()
            gradients = (torch.autograd.grad(one, x, retain_graph=True)[0][0] for one in row)
            weight = torch.stack([it.flatten() for it in gradients])

        def linear(x: Tensor) -> Tensor:
            made = F.linear(x.flatten(1), weight, shift)
            return made.reshape(len(x), *stretch.drawn[1].shape[1:])

        return (Layer("linear", len(weight)), weight) if stretch.does(linear) else None

    def _convolution(self, stretch: _Stretch, shift: Tensor) -> tuple[Layer, Tensor] | None:
        before, after = stretch.drawn
        if before.dim() != 4 or after.dim() != 4 or math.prod(after.shape[2:]) > _PIXELS:
            return None
        x = before.clone().requires_grad_()
        made = stretch.apply(x, 1.0)[0]

        def gradient(of: Tensor) -> Tensor:
            return torch.autograd.grad(of, x, retain_graph=True)[0][0]

        places = itertools.product(range(made.shape[1]), range(made.shape[2]))
        boxes = {(i, j): _box(gradient(made[:, i, j].sum()).abs().sum(0)) for i, j in places}
        i, j = max(boxes, key=lambda place: _area(boxes[place]))
        rows, columns = boxes[i, j]
        weight = torch.stack([gradient(one[i, j])[:, rows, columns] for one in made])
        for stride, padding in _fitting(before, after, weight, _shrunk):
            if stretch.does(partial(_convolve, weight, shift, stride, padding)):
                resolution, kernel = tuple(after.shape[2:]), tuple(weight.shape[2:])
                return Layer("conv", len(made), kernel, resolution), weight
        return None

    def _transposed(self, stretch: _Stretch, shift: Tensor) -> tuple[Layer, Tensor] | None:
        before, after = stretch.drawn
        if before.dim() != 4 or after.dim() != 4 or math.prod(before.shape[2:]) > _PIXELS:
            return None
        if after.shape[2] <= before.shape[2]:
            return None
        channels = before.shape[1]
        places = list(itertools.product(range(before.shape[2]), range(before.shape[3])))
        drawn = self._draw(torch.Size([channels]))
        lit = self._lit(before.shape, [(drawn, *place) for place in places])
        answers = self._answers(stretch, lit)
        boxes = [_box(answer.abs().sum(0)) for answer in answers]
        best = max(range(len(places)), key=lambda n: _area(boxes[n]))
        rows, columns = boxes[best]
        lit = self._lit(before.shape, [(unit, *places[best]) for unit in torch.eye(channels)])
        weight = torch.stack([it[:, rows, columns] for it in self._answers(stretch, lit)])
        for rest in range(max(_STRIDES)):
            for stride, padding in _fitting(before, after, weight, partial(_grown, rest)):
                spread = partial(_spread, weight, shift, stride, padding, rest)
                if rest < stride and stretch.does(spread):
                    resolution, kernel = tuple(after.shape[2:]), tuple(weight.shape[2:])
                    return Layer("transposed", after.shape[1], kernel, resolution), weight
        return None

    @staticmethod
    def _lit(shape: torch.Size, pixels: list[tuple[Tensor, int, int]]) -> Tensor:
        """Images in which one pixel each holds these channels."""
        images = torch.zeros(len(pixels), *shape[1:])
        for image, (channels, i, j) in zip(images, pixels, strict=True):
            image[:, i, j] = channels
        return images

    @staticmethod
    def _answers(stretch: _Stretch, given: Tensor) -> list[Tensor]:
        """What becomes of each of these inputs, however many, without the bias."""
        shape = stretch.drawn[0].shape
        nothing = stretch.apply(torch.zeros(shape), 1.0)
        found: list[Tensor] = []
        for part in given.split(shape[0]):
            inputs = torch.zeros(shape)
            inputs[: len(part)] = part
            found += (stretch.apply(inputs, 1.0) - nothing)[: len(part)]
        return found


def _fitting(
    before: Tensor, after: Tensor, weight: Tensor, size: Callable[[int, int, int, int], int]
) -> Iterator[tuple[int, int]]:
    """Strides and paddings that give the output its size; see `_shrunk`."""
    sides = [*zip(before.shape[2:], after.shape[2:], weight.shape[2:], strict=True)]
    most = max((k for _, _, k in sides), default=0)
    for stride, padding in itertools.product(_STRIDES, range(most + 1)):
        if all(size(n, k, stride, padding) == m for n, m, k in sides):
            yield stride, padding


def _shrunk(side: int, kernel: int, stride: int, padding: int) -> int:
    return (side + 2 * padding - kernel) // stride + 1


def _grown(rest: int, side: int, kernel: int, stride: int, padding: int) -> int:
    return (side - 1) * stride - 2 * padding + kernel + rest


def _convolve(weight: Tensor, shift: Tensor, stride: int, padding: int, x: Tensor) -> Tensor:
    return F.conv2d(x, weight, shift, stride, padding)


def _spread(
    weight: Tensor, shift: Tensor, stride: int, padding: int, rest: int, x: Tensor
) -> Tensor:
    return F.conv_transpose2d(x, weight, shift, stride, padding, rest)


def _each_once(told: list[_Snapshot]) -> Tensor:
    """The numbers of tensors, of each memory and address one."""
    memories: dict[int, list[_Snapshot]] = {}
    for snapshot in told:
        memories.setdefault(snapshot.memory, []).append(snapshot)
    found = [torch.empty(0)]
    for parts in memories.values():
        places = torch.cat([part.addresses for part in parts]).unique()
        found.append(parts[0].flat[places].float())
    return torch.cat(found)


def _box(image: Tensor) -> tuple[slice, slice]:
    """The rows and columns of an image that are not zero; rounding is."""
    lit = image > 1e-6 * image.max()
    sides = [axis.nonzero().flatten() for axis in (lit.any(1), lit.any(0))]
    rows, columns = (
        slice(int(side[0]), int(side[-1]) + 1) if len(side) else slice(0, 0) for side in sides
    )
    return rows, columns


def _area(box: tuple[slice, slice]) -> int:
    return math.prod(side.stop - side.start for side in box)


def _close(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    scale = float(second.abs().max()) if second.numel() else 0.0
    return bool(((first - second).abs() <= _CLOSE * scale).all())


def _by_channel(constant: Tensor) -> Tensor | None:
    """The numbers of the channels (C,), where a batch (B, C, ...) holds one for each."""
    if constant.dim() < 2 or not constant.numel():
        return None
    first = constant[0].flatten(1)[:, 0] if constant.dim() > 2 else constant[0]
    wide = first.reshape(1, -1, *[1] * (constant.dim() - 2)).expand_as(constant)
    return first if _close(constant, wide) else None
