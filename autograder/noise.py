"""Is it noise from N(0, I)? Tests with stated false-alarm rates, and the usual wrong answers.

Every bound below holds for N(0, 1) with a probability of at least 1 - ALARM: Dvoretzky-Kiefer-
Wolfowitz with Massart's constant for the distribution, Laurent and Massart (2000) for sums of
squares, Chernoff for means. A verdict makes at most a dozen of these comparisons.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

ALARM = 1e-10
LEAST = 500  # numbers from which the range of a uniform distribution is read off
MOST_ROWS = 500  # of a call; the checks ask for less than a hundred
SAME = 1e-3  # draws closer than this in every number are one draw
_LOG = math.log(2 / ALARM)


def is_normal(sample: Tensor) -> bool:
    """Whether independent numbers may come from N(0, 1); sample: any shape."""
    e = sample.double().flatten()
    n = e.numel()
    if n == 0 or not bool(torch.isfinite(e).all()):
        return False
    if abs(float(e.mean())) > math.sqrt(2 * _LOG / n):
        return False
    if not _is_chi_square(e):
        return False
    cdf = 0.5 * (1 + torch.erf(e.sort().values / math.sqrt(2)))
    return _distance(cdf) <= math.sqrt(_LOG / (2 * n))


def is_uniform(sample: Tensor, low: float, high: float) -> bool:
    """Whether independent numbers may come from U(low, high)."""
    e = sample.double().flatten()
    slack = 1e-3 * (high - low)
    if e.numel() == 0 or not bool(((e >= low - slack) & (e <= high + slack)).all()):
        return False
    cdf = ((e.sort().values - low) / (high - low)).clamp(0, 1)
    return _distance(cdf) <= math.sqrt(_LOG / (2 * e.numel())) + 1e-3


def varies_normally(calls: Tensor) -> bool:
    """Whether each number varies over calls as a shifted and scaled normal one; (calls, ...).

    Compared with normal draws of the same shape, both put on mean 0 and variance 1 over the
    calls. The bound is that of two samples, doubled because standardising ties the draws.
    """
    seen = calls.double().flatten(1)
    moving = seen.std(0) > 1e-9
    if not bool(moving.any()) or not bool(torch.isfinite(seen).all()):
        return False
    seen = seen[:, moving]
    drawn = torch.randn(seen.shape, dtype=seen.dtype, generator=torch.Generator().manual_seed(0))
    ours, theirs = (((c - c.mean(0)) / c.std(0)).flatten().sort().values for c in (drawn, seen))
    n = ours.numel()
    gap = (torch.searchsorted(ours, theirs) - torch.arange(n)).abs().max() / n
    return float(gap) <= 2 * math.sqrt(_LOG / n)


def goes_with(measured: Tensor, drawn: Tensor) -> bool:
    """Whether numbers are correlated with others that the host drew from a uniform distribution.

    Whatever the former are and whoever shares them: sums of the latter with their weights are
    sub-Gaussian, with their own variance as its factor.
    """
    if not bool(torch.isfinite(measured).all()) or not bool(measured.std() > 1e-9):
        return False
    correlation = torch.corrcoef(torch.stack([measured, drawn]))[0, 1]
    return abs(float(correlation)) > math.sqrt(2 * _LOG / len(measured))


def _distance(cdf: Tensor) -> float:
    """Kolmogorov's distance of sorted probabilities from the uniform distribution."""
    n = cdf.numel()
    steps = torch.arange(n + 1, dtype=cdf.dtype) / n
    return float(torch.maximum((cdf - steps[:-1]).max(), (steps[1:] - cdf).max()))


def _is_chi_square(e: Tensor) -> bool:
    n = e.numel()
    excess = float((e * e).mean()) - 1
    return -2 * math.sqrt(_LOG / n) <= excess <= 2 * math.sqrt(_LOG / n) + 2 * _LOG / n


def are_independent(calls: list[Tensor]) -> bool:
    """Whether rows and columns of standard normal draws vary apart; calls: each (B, nz).

    Means along either axis, scaled by the root of the length, are N(0, 1) if they do.
    """
    rows = torch.cat([c.double().mean(1) * math.sqrt(c.shape[1]) for c in calls])
    columns = torch.cat([c.double().mean(0) * math.sqrt(c.shape[0]) for c in calls])
    return _is_chi_square(rows) and _is_chi_square(columns)


