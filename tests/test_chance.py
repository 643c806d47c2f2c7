"""Bad luck fails right work less often than once in a million notebooks; see docs/chance.md."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import pytest

from autograder import learning, noise
from autograder.training_probe import REDRAWS
from autograder.trial import REPEATED
from tests import corpus
from tests.grading import grade, lost

# comparisons with a bound of its own in each; `is_normal` makes one beside those it calls
COUNTED = (
    "is_normal",
    "_is_chi_square",
    "_distance",
    "varies_normally",
    "goes_with",
    "lengths_vary",
)
SHUFFLING, COURSES, UNSTEADY, MISSED = 4e-9, 8, 0.05, 1 / 500


def test_the_false_alarms_of_all_checks_sum_to_less_than_one_in_a_million(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    comparisons = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any) -> Any:
            nonlocal comparisons
            comparisons += 1
            return function(*args)

        return call

    for name in COUNTED:
        monkeypatch.setattr(noise, name, counted(getattr(noise, name)))
    made = grade(corpus.submission("perfect"))
    assert not {t: p for t, p in lost(made).items() if "training" not in t}
    assert comparisons >= 10
    calibrated = json.loads(learning.CALIBRATION.read_text(encoding="utf-8"))
    learns = [s["false_alarms"] for k in ("ae", "vae") for s in calibrated[k]["spellings"].values()]
    total = comparisons * noise.ALARM + SHUFFLING + 2 * max(learns)
    total += COURSES * (UNSTEADY**REDRAWS + MISSED**REPEATED)
    assert total < 1e-6
