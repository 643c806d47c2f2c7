"""Inputs for a check: drawn by hypothesis from a seed that the worker never learns."""

from __future__ import annotations

import os
import random
from typing import TypeVar

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from autograder.digit_files import digits

# Hypothesis reads and writes files in the folder where it runs, which may be a student's.
set_hypothesis_home_dir(os.devnull)

T = TypeVar("T")


class Draws:
    """The draws of one check; the same seed and name give the same draws."""

    def __init__(self, base: int, name: str) -> None:
        self._random = random.Random(f"{base}:{name}")
        self.torch = torch.Generator().manual_seed(self.integer(0, 2**62))

    def integer(self, low: int, high: int) -> int:
        """An integer, both ends included."""
        return self._random.randint(low, high)

    def real(self, low: float, high: float) -> float:
        """A real number."""
        return self._random.uniform(low, high)

    def examples(self, strategy: st.SearchStrategy[T], count: int) -> list[T]:
        """At least one and at most `count` examples, the simplest among them.

        The examples are only drawn here: a verdict looks at all of them together, so that
        hypothesis neither shrinks nor repeats a call to student code.
        """
        found: list[T] = []

        @seed(self.integer(0, 2**62))
        @settings(
            max_examples=count,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def collect(example: T) -> None:
            found.append(example)

        collect()
        return found

    def normal(self, *shape: int) -> torch.Tensor:
        """Independent draws from N(0, 1)."""
        return torch.randn(shape, generator=self.torch)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """Independent draws from U(low, high)."""
        return low + (high - low) * torch.rand(shape, generator=self.torch)

    def digits(self, count: int) -> torch.Tensor:
        """(count, 1, 28, 28) in [0, 1]: test digits."""
        kept = digits("t10k")
        return kept[torch.randint(len(kept), (count,), generator=self.torch)]

    def images(self, count: int) -> torch.Tensor:
        """(count, 1, 28, 28) in [0, 1]: smooth noise, different in every row."""
        coarse = torch.rand((count, 1, 7, 7), generator=self.torch)
        return torch.nn.functional.interpolate(coarse, size=(28, 28), mode="bilinear")
