"""`TUNED_BETA`: a beta at which a VAE both reconstructs and samples well."""

from __future__ import annotations

import math

from autograder import handed_in, losses
from autograder.beta import GOOD, NEAR, SWEEP, is_good
from autograder.checks import check
from autograder.compare import described, number
from autograder.draws import Draws
from autograder.handed_in import Judgement
from autograder.loss_probe import KL, PROMISED, collect
from autograder.outcomes import Stopped, Unchecked, Wrong
from autograder.reads import USUAL_BATCH, USUAL_NZ
from autograder.run import Run
from autograder.sizes import Sizes
from autograder.submission import Session
from autograder.vae import Habits
from autograder.weights_file import NAME


def _beta(session: Session) -> float:
    value = session.read("TUNED_BETA")
    beta = None if isinstance(value, bool) else number(value)
    if beta is None:
        raise Wrong(f"`TUNED_BETA` should be a float, not {described(value)}.", "wrong-return")
    if not math.isfinite(beta) or beta < 0:
        raise Wrong("`TUNED_BETA` should be a positive number.", "untuned-beta")
    return beta


def _on_promised_scale(session: Session, draws: Draws, habits: Habits, beta: float) -> float:
    """The beta that has the same effect with the promised loss: scales were charged before.

    What is minimised is the total: terms that are scaled where they are told alone change nothing.
    """
    ways = [PROMISED]
    if habits.sizes is not None:
        ways.append(Habits(habits.sizes, PROMISED.reading, habits.own))
        ways.append(Habits(habits.sizes, habits.reading, habits.own))
    found: list[float] = []
    for way in ways:
        try:
            cases = collect(session, draws, way, Sizes(), KL, count=3)
        except Stopped:
            raise
        except Wrong:
            try:
                cases = collect(session, draws, way, Sizes(USUAL_NZ, USUAL_BATCH), KL, count=3)
            except Stopped:
                raise
            except Wrong:
                continue
        if all(losses.is_promised(case) for case in cases):
            return beta
        kl, rec = losses.explain_kl(cases), losses.explain_rec(cases)
        found.append(beta * _scale(kl, "kl-reduction") / _scale(rec, "rec-reduction"))
        if kl.right or kl.misconception == "kl-reduction":
            return found[-1]
    return found[0] if found else beta


def _scale(cause: losses.Cause, recognised: str) -> float:
    if cause.misconception != recognised:
        return 1.0
    scale = 1.0
    for part in cause.factor.split():
        base, _, power = part.partition("^")
        size = {"nz": USUAL_NZ, "batch": USUAL_BATCH, "784": 784.0}.get(base)
        scale *= (size if size is not None else 1.0) ** int(power or 1)
    return scale


def _effective(session: Session, draws: Draws, habits: Habits, run: Run) -> float:
    beta = _beta(session)
    known = any(r.task == "vae-loss" for r in run.grade.results)
    if "VAE" not in session.submission.definitions.defined or (
        known and not run.charged("vae-loss")
    ):  # a scale that cost nothing there is none here
        return beta
    try:
        return _on_promised_scale(session, draws, habits, beta)
    except Unchecked:
        return beta


def _check(beta: float, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if beta < low:
        raise Wrong(
            "At this beta samples are poor: the codes of digits stay far from the prior. "
            "Try a larger one.",
            "untuned-beta",
        )
    if beta > high:
        raise Wrong(
            "At this beta reconstructions are blurred: the codes say too little. "
            "Try a smaller one.",
            "untuned-beta",
        )


@check("beta-tuning", "magnitude", 2)
def test_magnitude(session: Session, draws: Draws, habits: Habits, run: Run) -> None:
    """Is near the range in which reconstructions and samples are good."""
    _check(_effective(session, draws, habits, run), NEAR)


@check("beta-tuning", "range", 3)
def test_range(session: Session, draws: Draws, habits: Habits, run: Run) -> None:
    """Is in the range in which reconstructions and samples are good.

    Near it, trained weights that were handed in decide, if they can be those of this beta.
    """
    shown = handed_in.judged(session, draws, run)  # before stand-ins take the networks' places
    beta = _effective(session, draws, habits, run)
    told = _told(run, shown)
    try:
        _check(beta, GOOD)
    except Wrong as fault:
        if shown is not None and NEAR[0] <= beta <= NEAR[1] and is_good(shown, beta):
            run.remarks["beta-tuning", "range"] = told
            return
        raise Wrong(f"{fault.message} {told}".rstrip(), fault.misconception) from fault
    run.remarks["beta-tuning", "range"] = told


def _told(run: Run, shown: Judgement | None) -> str:
    """What the handed-in weights reach, or why they do not count; empty without any."""
    if shown is not None:
        return (
            f"Your trained VAE has a reconstruction error of {shown.error:.4f} (good: at most "
            f"{SWEEP['error']:.4f}) and a Fréchet distance of samples of {shown.distance:.0f} "
            f"(good: at most {SWEEP['distance']:.0f})."
        )
    found = run.findings.get(NAME)
    return found.message if isinstance(found, Wrong) else ""
