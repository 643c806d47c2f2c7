"""The latents and batches for which a part of the student's VAE works, wherever it should."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from autograder.draws import Draws
from autograder.outcomes import Raised, Wrong
from autograder.reads import USUAL_NZ, numbers_read, sizes_written
from autograder.submission import Session
from autograder.worker import standins

FEW, MANY = 9, 130  # images of a small batch, at most, and of the largest that checks ask for
NARROW, WIDE = 40, 120  # the same of numbers of a latent


@dataclass(frozen=True)
class Sizes:
    """Where a part of the class works; None: for any size.

    variable: one of the notebook's, once it is set to nz. most_nz, most_batch: up to there.
    """

    nz: int | None = None
    batch: int | None = None
    variable: str | None = None
    most_nz: int | None = None
    most_batch: int | None = None

    @property
    def any(self) -> bool:
        """Whether nothing holds the class to certain sizes."""
        return self == Sizes()

    def draw_nz(self, draws: Draws, low: int = 2, high: int = NARROW) -> int:
        """An nz at which it works."""
        return self.nz or _draw_up_to(self.most_nz, draws, low, high)

    def draw_batch(self, draws: Draws, low: int = 2, high: int = FEW) -> int:
        """A batch size at which it works."""
        return self.batch or _draw_up_to(self.most_batch, draws, low, high)

    def fault(self, what: str) -> Wrong | None:
        """That it works nowhere else, if so; what: the part, as `loss`."""
        if self.variable is not None:
            text = f"{what} reads the notebook's `{self.variable}` where its own value belongs."
            return Wrong(text, "hidden-global")
        if self.nz is not None:
            return Wrong(f"{what} works for nz = {self.nz} only.", "hard-coded-nz")
        if self.batch is not None:
            return Wrong(f"{what} works for batches of {self.batch} only.", "hard-coded-batch")
        if self.most_nz is not None:
            return Wrong(f"{what} works for nz = {self.most_nz} at most.", "hard-coded-nz")
        if self.most_batch is not None:
            text = f"{what} works for batches of {self.most_batch} at most."
            return Wrong(text, "hard-coded-batch")
        return None


def _draw_up_to(most: int | None, draws: Draws, low: int, high: int) -> int:
    high = high if most is None else min(high, most)
    return draws.integer(min(low, high), high)


def try_sizes(session: Session, draws: Draws, works: Callable[[int, int], bool]) -> Sizes | None:
    """Where something works: anywhere, up to a size, with a variable set to nz, at one size.

    works: whether it works for (nz, batch); `Raised` inside it counts as no, unless memory lacks.
    """

    def attempt(nz: int, batch: int) -> bool:
        try:
            return works(nz, batch)
        except Raised as error:
            if error.misconception == "out-of-memory":  # that small sizes need less says nothing
                raise
            return False

    def small() -> tuple[int, int]:
        return draws.integer(12, NARROW), draws.integer(2, FEW)  # never one for the other

    if all(attempt(*small()) for _ in range(2)):
        nz, batch = small()
        return Sizes(
            most_nz=_most(lambda n: attempt(n, batch), NARROW, WIDE),
            most_batch=_most(lambda n: attempt(nz, n), FEW, MANY),
        )
    written = sizes_written(session, "VAE")
    latents = [n for n in written if 2 * n <= standins.PIXELS]
    for name in numbers_read(session, "VAE"):
        before = session.read(name)
        own = before if isinstance(before, int) and 0 < before < 300 else USUAL_NZ
        nz, batch = small()
        for value, sizes in ((nz, Sizes(own, None, name)), (batch, Sizes(None, own, name))):
            session.set_global(name, value)
            fine = attempt(nz, batch)
            session.set_global(name, before)
            if fine:
                return sizes
    for fixed in latents:
        batch = small()[1]
        if attempt(fixed, batch) and attempt(fixed, batch + 1):  # of an even size and an odd one
            return Sizes(fixed)
    for fixed in written:
        if attempt(small()[0], fixed) and attempt(small()[0], fixed):
            return Sizes(None, fixed)
    for nz, batch in itertools.product(latents[:6], written[:6]):
        if attempt(nz, batch):
            return Sizes(nz, batch)
    return None


def _most(works: Callable[[int], bool], low: int, high: int) -> int | None:
    """The largest size at which something works, if it does not at the highest, but at the low."""
    if works(high) or not works(low):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if works(middle) else (low, middle)
    return low
