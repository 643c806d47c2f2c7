"""Which betas are good, and which trained VAEs: the figures of a sweep on the whole of MNIST.

They are on the promised scale: squared error averaged over pixels, KL summed over latents.
tools/beta_sweep.py makes beta.json, and docs/beta-sweep.md shows where the figures come from.
"""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

from autograder.handed_in import Judgement

SWEEP: dict[str, Any] = json.loads((Path(__file__).parent / "beta.json").read_text("utf-8"))
GOOD: tuple[float, float] = tuple(SWEEP["good"])  # full points
NEAR: tuple[float, float] = tuple(SWEEP["near"])  # points for the magnitude
KL_FACTOR = 1.6  # between the KL of handed-in weights and the reference's; a half decade of beta


def is_good(shown: Judgement, beta: float) -> bool:
    """Whether a trained VAE reconstructs and samples well, at the KL that its beta leads to."""
    usual = usual_kl(beta)
    return (
        shown.error <= SWEEP["error"]
        and shown.distance <= SWEEP["distance"]
        and shown.entropy >= SWEEP["entropy"]
        and usual / KL_FACTOR <= shown.kl <= usual * KL_FACTOR
    )


def usual_kl(beta: float) -> float:
    """KL in nats of the reference, between the betas of the sweep by powers."""
    points = [(math.log(p["beta"]), math.log(p["kl"])) for p in SWEEP["curve"] if p["beta"] > 0]
    x = math.log(beta)
    for (left, low), (right, high) in itertools.pairwise(points):
        if left <= x <= right:
            return math.exp(low + (high - low) * (x - left) / (right - left))
    return math.inf
