"""Whatever a worker answers is judged: the host never fails, since a fault gives points."""

from __future__ import annotations

import nbformat
import pytest

from tests.attacks.mutation import forging
from tests.grading import grade
from tests.mutants import REFERENCE


@pytest.mark.parametrize("seed", range(6))
def test_answers_that_are_changed_at_random_make_no_fault(seed: int) -> None:
    """The operations of a right notebook, some of their answers replaced."""
    with forging(seed, rate=0.04) as forged:
        made = grade(nbformat.read(REFERENCE, as_version=4), seed=seed)
    assert forged
    assert not made.faults, [f"{f.task}/{f.id}: {f.message}" for f in made.faults]
