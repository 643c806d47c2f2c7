"""What a definition of the notebook reads that it is not given: hints where to look for a cause."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

from torch import Tensor

from autograder.compare import close
from autograder.outcomes import Raised, Unchecked
from autograder.submission import Session

USUAL_NZ, USUAL_BATCH = 64, 64
LARGEST_SIZE = 1024  # that is tried because it stands in a notebook
MOST_NUMBERS, MOST_VARIABLES = 40, 12


def sizes_written(session: Session, name: str) -> list[int]:
    """Sizes that `name` may be held to, since they stand in its code or in a variable it reads.

    The homework's own first, then others, at most a dozen: a hint where to look.
    """
    found = [n for n in numbers_written(session, name) if type(n) is int and n > 1]
    for variable in [*numbers_read(session, name), "nz", "batch_size"]:
        with contextlib.suppress(Unchecked):
            value = session.read(variable)
            if type(value) is int and 1 < value <= LARGEST_SIZE:
                found.append(value)
    return list(dict.fromkeys([USUAL_NZ, *found]))[:12]


def numbers_written(session: Session, name: str) -> list[int | float]:
    """Positive numbers in the code of `name`, its defaults and what it reads: a hint."""
    try:
        told = session.ask("constants", session.read(name))
    except Unchecked:
        return []
    told = told if isinstance(told, list) else []
    return [n for n in told if type(n) in (int, float) and 0 < n <= LARGEST_SIZE][:MOST_NUMBERS]


def numbers_read(session: Session, name: str) -> list[str]:
    """Variables of the notebook that hold numbers and that `name` reads, the first few: a hint."""
    try:
        reads = session.reads(name)
    except Unchecked:
        return []
    held = (key for key, value in reads.items() if not isinstance(value, bool | str))
    return list(itertools.islice(held, MOST_VARIABLES))


def images_followed(session: Session, name: str, observe: Callable[[], Any]) -> str | None:
    """A tensor of the notebook, as large as images, that `name` reads and that an answer follows.

    observe: asks for an answer, a tensor, that is the same every time unless something changed.
    """
    for variable, kind in session.reads(name).items():
        before = session.read(variable) if kind == "tensor" else None
        if not isinstance(before, Tensor) or before.numel() < 784:
            continue
        seen: list[Any] = []
        for value in (before, before + 1):
            session.set_global(variable, value)
            with contextlib.suppress(Raised):
                seen.append(observe())
        session.set_global(variable, before)
        if len(seen) == 2 and not _are_same(*seen):
            return variable
    return None


def _are_same(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor) or one.shape != other.shape:
        return False
    return close(one, other)
