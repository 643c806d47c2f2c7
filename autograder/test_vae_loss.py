"""`VAE.loss(x, outputs)`: the total, and its terms rec_loss and kl_loss."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from autograder import losses
from autograder.checks import check
from autograder.compare import close
from autograder.draws import Draws
from autograder.loss_probe import (
    KL,
    PROMISED,
    REC,
    TERMS,
    TOTAL,
    call_loss,
    collect,
    own_gradient,
    read_terms,
    total_gradient,
)
from autograder.losses import Case
from autograder.outcomes import NotAttempted, Raised, Stopped, Unchecked, Wrong
from autograder.reads import USUAL_BATCH, USUAL_NZ, images_followed, numbers_read
from autograder.sizes import Sizes, try_sizes
from autograder.submission import Session
from autograder.vae import LARGE, LAYOUTS, Habits, Model, seen_by
from autograder.worker import standins


@dataclass
class Evidence:
    """Draws of the loss, the sizes and layout at which they work, and what that costs."""

    cases: list[Case]
    used: Habits
    sizes: Sizes
    fault: Wrong | None = None  # why the promised sizes do not work, if forward is not to blame


Check = Callable[[Session, Draws, Habits], None]


def _names_reruns(look: Check) -> Check:
    """A check that says so where a wrong loss runs the networks again: all else follows from it."""

    @functools.wraps(look)
    def looking(session: Session, draws: Draws, habits: Habits) -> None:
        try:
            look(session, draws, habits)
        except (NotAttempted, Stopped):
            raise
        except Wrong as fault:
            again = _run_again(session, draws)
            if not again:
                raise
            text = f"`loss` runs the {' and the '.join(again)} again, on x. Take q and the images"
            slug = None if fault.misconception == "masks-nan" else fault.misconception
            raise Wrong(f"{text} from the outputs that it is handed.", slug) from fault

    return looking


def _run_again(session: Session, draws: Draws) -> list[str]:
    """Which networks of the class its loss runs."""
    try:
        model, x = Model(session, 6, 1.0), draws.images(4)
        parts = {"encoder": model.encoder, "decoder": model.decoder}
        before = seen_by(session, *parts.values())
        call_loss(model, PROMISED, x, draws.images(4), draws.normal(4, 12), TOTAL)
        after = seen_by(session, *parts.values())
    except Stopped:
        raise
    except Wrong:
        return []
    return [n for n, a, b in zip(parts, before, after, strict=True) if len(b) > len(a)]


@check("vae-loss", "rec", 0.5)
@_names_reruns
def test_rec(session: Session, draws: Draws, habits: Habits) -> None:
    """rec_loss is the mean squared error over all pixels."""
    evidence = _evidence(session, draws, habits, REC)
    _check_precision(session, draws, evidence, REC)
    cause = losses.explain_rec(evidence.cases)
    _check_names(evidence)
    if not cause.right:
        words = "'rec_loss' should be the mean squared error over all pixels"
        name = _data_variable(session, draws, evidence.used, evidence.sizes)
        if name is not None:
            text = f"{words} of the `x` that it is given; yours reads the notebook's `{name}`."
            raise Wrong(text, "hidden-global")
        if all(c.values[REC] == c.values[TOTAL] != c.values[KL] for c in evidence.cases):
            raise Wrong(f"{words}; yours is the total. Is it changed in place?")
        raise Wrong(f"{words}; {cause.words}.", cause.misconception or None)
    _check_further_draws(session, draws, evidence, REC)


def _check_names(evidence: Evidence) -> None:
    if _are_exchanged(evidence.cases):
        raise Wrong("'rec_loss' and 'kl_loss' are exchanged in what is returned.", "wrong-return")


def _are_exchanged(cases: list[Case]) -> bool:
    """Whether each of the two terms is right for the other."""
    exchanged = [
        Case(c.mu, c.s, c.x, c.rec, c.beta, (c.values[TOTAL], c.values[KL], c.values[REC]))
        for c in cases
    ]
    return losses.explain_rec(exchanged).right and losses.explain_kl(exchanged).right


def _check_precision(session: Session, draws: Draws, evidence: Evidence, term: int) -> bool:
    """Whether no term is in half precision; raises `Wrong` where the asked one is."""
    nz, batch = evidence.sizes.draw_nz(draws), evidence.sizes.draw_batch(draws)
    model, q = Model(session, nz, 1.0), draws.normal(batch, 2 * nz)
    x, rec = draws.images(batch), draws.images(batch)
    halves = call_loss(model, evidence.used, x, rec, q, term).halves
    if term in halves:
        raise Wrong(f"{TERMS[term]} is rounded to half precision; leave it in single precision.")
    return not halves


def _check_further_draws(session: Session, draws: Draws, evidence: Evidence, term: int) -> None:
    """A term that is right is right in eval mode, for one image and for many, too."""
    if not _is_right(evidence.cases, term):
        return  # and was let pass, for what forward was charged for

    def right(
        sizes: Sizes,
        training: bool,
        drawn: Draws,
        spread: float = 0.7,
        apart: float | None = None,
        count: int = 2,
    ) -> bool:
        settings = (count, spread, 3 * spread, None, training, apart)
        found = collect(session, drawn, evidence.used, sizes, term, *settings)
        if term == TOTAL:  # of terms that are no numbers there is none
            found = [c for c in found if all(map(math.isfinite, c.values[1:]))]
        return not found or _is_right(found, term)

    again = copy.deepcopy(draws)
    large = Sizes(draws.integer(*LARGE), draws.integer(*LARGE))
    usual = Sizes(USUAL_NZ, USUAL_BATCH)
    if not right(evidence.sizes, False, draws):
        if right(evidence.sizes, True, again):
            text = f"{TERMS[term]} is right in train mode only; the mode should not matter."
            raise Wrong(text, "mode-dependent")
    elif evidence.sizes.any and not right(Sizes(None, 1), True, draws):
        if all(right(evidence.sizes, True, draws) for _ in range(3)):
            text = f"{TERMS[term]} is right for batches of several images only, not for one."
            raise Wrong(text, "hard-coded-batch")
    elif evidence.sizes.any and not right(large, True, draws, 0.3, count=1):
        if all(right(evidence.sizes, True, draws) for _ in range(3)):
            batch, nz = large.batch, large.nz
            if right(Sizes(None, batch), True, draws, 0.3, count=1):
                text = f"{TERMS[term]} is right for few latents only, not for nz = {nz}."
                raise Wrong(text, "hard-coded-nz")
            text = f"{TERMS[term]} is right for small batches only, not for one of {batch}."
            raise Wrong(text, "hard-coded-batch")
    elif term != TOTAL and evidence.sizes.any and not right(usual, True, draws, 0.3, count=1):
        raise Wrong(f"{TERMS[term]} is right for other sizes than those of the homework only.")
    elif term != TOTAL or right(evidence.sizes, True, draws, 0.05, 0.05):
        return  # likewise where both terms are small
    if term != KL or not right(evidence.sizes, True, draws, 0.05):  # else honesty is asked
        text = f"{TERMS[term]} is right for some outputs only: is it rounded, or cut off?"
        raise Wrong(text)


def _data_variable(session: Session, draws: Draws, used: Habits, sizes: Sizes) -> str | None:
    """A tensor of the notebook that rec_loss follows."""
    nz, batch = sizes.draw_nz(draws), sizes.draw_batch(draws)
    model, q = Model(session, nz, 1.0), draws.normal(batch, 2 * nz)
    x, rec = draws.images(batch), draws.images(batch)

    def rec_loss() -> Tensor:
        return torch.tensor(call_loss(model, used, x, rec, q, REC).values[REC])

    return images_followed(session, "VAE", rec_loss)


@check("vae-loss", "kl", 0.75)
@_names_reruns
def test_kl(session: Session, draws: Draws, habits: Habits) -> None:
    """kl_loss is KL(q || N(0, I)), summed over latents and averaged over the batch."""
    evidence = _evidence(session, draws, habits, KL)
    _check_precision(session, draws, evidence, KL)
    _check_names(evidence)
    cause = _kl_cause(session, draws, evidence)
    if not cause.right:
        cause = _readers_cause(session, draws, habits) or cause
    if not cause.right:
        raise _kl_fault(session, draws, evidence, cause)
    if evidence.fault is not None:
        raise evidence.fault
    _check_further_draws(session, draws, evidence, KL)


def _kl_cause(session: Session, draws: Draws, evidence: Evidence) -> losses.Cause:
    """The cause near the prior, where nothing is cut off yet: that costs `honesty` alone."""
    cause = losses.explain_kl(evidence.cases)
    if cause.misconception != "" or _is_swapped(evidence.cases):
        return cause
    narrow = collect(session, draws, evidence.used, evidence.sizes, KL, spread=0.05)
    near = losses.explain_kl(narrow)
    return near if near.misconception != "" else cause


def _is_swapped(cases: list[Case]) -> bool:
    """Whether the KL is right for the halves of q taken the other way round."""
    swapped = [Case(c.s, c.mu, c.x, c.rec, c.beta, c.values) for c in cases]
    return losses.explain_kl(swapped).right


def _is_interleaved(cases: list[Case]) -> bool:
    """Whether the KL is right for every other column of q in place of its halves."""
    read = []
    for c in cases:
        mu, s = LAYOUTS["interleaved"](torch.cat([c.mu, c.s], 1))
        read.append(Case(mu, s, c.x, c.rec, c.beta, c.values))
    return losses.explain_kl(read).right


def _readers_cause(session: Session, draws: Draws, habits: Habits) -> losses.Cause | None:
    """What is wrong for the reading of q that forward was charged for: nothing, or a scale."""
    reading = habits.reading
    if reading.layout is None or (reading.layout == "mean-first" and reading.scale == "exp"):
        return None
    if reading.noise != "normal" or habits.sizes is None:
        return None
    try:
        cause = losses.explain_kl(collect(session, draws, habits, habits.sizes, KL))
    except Stopped:
        raise
    except Wrong:
        return None
    return cause if cause.right or cause.misconception == "kl-reduction" else None


def _kl_fault(session: Session, draws: Draws, evidence: Evidence, cause: losses.Cause) -> Wrong:
    words = "'kl_loss' should be KL(q || N(0, I)), summed over latents, averaged over the batch"
    depends = not cause.misconception or cause.misconception.startswith("hard-coded")
    name = _size_variable(session, draws, evidence.used) if depends else None
    if name is not None:
        return Wrong(f"{words}; yours depends on the notebook's `{name}`.", "hidden-global")
    if cause.misconception or "beta" in cause.factor:
        return Wrong(f"{words}; {_in_words(cause)}.", cause.misconception or None)
    if _is_swapped(evidence.cases):
        text = "the halves of q are taken the other way round"
        return Wrong(f"{words}; {text}.", "swapped-mean-and-log-sigma")
    if _is_interleaved(evidence.cases):
        text = "mean and log standard deviation are the halves of q, not every other column"
        return Wrong(f"{words}; {text}.", "q-structure")
    if _is_drawn(session, draws, evidence):
        text = "yours is another number at every call: use the formula, not a sample"
        return Wrong(f"{words}; {text}.", "kl-formula")
    return Wrong(f"{words}; yours is another formula.", "kl-formula")


def _is_drawn(session: Session, draws: Draws, evidence: Evidence) -> bool:
    """Whether the KL differs between two calls on the same outputs."""
    nz, batch = evidence.sizes.draw_nz(draws), evidence.sizes.draw_batch(draws)
    model, q = Model(session, nz, 1.0), draws.normal(batch, 2 * nz)
    x, rec = draws.images(batch), draws.images(batch)
    first, second = (call_loss(model, evidence.used, x, rec, q, KL).values[KL] for _ in range(2))
    return not math.isclose(first, second, rel_tol=1e-4)


def _in_words(cause: losses.Cause) -> str:
    if cause.misconception == "kl-order":
        return "yours is KL(p || q): the order of the arguments matters"
    if cause.misconception == "kl-sign":
        return "yours has the opposite sign"
    if cause.misconception == "kl-formula":
        return "a term of the formula is wrong or missing"
    if cause.misconception == "kl-log-sigma":
        return f"in yours {cause.words}"
    if "beta" in cause.factor:
        return "yours is multiplied by beta already"
    if cause.misconception == "kl-reduction":
        return "yours is summed or averaged over something else"
    return "yours divides by a fixed number"


def _size_variable(session: Session, draws: Draws, used: Habits) -> str | None:
    """A variable of the notebook that makes the KL right once it holds nz or the batch size."""
    for name in numbers_read(session, "VAE"):
        before = session.read(name)
        nz, batch = draws.integer(3, 30), draws.integer(3, 9)
        for value in (nz, batch):
            session.set_global(name, value)
            try:
                cases = collect(session, draws, used, Sizes(nz, batch), KL, count=2)
            except Stopped:
                raise
            except Wrong:
                continue
            finally:
                session.set_global(name, before)
            if losses.explain_kl(cases).right:
                return name
    return None


@check("vae-loss", "honesty", 0.25)
@_names_reruns
def test_honesty(session: Session, draws: Draws, habits: Habits) -> None:
    """No term hides values that are infinite or undefined, or cuts off large ones."""
    evidence = _evidence(session, draws, habits, KL)
    if not all(math.isfinite(case.values[KL]) for case in evidence.cases):
        raise Wrong("'kl_loss' is infinite or undefined for ordinary outputs.")
    nz, batch = evidence.sizes.draw_nz(draws), evidence.sizes.draw_batch(draws)
    model, used = Model(session, nz, 1.0), evidence.used
    cause = _kl_cause(session, draws, evidence)
    x, rec, q = draws.images(batch), draws.images(batch), draws.normal(batch, 2 * nz)
    # what a term lacks is its formula's fault: it is asked for what it follows
    places = (0, -1)
    by_q = {i: _following(session, model, used, x, (rec, rec), (q, _moved(q, i))) for i in places}
    other = _moved(rec, 0) % 1.0  # an image still
    by_rec = _following(session, model, used, x, (rec, other), (q, q))
    known = cause.right or cause.misconception or _are_exchanged(evidence.cases)
    if not known and REC not in by_rec:
        raise Unchecked("Neither term is one that is known, so what they hide cannot be told.")
    if not any((*by_q.values(), by_rec)):
        raise Unchecked("No term depends on q or on rec, so there is nothing to hide.")
    for term in [t for t in (KL, TOTAL) if any(t in by_q[i] for i in places)]:
        _check_growth(session, draws, model, used, batch, cause, term)
    if cause.right:
        _check_near(session, draws, model, used, batch)
    for bad in (math.nan, math.inf):
        for index in places:
            changed = q.clone()
            changed[0, index] = bad
            for term in {KL, TOTAL} & by_q[index]:
                _check_shown(session, model, used, x, rec, changed, term)
        changed = rec.clone()
        changed[0, 0, 0, 0] = bad
        for term in {REC, TOTAL} & by_rec if not used.own else ():
            _check_shown(session, model, used, x, changed, q, term)


def _moved(numbers: Tensor, place: int) -> Tensor:
    """With another number at a place of the first row."""
    other = numbers.clone()
    other[0].view(-1)[place] += 0.5
    return other


def _following(
    session: Session,
    model: Model,
    used: Habits,
    x: Tensor,
    recs: tuple[Tensor, Tensor],
    qs: tuple[Tensor, Tensor],
) -> set[int]:
    """The terms that are others for the second outputs than for the first."""
    first, second = (
        call_loss(model, used, x, rec, q, KL).values for rec, q in zip(recs, qs, strict=True)
    )
    return {
        term
        for term in (TOTAL, REC, KL)
        if first[term] != second[term]
        and not (math.isnan(first[term]) and math.isnan(second[term]))
    }


def _check_growth(
    session: Session,
    draws: Draws,
    model: Model,
    used: Habits,
    batch: int,
    cause: losses.Cause,
    term: int,
) -> None:
    """Far from the prior a term still changes with q, if its formula does."""
    x = draws.images(batch)
    for half in (0, 1):
        for sign in (1.0, -1.0):
            seen: list[float] = []
            expected: list[float] = []
            for size in (sign * 9.0, sign * 14.0, sign * 18.0):
                q = 0.1 * draws.normal(batch, 2 * model.nz)
                q.chunk(2, 1)[half][:] += size
                if cause.misconception != "":
                    mu, s = used.reading.halves(q)
                    far = Case(mu, s, x, x, 1.0, (0.0, 0.0, 0.0))
                    expected.append(float(losses.kl(far, cause.formula, cause.transform)))
                try:
                    seen.append(call_loss(model, used, x, x, q, term).values[term])
                except Stopped:
                    raise
                except Unchecked:
                    break
            if _is_flat(seen) and not (expected and _is_flat(expected)):
                text = f"{TERMS[term]} stops changing far from the prior: large values are cut off."
                raise Wrong(text, "masks-nan")


def _check_near(session: Session, draws: Draws, model: Model, used: Habits, batch: int) -> None:
    """Next to the prior the KL is next to nothing."""
    x, q = draws.images(batch), 0.05 * draws.normal(batch, 2 * model.nz)
    answer = call_loss(model, used, x, x, q, KL)
    mu, s = used.reading.halves(answer.q)
    expected = float(losses.kl(Case(mu, s, x, x, 1.0, (0.0, 0.0, 0.0))))
    if not abs(answer.values[KL] - expected) <= 0.05 * expected + 1e-4 * model.nz:
        text = "'kl_loss' should fall to 0 as q comes near the prior: small values are cut off."
        raise Wrong(text, "masks-nan")


def _is_flat(values: list[float]) -> bool:
    return len(values) == 3 and all(
        math.isfinite(a) and abs(b - a) <= 0.02 * abs(a) for a, b in itertools.pairwise(values)
    )


def _check_shown(
    session: Session, model: Model, used: Habits, x: Tensor, rec: Tensor, q: Tensor, term: int
) -> None:
    try:
        value = call_loss(model, used, x, rec, q, term).values[term]
    except Stopped:
        raise
    except Unchecked:
        return  # refusing such numbers hides nothing
    if math.isfinite(value):
        text = f"{TERMS[term]} hides infinite or undefined values; let them show."
        raise Wrong(text, "masks-nan")


def _evidence(session: Session, draws: Draws, habits: Habits, term: int) -> Evidence:
    """Draws of the loss at sizes and with outputs where it works, the promised ones first.

    Where forward works otherwise than promised, and was charged for it, a loss that is right
    with that is right.
    """
    found: list[Evidence] = []
    first: Wrong | None = None
    for used in (PROMISED, *_other_ways(habits)):
        sizes = used.sizes or Sizes()
        try:
            found.append(Evidence(collect(session, draws, used, sizes, term), used, sizes))
        except (NotAttempted, Stopped):
            raise
        except Wrong as error:
            if first is None or (isinstance(first, Unchecked) and not isinstance(error, Unchecked)):
                first = error  # what is returned says more than an exception
            continue
        if _is_right(found[-1].cases, term):
            return found[-1]
    if found:
        return found[0]
    assert first is not None
    if not isinstance(first, Unchecked):
        raise first
    return _at_other_sizes(session, draws, term, first)


def _is_right(cases: list[Case], term: int) -> bool:
    if term == TOTAL:
        finite = all(math.isfinite(case.values[TOTAL]) for case in cases)
        return finite and losses.explain_total(cases)[0] is None
    return (losses.explain_rec if term == REC else losses.explain_kl)(cases).right


def _other_ways(habits: Habits) -> list[Habits]:
    """How the class may work: with its own outputs, at its sizes, both.

    Outputs of its own may hold more than is promised, and its loss may read that.
    """
    sizes, plain = habits.sizes or Sizes(), PROMISED.reading
    ways = [Habits(Sizes(), plain, own=True), Habits(sizes, plain), Habits(sizes, plain, own=True)]
    return [w for w in ways if w != Habits(Sizes(), plain)]


def _at_other_sizes(session: Session, draws: Draws, term: int, error: Unchecked) -> Evidence:
    """Draws where the loss works alone, with the fault that it works nowhere else."""

    def works(nz: int, batch: int) -> bool:
        collect(session, draws, PROMISED, Sizes(nz, batch), term, count=1)
        return True

    if _takes_outputs_first(session, draws):
        raise Unchecked("`loss` should take x first, then the outputs.", "wrong-signature")
    sizes = try_sizes(session, draws, works)
    fault = None if sizes is None else sizes.fault("`loss`")
    if sizes is None or fault is None:
        raise error
    name = _data_variable(session, draws, PROMISED, sizes)
    if name is not None:
        text = f"`loss` reads the notebook's `{name}`; use the `x` that it is given."
        fault = Wrong(text, "hidden-global")
    try:
        return Evidence(collect(session, draws, PROMISED, sizes, term), PROMISED, sizes, fault)
    except Raised:
        raise fault from error


def _takes_outputs_first(session: Session, draws: Draws) -> bool:
    model, x = Model(session, 6, 1.0), draws.images(4)
    outputs = {"q": draws.normal(4, 12), "rec": draws.images(4)}
    try:
        read_terms(model.call("loss", outputs, x), TOTAL)
    except Stopped:
        raise
    except Wrong:
        return False
    return True


@check("vae-loss", "total", 0.5)
@_names_reruns
def test_total(session: Session, draws: Draws, habits: Habits) -> None:
    """The total is rec_loss + beta * kl_loss, and its gradient reaches q and rec."""
    evidence = _evidence(session, draws, habits, TOTAL)
    precise = _check_precision(session, draws, evidence, TOTAL)
    if not all(math.isfinite(case.values[TOTAL]) for case in evidence.cases):
        raise Wrong("The total is infinite or undefined for ordinary outputs.")
    slug, words = losses.explain_total(evidence.cases)
    if slug is not None:
        if slug == "" and losses.weighs_alike(
            collect(session, draws, evidence.used, evidence.sizes, TOTAL, count=3, beta=1.6)
        ):
            slug, words = "beta-ignored", "rec + another number that follows from beta * kl"
        if words == "rec alone" and all(math.isnan(c.values[KL]) for c in evidence.cases):
            slug, words = "wrong-return", f"{words}. Return the total first, then the dict"
        text = f"The total should be rec_loss + beta * kl_loss; yours is {words}."
        raise Wrong(text, _beta_variable(session, draws, evidence) or slug or None)
    _check_without_beta(session, draws, evidence)
    _check_gradient(session, draws, evidence, habits.reading.right)
    if precise:  # otherwise a term was charged for what is rounded
        _check_further_draws(session, draws, evidence, TOTAL)


def _check_without_beta(session: Session, draws: Draws, evidence: Evidence) -> None:
    """With beta = 0 the total is the reconstruction error alone."""
    nz, batch = evidence.sizes.draw_nz(draws), evidence.sizes.draw_batch(draws)
    x, rec, q = draws.images(batch), draws.images(batch), draws.normal(batch, 2 * nz)
    model = Model(session, nz, 0.0)
    answer = call_loss(model, evidence.used, x, rec, q, TOTAL)
    total, told, _ = answer.values
    mu, s = evidence.used.reading.halves(answer.q)
    errors = (told, float(losses.rec(Case(mu, s, x, answer.rec, 0.0, answer.values))))
    alone = any(math.isclose(total, e, rel_tol=1e-3, abs_tol=1e-6) for e in errors)
    if math.isfinite(told) and not alone:
        raise Wrong("With beta = 0 the total should be rec_loss alone.", "beta-ignored")


def _beta_variable(session: Session, draws: Draws, evidence: Evidence) -> str | None:
    """hidden-global where a variable of the notebook takes the place of .beta."""
    for name in numbers_read(session, "VAE"):
        before = session.read(name)
        try:
            cases = []
            for value in (0.7, 2.9):
                session.set_global(name, value)
                c = collect(session, draws, evidence.used, evidence.sizes, TOTAL, count=1)[0]
                cases.append(Case(c.mu, c.s, c.x, c.rec, value, c.values))
            if losses.explain_total(cases)[0] is None:
                return "hidden-global"
        except Stopped:
            raise
        except Wrong:
            continue
        finally:
            session.set_global(name, before)
    return None


def _check_gradient(session: Session, draws: Draws, evidence: Evidence, sampled: bool) -> None:
    """The gradients of terms that are right; that of a wrong term must only be there."""
    used = evidence.used
    if used.own:
        _check_own_gradient(session, draws, evidence, sampled)
        return
    case, by_q, by_rec, has_graph = total_gradient(session, draws, used, evidence.sizes)
    needs_rec = losses.explain_rec([case]).right
    for name, explain in (("rec_loss", losses.explain_rec), ("kl_loss", losses.explain_kl)):
        if explain(evidence.cases).right and not explain([case]).right:
            raise Wrong(f"'{name}' is another where gradients are recorded; it should not be.")
    # a KL that is wrong and has nothing to do with q was charged for that
    right = any(losses.explain_kl(cases).right for cases in ([case], evidence.cases))
    needs_q = right or _kl_follows(session, draws, evidence)
    needed = ("q",) * needs_q + ("rec",) * needs_rec
    found = {"q": by_q, "rec": by_rec}
    lacking = [name for name in needed if not isinstance(found[name], Tensor)]
    alone = [g for g in found.values() if isinstance(g, Tensor) and bool((g != 0).any())]
    if not has_graph or lacking or not alone:
        words = " and to ".join(lacking or ["q", "rec"])
        raise Wrong(f"The total has no gradient that leads to {words}.", "detached-gradient")
    expected_rec = 2 * (case.rec - case.x).double() / case.x.numel()
    if needs_rec and not _close(by_rec, expected_rec):
        raise Wrong("The gradient of the total with respect to rec is cut.", "detached-gradient")
    if losses.explain_kl([case]).right:
        mu, s = case.mu.double().requires_grad_(), case.s.double().requires_grad_()
        again = Case(mu, s, case.x, case.rec, case.beta, case.values)
        grads = torch.autograd.grad(case.beta * losses.kl(again), (mu, s))
        if not _close(by_q, torch.cat(grads, 1)):
            raise Wrong("The gradient of the total with respect to q is cut.", "detached-gradient")
    elif needs_q and not bool((by_q != 0).any()):
        raise Wrong("The gradient of the total with respect to q is zero.", "detached-gradient")


def _kl_follows(session: Session, draws: Draws, evidence: Evidence) -> bool:
    """Whether the KL is another for another q."""
    nz, batch = evidence.sizes.draw_nz(draws), evidence.sizes.draw_batch(draws)
    x, rec, q = draws.images(batch), draws.images(batch), draws.normal(batch, 2 * nz)
    model = Model(session, nz, 1.0)
    try:
        return KL in _following(session, model, evidence.used, x, (rec, rec), (q, q + 0.5))
    except Stopped:
        raise
    except Wrong:
        return True  # no KL is told that could tell


def _check_own_gradient(session: Session, draws: Draws, evidence: Evidence, sampled: bool) -> None:
    """The gradient of the total of the class's own outputs, with respect to the codes.

    sampled: whether the latents are mean + exp(log_sigma) * noise; otherwise the gradient must
    only be there.
    """
    nz, batch = evidence.sizes.draw_nz(draws), evidence.sizes.draw_batch(draws)
    beta = draws.real(0.3, 4.0)
    call, found = own_gradient(session, Model(session, nz, beta), draws.normal(batch, 2 * nz))
    if found is None or not bool((found != 0).any()):
        raise Wrong("The total has no gradient that leads to q and to rec.", "detached-gradient")
    cases = evidence.cases
    right = losses.explain_rec(cases).right and losses.explain_kl(cases).right
    if not (sampled and right and call.keeps_image and call.z is not None):
        return
    q = call.q.double().requires_grad_()
    mu, s = q.chunk(2, 1)
    noise = ((call.z - mu) / s.exp()).detach()
    rec = standins.Decoder(nz)(mu + s.exp() * noise)
    kl = losses.kl(Case(mu, s, call.x, rec, beta, (0.0, 0.0, 0.0)))
    total = (rec - call.x).square().mean() + beta * kl
    if not _close(found, torch.autograd.grad(total, q)[0]):
        raise Wrong("The gradient of the total is cut on its way to q.", "detached-gradient")


def _close(seen: Tensor, expected: Tensor) -> bool:
    scale = float(expected.abs().max().clamp(min=1e-12))
    return close(seen.double() / scale, expected / scale, 1e-3)
