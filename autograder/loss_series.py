"""The losses that a training function returns, against those of the steps that it made."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from autograder.compare import described
from autograder.outcomes import Wrong
from autograder.worker.wire import Graph, Number

TOLERANCE = 2e-3
ROUNDING = 1e-5  # relative differences below it are none
DECIMALS = (4, 5, 6)  # to which losses may be rounded; with less, a curve is hard to see


def check_series(
    seen: Any,
    expected: list[list[float]],
    what: str,
    whole: bool = True,
    after: Callable[[], list[float]] = list,
    tolerance: float = TOLERANCE,
) -> None:
    """A returned list of losses, one a step, that hold no graph; raises `Wrong`.

    expected: the series that count as right. whole: or only their number is known. after: gives
    what the losses are once each step is made, which is too late, or nothing where that is not
    known; asked where the series differ. tolerance: of relative differences.
    """
    if isinstance(seen, Graph) or (
        isinstance(seen, list | tuple) and any(isinstance(v, Graph) for v in seen)
    ):
        text = f"{what} should hold numbers; yours hold the graph of every step."
        raise Wrong(text, "returns-graph")
    if not isinstance(seen, list | tuple | Tensor):
        raise Wrong(f"{what} should be a list, not {described(seen)}.", "wrong-return")
    steps = len(expected[0])
    length = seen.numel() if isinstance(seen, Tensor) else len(seen)
    expected = [series for series in expected if len(series) == length]
    if not expected:
        text = f"{what} should have one entry a step: {steps}, not {length}."
        raise Wrong(text, "wrong-return")
    if isinstance(seen, Tensor):  # not before: a list of many millions takes all memory
        seen = list(seen.flatten())
    values = [number(v) for v in seen]
    if any(v is None for v in values):
        raise Wrong(f"{what} should hold numbers.", "wrong-return")
    nearest = min(_apart(values, series) for series in expected)
    late = after() if nearest > ROUNDING else []
    if len(late) == len(values) and 10 * _apart(values, late) < nearest:
        text = f"{what} should be the losses that the steps go down, not those after each step."
        raise Wrong(text, "wrong-return")
    if not whole and len(set(values)) == 1 < len(set(expected[0])):
        raise Wrong(f"{what} should be the losses of the steps; yours are all one.", "wrong-return")
    if not whole or nearest <= tolerance or any(_are_rounded(values, s) for s in expected):
        return
    raise Wrong(f"{what} should be the losses of the steps, in their order.", "wrong-return")


def _apart(values: list[float | None], series: list[float]) -> float:
    """The largest relative difference of two series."""
    return max(
        (
            math.inf if v is None or math.isnan(v) else abs(v - e) / max(abs(e), 5e-4)
            for v, e in zip(values, series, strict=True)
        ),
        default=0.0,
    )


def _are_rounded(values: list[float | None], series: list[float]) -> bool:
    """Whether values are those of a series rounded to so many decimals."""
    pairs = list(zip(values, series, strict=True))
    return any(all(_is_rounded(v, e, 10.0**-n) for v, e in pairs) for n in DECIMALS)


def _is_rounded(value: float | None, exact: float, step: float) -> bool:
    """Whether a value is an exact one to the next multiple of a step that is far below it."""
    return (
        value is not None
        and abs(value - exact) <= 0.51 * step  # not so where it is infinite, or no number
        and abs(value / step - round(value / step)) < 1e-6
        and step <= 0.3 * abs(exact)
    )


def number(value: Any) -> float | None:
    if isinstance(value, Number):
        return value.value
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value.double())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return None
