"""`VAE.loss(x, outputs)`: the total, and its terms rec_loss and kl_loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from autograder import losses
from autograder.checks import check
from autograder.draws import Draws
from autograder.loss_probe import PROMISED, call_loss, collect, total_gradient
from autograder.losses import Case
from autograder.outcomes import NotAttempted, Raised, Stopped, Unchecked, Wrong
from autograder.submission import Session
from autograder.vae import Habits, Model, Reading, Sizes, try_sizes


@check("vae-loss", "rec", 0.5)
def test_rec(session: Session, draws: Draws, habits: Habits) -> None:
    """rec_loss is the mean squared error over all pixels."""
    cases, _, _ = _cases(session, draws, habits)
    cause = losses.explain_rec(cases)
    if not cause.right:
        words = "'rec_loss' should be the mean squared error over all pixels"
        raise Wrong(f"{words}; {cause.words}.", cause.misconception or None)
    _check_masks(session, draws, habits, which=1)


@check("vae-loss", "kl", 1)
def test_kl(session: Session, draws: Draws, habits: Habits) -> None:
    """kl_loss is KL(q || N(0, I)), summed over latents and averaged over the batch."""
    cases, used, _ = _cases(session, draws, habits)
    cause = losses.explain_kl(cases)
    if cause.right:
        _check_tails(session, draws, used)
        _check_masks(session, draws, habits, which=2)
        return
    if not _is_the_readers(session, draws, habits):
        raise _kl_fault(session, draws, habits, cause)


def _is_the_readers(session: Session, draws: Draws, habits: Habits) -> bool:
    """Whether the KL is right for the reading of q that forward was charged for."""
    reading = habits.reading
    if reading.layout is None or (reading.layout == "mean-first" and reading.scale == "exp"):
        return False
    if reading.noise != "normal" or habits.sizes is None:
        return False
    sizes = habits.sizes
    try:
        cases = collect(session, draws, habits, sizes)
    except Stopped:
        raise
    except Wrong:
        return False
    return losses.explain_kl(cases).right


def _kl_fault(session: Session, draws: Draws, habits: Habits, cause: losses.Cause) -> Wrong:
    words = "'kl_loss' should be KL(q || N(0, I)), summed over latents, averaged over the batch"
    if cause.misconception:
        return Wrong(f"{words}; {_in_words(cause)}.", cause.misconception)
    narrow, _, _ = _cases(session, draws, habits, spread=0.05)
    if losses.explain_kl(narrow).right:
        return Wrong(f"{words}; large values are cut off.", "masks-nan")
    swapped = [Case(c.s, c.mu, c.x, c.rec, c.beta, c.values) for c in narrow]
    if losses.explain_kl(swapped).right:
        text = "the halves of q are taken the other way round"
        return Wrong(f"{words}; {text}.", "swapped-mean-and-log-sigma")
    return Wrong(f"{words}; yours fits no known mistake.")


def _in_words(cause: losses.Cause) -> str:
    if cause.misconception == "kl-order":
        return "yours is KL(p || q): the order of the arguments matters"
    if cause.misconception == "kl-sign":
        return "yours has the opposite sign"
    if cause.misconception == "kl-formula":
        return "a term of the formula is wrong or missing"
    if cause.misconception == "kl-log-sigma":
        return f"in yours {cause.words}"
    return "yours is summed or averaged over something else"


def _check_tails(session: Session, draws: Draws, habits: Habits) -> None:
    """Far from the prior the formula is the same: nothing is clamped."""
    sizes = habits.sizes or Sizes()
    nz, batch = sizes.draw_nz(draws), sizes.draw_batch(draws)
    model = Model(session, nz, 1.0)
    for mean, log_sigma in ((300.0, 0.0), (0.0, 12.0), (0.0, -12.0), (-40.0, 5.0)):
        q = torch.cat([torch.full((batch, nz), mean), torch.full((batch, nz), log_sigma)], 1)
        x = draws.images(batch)
        _, values, _ = call_loss(session, model, habits, x, x, q)
        mu, s = habits.reading.halves(q)
        expected = float(losses.kl(Case(mu, s, x, x, 1.0, values)))
        if not losses.near(values[2], expected):
            text = f"'kl_loss' should be {expected:.6g} where mean and log sigma are " + (
                f"{mean:g} and {log_sigma:g}, not {values[2]:.6g}; do not clamp."
            )
            raise Wrong(text, "masks-nan")


def _check_masks(session: Session, draws: Draws, habits: Habits, which: int) -> None:
    """A term that is infinite or undefined must not come out as a number."""
    sizes = habits.sizes or Sizes()
    nz, batch = sizes.draw_nz(draws), sizes.draw_batch(draws)
    for used in (PROMISED, habits):
        for bad in (math.nan, math.inf):
            x, rec = draws.images(batch), draws.images(batch)
            q = draws.normal(batch, 2 * nz)
            if which == 1:
                rec[0, 0, 3, 4] = bad
            else:
                q[0, 0] = bad
            try:
                model = Model(session, nz, 1.0)
                _, values, _ = call_loss(session, model, used, x, rec, q)
            except Stopped:
                raise
            except Unchecked:
                continue  # refusing such numbers hides nothing
            if math.isfinite(values[which]):
                name = ("", "'rec_loss'", "'kl_loss'")[which]
                text = f"{name} hides infinite or undefined values; let them show."
                raise Wrong(text, "masks-nan")


def _cases(
    session: Session, draws: Draws, habits: Habits, spread: float = 1.5
) -> tuple[list[Case], Habits, Sizes]:
    """Draws of the loss at sizes and in a layout where it works, the promised ones first."""
    try:
        return collect(session, draws, PROMISED, Sizes(), spread=spread), PROMISED, Sizes()
    except (NotAttempted, Stopped):
        raise
    except Wrong as error:
        for used in _other_ways(habits):
            sizes = used.sizes or Sizes()
            try:
                return collect(session, draws, used, sizes, spread=spread), used, sizes
            except (NotAttempted, Stopped):
                raise
            except Wrong:
                continue
        raise _explain_sizes(session, draws, error) from error


def _other_ways(habits: Habits) -> list[Habits]:
    """How forward has been seen to work: its sizes, its layout of q, both."""
    sizes = habits.sizes or Sizes()
    plain = Reading("mean-first", "exp", "normal")
    promised = Habits(sizes, plain)
    own = Habits(sizes, plain, habits.tree, habits.extras)
    ways = [Habits(Sizes(), plain, habits.tree, habits.extras), promised, own]
    return [way for way in ways if not (way.sizes == Sizes() and way.tree is None and not way.extras)]


def _explain_sizes(session: Session, draws: Draws, error: Wrong) -> Wrong:
    if not isinstance(error, Raised):
        return error

    def works(nz: int, batch: int) -> bool:
        collect(session, draws, PROMISED, Sizes(nz, batch), count=1)
        return True

    sizes = try_sizes(session, draws, works)
    if sizes is None or sizes.any:
        return error
    if sizes.variable is not None:
        text = f"`loss` reads the notebook's `{sizes.variable}`; it fails for another nz."
        return Wrong(text, "hidden-global")
    if sizes.nz is not None:
        return Wrong(f"`loss` works for nz = {sizes.nz} only.", "hard-coded-nz")
    return Wrong(f"`loss` works for batches of {sizes.batch} only.", "hard-coded-batch")


@check("vae-loss", "total", 0.5)
def test_total(session: Session, draws: Draws, habits: Habits) -> None:
    """The total is rec_loss + beta * kl_loss, and its gradient reaches q and rec."""
    cases, used, sizes = _cases(session, draws, habits)
    slug, words = losses.explain_total(cases)
    if slug is not None:
        text = f"The total should be rec_loss + beta * kl_loss; yours is {words}."
        raise Wrong(text, _beta_variable(session, draws, used, sizes) or slug or None)
    _check_gradient(session, draws, used, sizes)


def _beta_variable(session: Session, draws: Draws, used: Habits, sizes: Sizes) -> str | None:
    """hidden-global where the notebook's variable `beta`, or another, takes the place of .beta."""
    from autograder.architecture import numbers_read

    for name in numbers_read(session, "VAE"):
        before = session.read(name)
        try:
            cases = []
            for value in (0.7, 2.9):
                session.set_global(name, value)
                found = collect(session, draws, used, sizes, count=1)[0]
                cases.append(
                    Case(found.mu, found.s, found.x, found.rec, value, found.values)
                )
            if losses.explain_total(cases)[0] is None:
                return "hidden-global"
        except Stopped:
            raise
        except Wrong:
            continue
        finally:
            session.set_global(name, before)
    return None


