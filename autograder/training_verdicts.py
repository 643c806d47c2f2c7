"""What is wrong with a training of which the findings are known; every check names its own part."""

from __future__ import annotations

import math

import torch

from autograder import explaining, first_step, recipes, replay
from autograder.draws import Draws
from autograder.likeness import UNLIKE
from autograder.loss_series import number
from autograder.outcomes import Unchecked, Wrong
from autograder.reads import numbers_written, sizes_written
from autograder.recipes import Recipe
from autograder.replay import Course, State, order_noted
from autograder.submission import Session
from autograder.training_probe import (
    DROPPING,
    LEARNED,
    LONG,
    MANY_IMAGES,
    Findings,
    Trainer,
)
from autograder.trial import Trial, promised
from autograder.worker import standins

_UPDATE = {
    "optimiser": "wrong-optimizer",
    "renewed": "wrong-optimizer",
    "decay": "wrong-learning-rate",
    "rate": "wrong-learning-rate",
    "share": "wrong-learning-rate",
    "part": "wrong-learning-rate",
    "criterion": "wrong-criterion",
    "scale": "wrong-criterion",
    "per_row": "wrong-criterion",
    "over": "wrong-criterion",
    "warm": "wrong-criterion",
    "rows": "drops-data",
    "inputs": "wrong-target",
    "target": "wrong-target",
    "frozen": "detached-gradient",
}

_STEPPING = {
    "mode": "eval-mode-training",
    "steps": "no-step",
    "clears": "gradients-accumulate",
    "batches": "stale-batch",
}

# the aspects of a recipe that each check judges
JUDGED = {"update": [*_UPDATE], "stepping": [*_STEPPING], "epochs": ["epochs"]}

_SCALED = (
    "sum of squares",
    "squares summed over pixels",
    "half of the squares",
    "mean square over the number of batches",
)

_CRITERIA = {
    "rec_loss + kl_loss": "beta-ignored",
    "rec_loss - beta * kl_loss": "kl-sign",
}

# Nothing is learnt from these, whatever the model; otherwise a run has to tell.
_FRUITLESS = {
    "optimiser": ("Adam that maximises",),
    "criterion": ("minus the mean square", "minus the total"),
    "steps": ("never",),
    "epochs": ("none",),
    "target": tuple({*recipes.TARGETS} - {"input", *recipes.INPUTS} | {"inverted input"}),
}


def check_update(trainer: Trainer, session: Session, draws: Draws, findings: Findings) -> None:
    """Optimiser, rate, criterion, target, and a whole gradient; raises `Wrong`."""
    recipe = findings.recipe
    if findings.lent:
        text = "Single layers of your own encoder or decoder, by their names, are part of what is"
        raise Wrong(f"{text} minimised, or are changed. Train what `model.parameters()` gives.")
    name = findings.follows("rate", "beta")
    if name is not None:
        text = f"The steps follow the notebook's `{name}`, not the argument or the model."
        raise Wrong(text, "hidden-global")
    late = [findings.late] if findings.late is not None and findings.stop is None else []
    courses = [t.course for t in (findings.trials if recipe is None else late)]
    if courses and explaining.goes_as_promised(courses):
        text = "The steps are as promised, but then the model is given other weights than"
        raise Wrong(f"{text} those of the last step.")
    if recipe is None:
        _check_first_step(trainer, session, draws, findings)
        return
    if findings.late is not None and findings.stop is None and not findings.evaluates:
        if len(findings.late.course.batches) <= LONG:
            _check_late(trainer, session, findings.late)
        text = "In a longer training the steps do not stay as they begin"
        if explaining.changes_rate(findings.late.course, findings.late.state):
            raise Wrong(f"{text}: does the rate change on the way?", "wrong-learning-rate")
        text = f"{text}. Expected plain steps of Adam on the gradients of each batch:"
        raise Wrong(f"{text} not clipped, not accumulated, at the rate asked for.")
    for aspect, slug in _UPDATE.items():
        if aspect in recipe.deviations():
            raise _update_fault(trainer, session, findings, recipe, aspect, slug)


