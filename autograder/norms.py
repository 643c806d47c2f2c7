"""Finds batch norms that are spelt out in arithmetic, by what they do to the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from autograder.networks import (
    BATCH_NORMS,
    CONVOLUTIONS,
    OTHER_NORMS,
    PRODUCTS,
    Network,
    Operation,
    perform,
    tensors_of,
)

_LANDMARKS = CONVOLUTIONS | PRODUCTS | BATCH_NORMS | OTHER_NORMS
_MOVES = set(
    """
    view _unsafe_view reshape _reshape_alias permute transpose t squeeze unsqueeze movedim flatten
    unflatten swapaxes
    """.split()
)
_ROUNDING = 1e-3  # relative, of float32 and of the norm's eps
_EPS = 1e-5


@dataclass(frozen=True)
class Norm:
    """A batch norm: the operations it is made of, by index, and the statistics it uses."""

    first: int
    last: int
    channels: int
    statistics: str  # batch or running


@dataclass(frozen=True)
class _Affine:
    """What takes every channel of one tensor to another: scales and shifts, (C,)."""

    scale: Tensor
    shift: Tensor
    spread: Tensor  # of the channels before
    mean: Tensor  # of the channels after

    @property
    def is_shift(self) -> bool:
        """Whether all scales are one."""
        return bool((self.scale - 1).abs().max() < _ROUNDING)


def spelt_out(network: Network, x: Tensor) -> list[Norm]:
    """The batch norms of a network that are no single operation; x as it was traced."""
    found: list[Norm] = []
    starts: list[tuple[int, list[Tensor | None]]] = []  # a layer's result, and its other shapes
    moved: set[int] = set()  # their numbers
    best: Norm | None = None
    other = 0.6 * x.flip(-1)
    runs = zip(_results(network, x, 3.0), _results(network, other, 2.0), strict=True)
    for index, (operation, *made) in enumerate(
        (operation, first, second) for (operation, first), (_, second) in runs
    ):
        if operation.name in _LANDMARKS:
            found += [best] if best else []
            starts, best = [(index, made)], None
            moved = set(tensors_of(operation.out))
            continue
        if operation.name in _MOVES and moved & set(tensors_of(operation.args[:1])):
            moved |= set(tensors_of(operation.out))
            if made[0] is not None and made[0].shape[:1] == x.shape[:1]:  # a row for every image
                starts.append((index, made))
            continue
        for begin, (one, other_one) in starts:
            first, second = _affine(one, made[0]), _affine(other_one, made[1])
            if first is None or second is None:
                continue
            if operation.name in ("add", "add_") and _is_bias(first, second):
                starts, moved = [(index, made)], set(tensors_of(operation.out))
                break
            statistics = _statistics(first, second)
            if statistics:
                best = Norm(begin + 1, index, len(first.scale), statistics)
                break
    return found + ([best] if best else [])


def _results(network: Network, x: Tensor, size: float) -> Iterator[tuple[Operation, Tensor | None]]:
    """Every operation with its first result; those of layers are replaced by drawn numbers.

    size: their standard deviation. Among the small numbers that a network may hold, many a curve,
    a sigmoid say, is as good as a scale and a shift.
    """
    generator = torch.Generator().manual_seed(0)
    tensors = {0: x.clone(), **{k: v.clone() for k, v in network.values.items()}}
    for operation in network.operations:
        perform(operation, tensors)
        number = next(iter(tensors_of(operation.out)), -1)
        made = tensors.get(number)
        if made is not None and operation.name in _LANDMARKS:
            made.normal_(0, size, generator=generator)
        yield operation, None if made is None else made.clone()


def _affine(before: Tensor | None, after: Tensor | None) -> _Affine | None:
    """The scales and shifts, where every channel of one is an affine function of the other's."""
    if before is None or after is None or before.dim() < 2 or after.dim() < 2:
        return None
    if before.shape[:2] != after.shape[:2] or before.numel() != after.numel():
        return None
    a, b = (t.double().transpose(0, 1).reshape(t.shape[1], -1) for t in (before, after))
    if a.shape[1] < 3 or not bool(a.isfinite().all() and b.isfinite().all()):
        return None
    mean_a, mean_b = a.mean(1, keepdim=True), b.mean(1, keepdim=True)
    a, b = a - mean_a, b - mean_b
    spread = a.square().mean(1)
    lively = spread > 1e-12
    if not bool(lively.any()):
        return None
    scale = (a * b).mean(1) / spread.clamp_min(1e-12)
    rest = (b - scale.unsqueeze(1) * a).abs().amax(1)
    if bool((rest > _ROUNDING * (b.abs().amax(1) + _EPS))[lively].any()):
        return None
    shift = mean_b.squeeze(1) - scale * mean_a.squeeze(1)
    return _Affine(scale[lively], shift[lively], spread[lively], mean_b.squeeze(1)[lively])


def _same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.allclose(
        first, second, rtol=10 * _ROUNDING, atol=10 * _ROUNDING
    )


def _is_bias(first: _Affine, second: _Affine) -> bool:
    return first.is_shift and second.is_shift and _same(first.shift, second.shift)


def _statistics(first: _Affine, second: _Affine) -> str:
    """Whose statistics a norm uses, from what it did to two batches; empty where it is none."""
    if not bool((first.scale.abs() > _ROUNDING * _ROUNDING).any()):
        return ""  # ones_like and its kind keep nothing of their argument
    if _same(first.scale, second.scale) and _same(first.shift, second.shift):
        uniform = _same(first.scale, first.scale.mean().expand_as(first.scale))
        return "" if uniform and bool((first.shift.abs() < _ROUNDING).all()) else "running"
    normed = [fit.scale * (fit.spread + _EPS).sqrt() for fit in (first, second)]
    return "batch" if _same(*normed) and _same(first.mean, second.mean) else ""