def _check_gradient(session: Session, draws: Draws, used: Habits, sizes: Sizes) -> None:
    """Against differences of the student's own total: a wrong term was charged elsewhere."""
    if used.tree is not None or used.extras:
        return
    case, by_q, by_rec, has_graph = total_gradient(session, draws, used, sizes)
    if not has_graph or not isinstance(by_q, Tensor) or not isinstance(by_rec, Tensor):
        raise Wrong("The total has no gradient that leads to q and to rec.", "detached-gradient")
    expected_rec = 2 * (case.rec - case.x).double() / case.x.numel()
    if _is_right(losses.explain_rec([case])) and not _close(by_rec, expected_rec):
        raise Wrong("The gradient of the total with respect to rec is cut.", "detached-gradient")
    if _is_right(losses.explain_kl([case])):
        mu, s = case.mu.double().requires_grad_(), case.s.double().requires_grad_()
        again = Case(mu, s, case.x, case.rec, case.beta, case.values)
        grads = torch.autograd.grad(case.beta * losses.kl(again), (mu, s))
        if used.reading.layout == "mean-first" and not _close(by_q, torch.cat(grads, 1)):
            raise Wrong("The gradient of the total with respect to q is cut.", "detached-gradient")
    elif not bool((by_q != 0).any()):
        raise Wrong("The gradient of the total with respect to q is zero.", "detached-gradient")


def _is_right(cause: losses.Cause) -> bool:
    return cause.right


def _close(seen: Tensor, expected: Tensor) -> bool:
    scale = float(expected.abs().max().clamp(min=1e-12))
    return bool(((seen.double() - expected).abs() <= 1e-3 * scale).all())