def _check_late(trainer: Trainer, session: Session, late: Trial) -> None:
    """What a longer training is throughout, that a short one does not show; raises `Wrong`."""
    name = explaining.optimiser_of(late.course, late.state)
    if name is not None:
        text = f"Expected Adam with its defaults; the weights move as {name} does."
        raise Wrong(text, "wrong-optimizer")
    sizes = sizes_written(session, trainer.name)
    whole = (replay.LARGE // size * size for size in sizes if size <= replay.LARGE)
    for size in [*sizes, *whole]:
        if explaining.uses_first_rows(late.course, late.state, size):
            text = f"Of every batch, the training uses the first {size} images only."
            raise Wrong(text, "drops-data")
    name = explaining.criterion_of(late.course, late.state)
    if name is not None:
        text = f"In a longer training, what is minimised comes to be {name}"
        raise Wrong(f"{text}. It should be the promised loss throughout.", "wrong-criterion")
    followed = [late.course], [late.state]
    cut = _cut_gradients(trainer, session, *followed)
    if cut is not None:
        raise cut


def _update_fault(
    trainer: Trainer,
    session: Session,
    findings: Findings,
    recipe: Recipe,
    aspect: str,
    slug: str,
) -> Wrong:
    value = getattr(recipe, aspect)
    if aspect == "rate":
        name = trainer.replaces(session, findings, "rate")
        if name is not None:
            text = f"The rate comes from the notebook's `{name}`, not from the argument."
            return Wrong(text, "hidden-global")
        return Wrong("The steps are not of the learning rate that was asked for.", slug)
    if value == recipes.TOLD:
        return _told_fault(findings)
    if aspect == "optimiser":
        return Wrong(f"Expected Adam with its defaults; the weights move as {value} does.", slug)
    if aspect == "renewed":
        text = f"The optimiser is made again at every {value}, so that it forgets its past."
        return Wrong(text, slug)
    if aspect == "share":
        text = f"The rate is divided by the number of {value}; it should be as asked."
        return Wrong(text, slug)
    if aspect == "part":
        text = "Encoder and decoder are trained at different rates; both should have the one"
        return Wrong(f"{text} asked for.", slug)
    passes = _backward_passes(findings)
    if aspect == "scale" and passes > 1:
        text = f"There are {passes} backward passes for every step; their gradients add up."
        return Wrong(text, "gradients-accumulate")
    if aspect == "scale" and trainer.kind == "TinyAutoEncoder":
        text = "The squared error should be averaged over all pixels; yours is scaled"
        return Wrong(f"{text} by {value:.3g}.", "rec-reduction")
    if aspect == "scale":
        return Wrong(f"What is minimised is {value:.3g} times the total.", slug)
    if aspect == "per_row" and value < 0.5:
        text = f"The loss is divided for batches of {1 / value:.4g} images, whatever their size."
        return Wrong(text, "hard-coded-batch")
    if aspect == "per_row":
        slug = "rec-reduction" if trainer.kind == "TinyAutoEncoder" else slug
        return Wrong("The loss is a sum over the batch; it should be its mean.", slug)
    if aspect == "over":
        slug = "rec-reduction" if trainer.kind == "TinyAutoEncoder" else slug
        text = "The loss should be a mean over the images of its batch; yours is divided by"
        return Wrong(f"{text} {value}.", slug)
    if aspect == "decay" and all(_has_one_rate(t.course) for t in findings.trials):
        text = (
            "The steps are of another learning rate than asked for, one that goes by the batches."
        )
        return Wrong(text, slug)
    if aspect == "decay":
        return Wrong("The learning rate changes on the way; it should stay as asked.", slug)
    if aspect == "criterion" and value in _SCALED:
        text = "The squared error should be averaged over all pixels; yours is scaled"
        return Wrong(f"{text} ({value}).", "rec-reduction")
    if aspect == "criterion":
        slug = _CRITERIA.get(value, slug)
        return Wrong(f"What is minimised is not the promised loss, but {value}.", slug)
    if aspect == "warm":
        text = "The weight of the KL term should be beta throughout; yours changes:"
        how = "`model.beta` is another on the way" if value == recipes.NOTED else value
        return Wrong(f"{text} {how}.", slug)
    if aspect == "rows":
        return Wrong(f"Not the whole of every batch is used, but {value}.", slug)
    if aspect == "inputs" and value == recipes.NOTED:
        text = "The model is not given the batches as they are, but images made of them"
        return Wrong(f"{text}: changed, or with noise.", slug)
    if aspect == "inputs":
        text = "as input and as target" if recipe.target == value else "as input"
        return Wrong(f"The batch should be used as it is; yours takes {value} {text}.", slug)
    if aspect == "target":
        text = f"The output is compared with {value}, not with the input batch."
        if value == "mean image":
            text += " Do their shapes differ, so that every image meets every other?"
        return Wrong(text, slug)
    text = f"Part of the model does not move: {value}. No gradient reaches it, or no step."
    return Wrong(text, slug)


def _backward_passes(findings: Findings) -> int:
    """How many backward passes were noted for every batch."""
    first = findings.trials[0].course
    return (len(first.notes) - 1) // len(first.batches)


def _check_first_step(trainer: Trainer, session: Session, draws: Draws, findings: Findings) -> None:
    """Judge the first step alone where no recipe explains all trials."""
    first = findings.trials[0]
    if promised(first):
        if _steps_on_each_batch(findings):
            raise _later_fault(trainer, session, findings)
        return
    start = standins.sample(first.course.state["decoder.0.weight"]).double()
    if first.differentiated and not torch.equal(first.course.notes[0].weights, start):
        text = "The model is given other weights before its first step; train it as it is handed."
        raise Wrong(text)
    recipe = explaining.explain([first.course], [first.state])
    if recipe is not None and recipe.deviations():
        aspect = recipe.deviations()[0]
        if aspect in ("scale", "per_row"):
            _check_factors(trainer, session, draws, first)
        if aspect in _UPDATE:
            raise _update_fault(trainer, session, findings, recipe, aspect, _UPDATE[aspect])
        slug = {**_STEPPING, "epochs": "wrong-epochs"}[aspect]
        raise Wrong(f"The first step is not as promised ({getattr(recipe, aspect)}).", slug)
    if not explaining.same(first.course, trainer.trial(session, first.course).state, first.state):
        text = "Two trainings from the same start differ: inputs or targets are random."
        raise Wrong(text, "wrong-target")
    once = len(first.course.notes) == 2  # one backward pass, as far as noted
    if once and first_step.has_rates_of_its_own(first.course, first.state):
        text = "Some weights are trained at another rate than others; all should have the one"
        raise Wrong(f"{text} asked for.", "wrong-learning-rate")
    if once and first_step.goes_down_unlike_adam(first.course, first.state):
        text = "The first step goes down the gradient of the promised loss, but not as far as"
        raise Wrong(f"{text} Adam's with its defaults.", "wrong-optimizer")
    if first_step.steps_as_adam(first.course, first.state):
        text = "The steps are Adam's, but what is minimised is not the promised loss."
        raise Wrong(text, "wrong-criterion")
    raise Wrong("The weights after one step are not those of Adam on the promised loss.")


def _steps_on_each_batch(findings: Findings) -> bool:
    """Whether, by what was noted, there is a step for every batch, with fresh gradients."""
    return all(
        order_noted(t.course) is not None
        and t.course.steps == list(range(1, len(t.course.notes)))
        and all(note.training and note.cleared for note in t.course.notes)
        for t in findings.trials
    )


def _check_claims(findings: Findings) -> None:
    """Mode and gradients at the steps, as far as the run itself tells; raises `Wrong`."""
    notes = [note for trial in findings.trials for note in trial.course.notes[:-1]]
    if not all(note.training for note in notes):
        raise Wrong("The model is in eval mode while it trains.", "eval-mode-training")
    if not all(note.cleared for note in notes):
        text = "Gradients of earlier batches are still there at a step."
        raise Wrong(text, "gradients-accumulate")


def _cut_gradients(
    trainer: Trainer, session: Session, courses: list[Course], states: list[State]
) -> Wrong | None:
    """Gradients that are cut to a number in the code, one by one or by their norm."""
    for most in numbers_written(session, trainer.name)[-12:]:  # fractions are the last
        for kind in ("value", "norm"):
            if explaining.fits(courses, states, Recipe(clip=f"{kind} {most}")):
                text = f"Gradients are cut to a {kind} of {most:.3g}; steps should take them whole."
                return Wrong(text)
    return None


def _later_fault(trainer: Trainer, session: Session, findings: Findings) -> Wrong:
    """What is wrong with steps of which the first alone is as promised."""
    courses, states = [t.course for t in findings.trials], [t.state for t in findings.trials]
    cut = _cut_gradients(trainer, session, courses, states)
    if cut is not None:
        return cut
    text = "The first step is as promised, but not those that follow, though each is of a batch of"
    text += " its own. Is something added to the loss, or are gradients or weights changed?"
    return Wrong(text, "wrong-criterion" if _minimises_more(findings) else None)


def _minimises_more(findings: Findings) -> bool:
    """Whether the first of the losses that were returned is not the promised one."""
    trial = findings.trials[0]
    losses = trial.returned if isinstance(trial.returned, list | tuple) else []
    told = number(losses[0]) if losses else None
    promised = trial.course.promised.losses["total"][0]
    return told is not None and not math.isclose(told, promised, rel_tol=1e-4)


def _check_factors(trainer: Trainer, session: Session, draws: Draws, first: Trial) -> None:
    """Gradients that are scaled by the same factor on another draw; raises `Wrong`."""
    course = trainer.courses(draws, first.course.interface)[0]
    trials = (first, trainer.trial(session, course))
    one, other = (first_step.scale_factor(t.course, t.state) for t in trials)
    if math.isclose(one, other, rel_tol=0.01):
        return
    norms = [first_step.gradient_norm(t.course) for t in trials]
    if math.isclose(one * norms[0], other * norms[1], rel_tol=0.01):
        text = f"Gradients are cut to a norm of {one * norms[0]:.2g}; steps should take them whole."
        raise Wrong(text)
    text = "What is minimised is the promised loss times another factor for every batch"
    raise Wrong(f"{text}, like {one:.3g} and {other:.3g}.", "wrong-criterion")


def check_stepping(trainer: Trainer, session: Session, findings: Findings) -> None:
    """A step for every batch with fresh gradients, in train mode; raises `Wrong`."""
    recipe = findings.recipe
    if recipe is None:
        if explaining.goes_as_promised([t.course for t in findings.trials]):
            return  # its end was charged with the update
        if findings.faults is not None:
            if "stepping" in findings.faults:
                raise Wrong(*findings.faults["stepping"])
            _check_claims(findings)
        works = findings.faults is not None or _learns_throughout(findings)
        if promised(findings.trials[0]) and not (works and _steps_on_each_batch(findings)):
            raise Wrong("The weights after a pass are not those of one step for every batch.")
        if not works:
            raise _unknown_update()
        return  # the update was charged
    for aspect, slug in _STEPPING.items():
        if aspect in recipe.deviations():
            raise _stepping_fault(trainer, session, findings, recipe, aspect, slug)
    if findings.stop is not None and _passes(findings) == 1:
        many = len(findings.late.course.batches) if findings.late is not None else 0
        text = f"Of {many} batches in a pass, the training uses {findings.stop}."
        raise Wrong(text, "drops-data")
    if findings.evaluates:
        raise Wrong("After some steps the model trains on in eval mode.", "eval-mode-training")
    if findings.unmoved:
        text = "The batches of the loader are not moved to the `device` that is asked for."
        raise Wrong(text, "hard-coded-device")
    if findings.interface.device_object:
        raise Wrong(f"`{trainer.name}` fails where `device` is a string, such as 'cpu'.")
    if any(trial.reseeded for trial in findings.trials):
        text = "The random numbers are the same at every step: set no seed in the loop."
        raise Wrong(text, "frozen-noise")


def _stepping_fault(
    trainer: Trainer, session: Session, findings: Findings, recipe: Recipe, aspect: str, slug: str
) -> Wrong:
    value = getattr(recipe, aspect)
    if aspect == "mode":
        whose = f"The {value.split()[-1]}" if value in recipes.PART_MODES else "The model"
        some = ", for some of the steps" if value == recipes.NOTED else ""
        return Wrong(f"{whose} is in eval mode while it trains{some}.", slug)
    courses = [t.course for t in findings.trials]
    late = "The step comes before the backward pass of its batch."
    states, delayed = [t.state for t in findings.trials], Recipe(steps="delayed")
    if recipe.clears in recipes.AT_STEPS and explaining.fits(courses, states, delayed):
        return Wrong(late, "no-step")
    if recipe.clears in recipes.AT_STEPS and all(c.steps_once_a_pass for c in courses):
        return Wrong("There is one step an epoch, not one a batch.", "one-step-an-epoch")
    if recipe.clears in recipes.AT_STEPS:
        text = "Gradients of several batches are summed for one step; each batch has its own."
        return Wrong(text, "gradients-accumulate")
    if aspect == "clears" and value in recipes.PARTS_CLEARED:
        return Wrong(f"Not all gradients are cleared: {value}.", slug)
    if aspect == "clears":
        return Wrong("Gradients of earlier batches are still there at a step.", slug)
    if aspect == "batches":
        if value in (*DROPPING, recipes.CUT):
            return Wrong("Not every batch of the loader is used.", "drops-data")
        if value == recipes.EXCHANGED:
            text = "Each batch is used for all epochs before the next one comes: the loop over"
            return Wrong(f"{text} epochs belongs outside, that over batches inside.", slug)
        if value == recipes.OWN:
            size = findings.own_size
            if size is None:
                text = "The batches are not those of the loader, though of as many of its images."
                return Wrong(text)
            many = f"{size} images" if size < MANY_IMAGES else f"at least {size} images"
            text = "The batches are not those of the loader, but made anew of its dataset,"
            return Wrong(f"{text} {many} in each.", "wrong-batch-size")
        if value == "each twice":
            return Wrong("There are two steps on every batch, where one was asked for.", slug)
        return Wrong("The same batch is used over and over.", slug)
    if value in ("epoch", "end") and all(len(c.notes) == 2 for c in courses):
        return Wrong("The training ends after its first batch.", "drops-data")
    if value in ("epoch", "end"):
        return Wrong("There is one step an epoch, not one a batch.", "one-step-an-epoch")
    if value == "never":
        if "module" in session.reads(trainer.name).values():
            text = f"`{trainer.name}` does not train the model that it is handed."
            return Wrong(text, "uses-global-model")
        if not any(t.differentiated for t in findings.trials):
            text = "No gradient of the loss reaches the weights of the model."
            return Wrong(text, "detached-gradient")
        if all(t.cleared for t in findings.trials):
            text = "The gradients are cleared between the backward pass and the step."
            return Wrong(text, "gradients-accumulate")
        return Wrong("The weights never move: no step follows the backward pass.", slug)
    if value == "delayed":
        return Wrong(late, slug)
    return Wrong("There is not exactly one step for every batch.", slug)


def check_fruitful(trainer: Trainer, session: Session, findings: Findings) -> None:
    """Not a training of which the replay shows that it leads nowhere; raises `Wrong`."""
    recipe = findings.recipe
    for aspect, choices in _FRUITLESS.items():
        value = getattr(recipe, aspect, None)
        if value in choices:
            slug = {**_UPDATE, **_STEPPING, "epochs": "wrong-epochs"}[aspect]
            if recipe is not None and aspect in _STEPPING:
                fault = _stepping_fault(trainer, session, findings, recipe, aspect, slug)
                slug = fault.misconception or slug
            text = f"Nothing is learnt from such a training ({aspect}: {value})."
            raise Wrong(text, slug)


def check_epochs(trainer: Trainer, session: Session, draws: Draws, findings: Findings) -> None:
    """As many passes as asked for; raises `Wrong`."""
    recipe = findings.recipe
    if recipe is None:
        if explaining.goes_as_promised([t.course for t in findings.trials]):
            return
        if findings.faults is None and not _learns_throughout(findings):
            raise _unknown_update()
        fault = (findings.faults or {}).get("epochs")
        if fault is not None and not (fault == UNLIKE and findings.learned >= LEARNED):
            raise Wrong(*fault)
        return
    if findings.stop is not None and _passes(findings) > 1:
        text = f"The training ends after {findings.stop} steps, before the last pass is over."
        raise Wrong(text, "wrong-epochs")
    if "epochs" in recipe.deviations() or findings.follows("epochs"):
        name = findings.follows("epochs") or trainer.replaces(session, findings, "epochs")
        if name is not None:
            text = f"The number of passes comes from the notebook's `{name}`."
            raise Wrong(text, "hidden-global")
        raise Wrong(
            f"Asked for 3 passes over the loader, it makes another number: {recipe.epochs}.",
            "wrong-epochs",
        )


def remark_on_epochs(findings: Findings) -> str:
    """What costs nothing, and is worth saying of the passes; empty where nothing is."""
    if not any(trial.kept for trial in findings.trials):
        return ""
    text = "The loader is gone through once, and its batches serve for every pass:"
    return f"{text} they are never shuffled again, and memory holds all of them."


def _passes(findings: Findings) -> int:
    return 0 if findings.late is None else findings.late.course.epochs


def _has_one_rate(course: Course) -> bool:
    """Whether the optimiser told of one rate, throughout."""
    return len({told.options.get("lr") for told in course.told}) == 1


def _told_fault(findings: Findings) -> Wrong:
    """What is wrong with an optimiser of which its own claim gives the weights."""
    told = findings.trials[-1].course.told
    if len({t.options.get("lr") for t in told}) > 1:
        text = "The learning rate changes on the way; it should stay as asked."
        return Wrong(text, "wrong-learning-rate")
    text = f"Expected Adam with its defaults; the weights move as {told[0].name} does."
    return Wrong(text, "wrong-optimizer")


def _unknown_update() -> Unchecked:
    return Unchecked(
        "What a step does is not known, so steps and passes could not be followed. "
        "Look at the other messages of this task first."
    )


def _learns_throughout(findings: Findings) -> bool:
    """Whether a training that nothing explains still does what training is for.

    As many gradients reached the weights as there are batches in all passes, the weights changed
    after each, and on the host they lower the promised loss, LEARNED times as far as the promised
    training does or more, on average: a count alone could be set.
    """
    counted = all(
        t.course.epochs * len(t.course.batches) == len(t.course.notes) - 1 == len(t.course.steps)
        for t in findings.trials
    )
    return counted and findings.learned >= LEARNED
