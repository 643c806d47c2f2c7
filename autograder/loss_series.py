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
    if not whole or nearest <= tolerance:
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


def number(value: Any) -> float | None:
    if isinstance(value, Number):
        return value.value
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value.double())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return None