def lengths_vary(calls: list[Tensor]) -> bool:
    """Whether rows of standard normal draws are of different lengths; calls: each (B, nz).

    Sums of squares, standardised and squared again, are X >= 0 with E X = 1 and
    E X^2 = 3 + 12 / nz; Maurer (2003) bounds how far below 1 the mean of n of them falls. True of
    draws too few for such a bound.
    """
    width = calls[0].shape[1]
    sums = torch.cat([c.double().square().sum(1) for c in calls])
    spread = float(((sums - width).square() / (2 * width)).mean())
    return spread >= 1 - math.sqrt(2 * (3 + 12 / width) * _LOG / len(sums))


def sharing(calls: list[Tensor]) -> str | None:
    """How draws are shared: frozen, by a whole call, batch or vector, or not at all (None).

    calls: each (B, nz) with B and nz above 1; frozen needs two of one shape.
    """
    pairs = [(a, b) for a, b in itertools.pairwise(calls) if a.shape == b.shape]
    again = [_same(first, second) for first, second in pairs]
    single = all(_same(c[:1, :1].expand_as(c), c) for c in calls)
    if any(again) and (all(again) or not single):  # two single numbers may be close by chance
        return "frozen"
    if single:
        return "call"
    if all(_same(c[:1].expand_as(c), c) for c in calls):
        return "batch"
    if all(_same(c[:, :1].expand_as(c), c) for c in calls):
        return "vector"
    return None


def distinct(calls: list[Tensor], shared: str | None) -> Tensor:
    """The draws without their copies."""
    if shared == "frozen":
        inner = sharing(calls[:1])
        return distinct(calls[:1], inner)
    if shared == "call":
        return torch.stack([c[0, 0] for c in calls])
    if shared == "batch":
        return torch.cat([c[0] for c in calls])
    if shared == "vector":
        return torch.cat([c[:, 0] for c in calls])
    return torch.cat([c.flatten() for c in calls])


def _without_repeats(calls: list[Tensor]) -> Tensor | None:
    """The draws without what all rows share, and without rows and columns that repeat another.

    To be another with the opposite sign is to repeat it.

    None where nothing repeats, or where there are too many rows to compare each with each.
    """
    left, repeats = [], False
    if any(len(call) > MOST_ROWS for call in calls):
        return None
    for call in calls:
        c = call.double()
        shared = (c - c[:1]).abs().amax(0) <= SAME
        rows, columns = _repeating(c), _repeating(c.T) & ~shared
        repeats = repeats or bool((shared | columns).any()) or bool(rows.any())
        left += [c[~rows][:, ~shared & ~columns].flatten(), c[0, shared]]
    return torch.cat(left) if repeats else None


def _repeating(c: Tensor) -> Tensor:
    """Which rows are an earlier one times a number; of less than eight numbers none is."""
    ways = torch.nn.functional.normalize(c, dim=1)
    alike = (ways @ ways.T).abs().triu(1) > 1 - 1e-6
    return alike.any(0) & (c.shape[1] >= 8)


def _same(first: Tensor, second: Tensor) -> bool:
    scale = float(first.abs().max().clamp(min=1.0))
    return bool(((first - second).abs() <= SAME * scale).all())


def kind(calls: list[Tensor]) -> tuple[str | None, str | None]:
    """What the draws are, and how they are shared.

    They are normal, scaled (normal of another variance), shifted (of another mean), uniform
    (of a usual range, or of another), constant, none or unknown (None).
    """
    calls = [c for c in calls if c.numel()]
    if not calls or not all(bool(torch.isfinite(c).all()) for c in calls):
        return None, None
    if all(bool((c.abs() <= SAME).all()) for c in calls):
        return "none", None
    if all(_same(calls[0][:1, :1].expand_as(c), c) for c in calls):
        return "constant", None
    shared = sharing(calls)
    sample = distinct(calls, shared)
    left = None if shared is not None else _without_repeats(calls)
    if is_normal(sample):
        if shared is None and (left is not None or not are_independent(calls)):
            return "normal", "some"
        same_width = len({c.shape[1] for c in calls}) == 1
        if shared is not None or not same_width or lengths_vary(calls):
            return "normal", shared
        return None, None
    if left is not None and is_normal(left):
        return "normal", "some"
    for low, high in ((0.0, 1.0), (-1.0, 1.0), (-0.5, 0.5)):
        if is_uniform(sample, low, high):
            return "uniform", shared
    if sample.numel() > LEAST and is_uniform(sample, float(sample.min()), float(sample.max())):
        return "uniform of another range", shared
    if is_normal(sample / sample.square().mean().sqrt()):
        return "scaled", shared
    return ("shifted" if is_normal(sample - sample.mean()) else None), shared
