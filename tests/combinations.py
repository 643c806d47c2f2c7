"""Several mistakes in one notebook, from different tasks: a seeded draw of pairs and triples."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import nbformat

from tests import corpus
from tests.corpus import Mistake

PAIRS, TRIPLES = 60, 40


@dataclass(frozen=True)
class Combination:
    """Mistakes that cost points in different tasks, and whose edits apply together."""

    parts: tuple[Mistake, ...]
    source: str

    @property
    def name(self) -> str:
        """The names of the mistakes."""
        return " + ".join(f"{part.group}/{part.name}" for part in self.parts)

    @property
    def lost(self) -> dict[str, float]:
        """The points that the mistakes cost together, by task."""
        return {task: points for part in self.parts for task, points in part.lost.items()}

    @property
    def causes(self) -> dict[str, str]:
        """The misconception to be named, by task."""
        return {t: p.misconception for p in self.parts for t in p.lost if p.misconception}

    def notebook(self) -> nbformat.NotebookNode:
        """The notebook with all mistakes."""
        return corpus.as_notebook(self.source)


def combinations(pairs: int = PAIRS, triples: int = TRIPLES, seed: int = 0) -> list[Combination]:
    """Different pairs, then different triples; the same seed gives the same ones."""
    chance = random.Random(seed)
    return [
        made
        for size, count in ((2, pairs), (3, triples))
        for made in itertools.islice(_drawn(chance, size), count)
    ]


def _drawn(chance: random.Random, size: int) -> Iterator[Combination]:
    mistakes, seen = corpus.mistakes(), set[frozenset[str]]()
    while True:
        parts = tuple(chance.sample(mistakes, size))
        tasks = [task for part in parts for task in {part.group, *part.lost}]
        names = frozenset(part.name for part in parts)
        source = _together(parts)
        if len(set(tasks)) == len(tasks) and names not in seen and source is not None:
            seen.add(names)
            yield Combination(parts, source)


def _together(parts: tuple[Mistake, ...]) -> str | None:
    """The source with all edits; None where one no longer fits after another."""
    source = corpus.percent_source("perfect")
    try:
        for part in parts:
            source = part.applied_to(source)
    except ValueError:
        return None
    return source
