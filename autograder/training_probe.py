"""What both training tasks share: run the student's loop on a tiny model, and explain it."""

from __future__ import annotations

import ast
import contextlib
import itertools
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from autograder import replay
from autograder.compare import described
from autograder.contract import ARGUMENTS
from autograder.draws import Draws
from autograder.outcomes import NotAttempted, Raised, Stopped, Unchecked, Wrong
from autograder.reads import numbers_read, sizes_written
from autograder.replay import Course, Note, Recipe, State, Terms, Told
from autograder.submission import Session
from autograder.worker import standins
from autograder.worker.wire import Graph, Number

_UPDATE = {
    "optimiser": "wrong-optimizer",
    "renewed": "wrong-optimizer",
    "decay": "wrong-learning-rate",
    "rate": "wrong-learning-rate",
    "share": "wrong-learning-rate",
    "part": "wrong-learning-rate",
    "criterion": "wrong-criterion",
    "scale": "wrong-criterion",
    "warm": "wrong-criterion",
    "rows": "drops-data",
    "inputs": "wrong-target",
    "target": "wrong-target",
    "frozen": "detached-gradient",
}
_DEFINED = re.compile(r"^\s*(?:def|class)\s+(\w+)", re.MULTILINE)
_ARGUMENTS = ("beta", "rate", "epochs")
_DROPPING = ("first of each pass", "all but the last", "all but the first", "whole ones")
REDRAWS = 8  # of courses on which rounding grows; at most one in twenty is of that kind
_STEPPING = {
    "mode": "eval-mode-training",
    "steps": "no-step",
    "clears": "gradients-accumulate",
    "batches": "stale-batch",
}


_SCALED = (
    "sum of squares",
    "squares summed over pixels",
    "half of the squares",
    "mean square over the number of batches",
)


_CRITERIA = {
    "every image with every other": "wrong-target",
    "rec_loss + kl_loss": "beta-ignored",
    "rec_loss - beta * kl_loss": "kl-sign",
}


# Nothing is learnt from these, whatever the model; otherwise a run has to tell.
_FRUITLESS = {
    "optimiser": ("Adam that maximises",),
    "criterion": ("minus the mean square", "minus the total"),
    "steps": ("never",),
    "epochs": ("none",),
    "target": tuple({*replay.TARGETS} - {"input", *replay.INPUTS} | {"inverted input"}),
}


@dataclass
class Trial:
    """One training by the student's function: the draw, the weights it left, what it returned."""

    course: Course
    state: State
    returned: Any
    cleared: bool  # no gradients were left at the end
    reseeded: bool = False  # whether a random number came twice

    @property
    def differentiated(self) -> bool:
        """Whether a gradient reached the weights at some time."""
        return len(self.course.notes) > 1


@dataclass
class Findings:
    """The trials of one function, and the recipe that explains them all, if one does.

    variable: of the notebook, that had to hold an argument, `rate`, `epochs` or `beta`, for that.
    late: the trial with many steps, where it is not as the short ones promise; stop: the step after
    which it ended, if that is why.
    """

    trials: list[Trial]
    recipe: Recipe | None
    variable: tuple[str, str] | None = None
    late: Trial | None = None
    stop: int | None = None
    evaluates: bool = False
    unmoved: bool = False  # whether batches stay where they are, whatever the device

    @property
    def right(self) -> bool:
        """Whether the promised training explains the trials."""
        return self.recipe is not None and not self.recipe.deviations()

    def trained(self, trial: Trial) -> replay.Trained:
        """What the recipe gives for a trial, or the promise where none is known."""
        if self.recipe is None or self.right:
            return trial.course.promised
        return replay.train(trial.course, self.recipe)

    def series(self, trial: Trial, *names: str) -> list[list[float]]:
        """What may be returned of a trial: its losses by these names, one a step or one a batch."""
        found = [self.trained(trial).losses[name] for name in names]
        if self.recipe is not None and self.recipe.batches == "each twice":
            found += [losses[start::2] for losses in found for start in (0, 1)]
        return found

    def follows(self, *arguments: str) -> str | None:
        """The variable of the notebook that stands where one of these arguments belongs."""
        found = self.variable
        return found[0] if found is not None and found[1] in arguments else None

    @property
    def terms(self) -> Terms:
        """What the stand-in's loss returned beside the total."""
        return self.trials[0].course.terms


class Trainer:
    """A training function of the student's, by name, and the tiny model it is handed."""

    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind = name, kind

    def courses(self, draws: Draws, terms: Terms) -> list[Course]:
        """One step; one pass with a smaller last batch; three passes."""
        shapes = ((7, 7, 1), (3 * 8 + 6, 8, 1), (13, 7, 3))
        rate = 10 ** draws.real(-3.7, -2.3)
        return [replay.draw_course(draws, self.kind, terms, *shape, rate) for shape in shapes]

    def trial(self, session: Session, course: Course, elsewhere: bool = False) -> Trial:
        """Train by the student's function; raises `Unchecked`.

        elsewhere: on batches that are on another device than the one asked for.
        """
        arguments: tuple[Any, ...] = ()
        if self.kind == "TinyVariational":
            terms = course.terms
            arguments = (3, course.beta, terms.numbers, terms.extra, list(terms.outputs))
            arguments += (terms.swapped,)
        model = session.make(self.kind, *arguments)
        session.ask("load", model, course.state)
        session.ask("mode", model, True)
        session.ask("note_steps", model)
        loader = session.make("loader", course.images, course.batch_size, elsewhere)
        function = session.read(self.name)
        returned = session.call(function, model, loader, course.epochs, course.rate, "cpu")
        state, cleared = session.ask("state", model), session.ask("cleared", model)
        if not isinstance(state, dict) or not _is_like(state, course.state):
            raise Unchecked("After training, the model has other weights than before.")
        end = Note(True, standins.sample(state["decoder.0.weight"]).double())
        course = replace(
            course,
            notes=(*_notes(session.attribute(model, "noted")), end),
            told=_told(session.attribute(model, "stepped")),
        )
        drawn = session.attribute(model, "drawn") if self.kind == "TinyVariational" else []
        numbers = [v for v in drawn if isinstance(v, float)] if isinstance(drawn, list) else []
        reseeded = len(set(numbers)) < len(numbers)
        return Trial(course, state, returned, cleared is True, reseeded)

    def find(self, session: Session, draws: Draws, terms: Terms) -> Findings:
        """Run the trials and look for what explains them; raises `Unchecked`."""
        courses = self.courses(draws, terms)
        try:
            trials = [self.trial(session, course) for course in courses]
            for _ in range(REDRAWS):
                if all(_promised(t) or replay.is_steady(t.course) for t in trials):
                    break
                courses = self.courses(draws, terms)
                trials = [self.trial(session, course) for course in courses]
        except (NotAttempted, Stopped):
            raise
        except Raised as error:
            if terms.numbers != "graph":  # the loop may be made for a loss that keeps its graph
                with contextlib.suppress(Unchecked):
                    return self.find(session, draws, replace(terms, numbers="graph"))
            found = self._without_single_batches(session, courses)
            if found is not None:
                return found
            raise self._explain_error(session, courses, error) from error
        if all(_untouched(t) for t in trials):
            text = f"`{self.name}` does not train the model that it is handed."
            raise Unchecked(text, "uses-global-model")
        found = self._explain(session, trials)
        recipe = found.recipe
        if recipe is None:
            self._look_for_other_data(session, trials[0])
        if recipe is not None and _compares_with_itself(recipe, trials):
            found.recipe = Recipe(target="own output")
        if recipe is not None and not recipe.deviations() and found.variable is None:
            found.late = self._look_late(session, draws, terms)
            if found.late is not None and not _promised(found.late):
                found.stop = replay.stops_after(found.late.course, found.late.state)
                found.evaluates = replay.changes_mode(found.late.course, found.late.state)
            found.unmoved = self._leaves_batches(session, courses[0])
        return found

    def _without_single_batches(self, session: Session, courses: list[Course]) -> Findings | None:
        """What is known of a training that raises where a pass is one batch, which it drops."""
        try:
            trials = [self.trial(session, course) for course in courses[1:]]
        except Raised:
            return None
        states = [trial.state for trial in trials]
        for which in _DROPPING:
            recipe = Recipe(batches=which)
            if replay.fits([t.course for t in trials], states, recipe):
                return Findings(trials, recipe)
        return None

    def _leaves_batches(self, session: Session, course: Course) -> bool:
        """Whether batches that are not on the device asked for reach the model.

        Moving them to a GPU alone (`if device == "cuda": x = x.cuda()`) cannot be seen here.
        """
        if any(map(_calls_cuda, _cells_behind(self.name, session.submission.cells))):
            return False
        try:
            self.trial(session, course, elsewhere=True)
        except Raised as error:
            return error.mismatch
        return False

    def _trains_on_other_data(self, session: Session, trial: Trial) -> bool:
        """Whether the model sees the same where the loader has other images, or none at all."""
        course, seen = trial.course, "encoder.2.running_mean"
        try:
            other = self.trial(session, replace(course, images=1 - course.images))
            if torch.equal(other.state[seen], trial.state[seen]):
                return replay.moved(course, trial.state) and _forward_passes(trial) > 0
            none = self.trial(session, replace(course, images=course.images[:0]))
        except Raised:
            return False
        return none.differentiated and replay.moved(course, none.state)

    def _look_for_other_data(self, session: Session, trial: Trial) -> None:
        """Raise `Unchecked` where data of the notebook are trained on, not those of the loader."""
        reads = session.reads(self.name)
        names = [n for n, kind in reads.items() if kind in ("value", "tensor")]
        if names and self._trains_on_other_data(session, trial):
            text = f"`{self.name}` trains on other data than the loader that it is handed. It reads"
            slug = "stale-batch" if "tensor" in reads.values() else "hidden-global"
            raise Unchecked(f"{text} the notebook's `{names[0]}`.", slug)

    def _explain(self, session: Session, trials: list[Trial]) -> Findings:
        """The recipe of the trials, or of trials with a variable of the notebook set."""
        courses = [t.course for t in trials]
        recipe = replay.explain(courses, [t.state for t in trials])
        if recipe is None:
            for name, what in itertools.product(numbers_read(session, self.name), _ARGUMENTS):
                again = self._with_variable(session, courses, name, what)
                if again and all(_promised(t) for t in again):
                    return Findings(again, Recipe(), (name, what))
        return Findings(trials, recipe)

    def _with_variable(
        self, session: Session, courses: list[Course], name: str, what: str
    ) -> list[Trial]:
        """The trials, or the first that is not as promised, with a variable set to an argument."""
        before, trials = session.read(name), list[Trial]()
        for course in courses:
            session.set_global(name, getattr(course, what))
            try:
                trials.append(self.trial(session, course))
            except (NotAttempted, Stopped):
                raise
            except Unchecked:
                return []
            finally:
                session.set_global(name, before)
            if not _promised(trials[-1]):
                break
        return trials

    def _look_late(self, session: Session, draws: Draws, terms: Terms) -> Trial | None:
        """A trial of many passes or many batches that does not go on as it begins."""
        return self._deviating(
            session,
            lambda: replay.draw_dull(draws, self.kind, terms),
            lambda trial: not _promised(trial),
        ) or self._deviating(
            session,
            lambda: replay.draw_long(draws, self.kind, terms),
            lambda trial: (
                not _promised(trial) or replay.keeps_second_moments(trial.course, trial.state)
            ),
        )

    def _deviating(
        self, session: Session, draw: Callable[[], Course], deviates: Callable[[Trial], bool]
    ) -> Trial | None:
        """A trial that deviates, on a course where rounding is not to blame."""
        for _ in range(REDRAWS):
            trial = self.trial(session, draw())
            if not deviates(trial):
                return None
            if replay.is_steady(trial.course):
                return trial
        return None

    def _explain_error(self, session: Session, courses: list[Course], error: Raised) -> Wrong:
        if error.misconception not in (None, "hidden-global"):
            return error
        if session.misreads_arguments(self.name):
            promised = ", ".join(ARGUMENTS[self.name])
            text = f"`{self.name}` should take {promised}, in this order."
            return Unchecked(text, "wrong-signature")
        reads = session.reads(self.name)
        loaders = [n for n, kind in reads.items() if kind in ("value", "undefined")]
        if "the graph a second time" in error.text or "by an inplace operation" in error.text:
            where = error.where or "your loop"
            text = f"In {where} the backward pass meets the graph of an earlier step:"
            text = f"{text} each step needs a loss of its own batch alone."
            return Unchecked(text, "gradients-accumulate")
        if "does not require grad" in error.text:
            text = f"{error.message} Something in the loop cuts the gradient."
            return Unchecked(text, "detached-gradient")
        if self._runs_with_globals(session, courses[0]):
            return Unchecked(
                f"{error.message} It needs variables of the notebook.", "hidden-global"
            )
        for size in sizes_written(session, self.name):
            if self._runs_with_batches_of(session, courses[0], size):
                text = f"`{self.name}` works for batches of {size} only."
                return Unchecked(text, "hard-coded-batch")
        if "module" in reads.values():
            text = f"{error.message} Use the model that the function is handed."
            return Unchecked(text, "uses-global-model")
        if "tensor" in reads.values():
            text = f"{error.message} Use the batches of the loader that the function is handed."
            return Unchecked(text, "stale-batch")
        if error.type == "NameError" and error.name in reads:
            text = f"{error.message} `{error.name}` is no argument of `{self.name}`."
            return Unchecked(text, "hidden-global")
        if loaders:
            text = f"{error.message} It reads the notebook's `{loaders[0]}`; use the arguments."
            return Unchecked(text, "hidden-global")
        return error

    def _runs_with_batches_of(self, session: Session, course: Course, size: int) -> bool:
        images = course.images[torch.arange(size) % len(course.images)]
        try:
            self.trial(session, replace(course, images=images, batch_size=size))
        except Raised:
            return False
        return True

    def _runs_with_globals(self, session: Session, course: Course) -> bool:
        for name in numbers_read(session, self.name):
            before = session.read(name)
            for value in (course.epochs, course.rate, course.batch_size):
                session.set_global(name, value)
                try:
                    self.trial(session, course)
                    return True
                except Raised:
                    continue
                finally:
                    session.set_global(name, before)
        return False

    def _replaces(self, session: Session, findings: Findings, what: str) -> str | None:
        """The notebook's variable in the place of an argument, found by setting each in turn."""
        courses = [t.course for t in findings.trials]
        for name in numbers_read(session, self.name):
            again = self._with_variable(session, courses, name, what)
            if again and all(_promised(t) for t in again):
                return name
        return None

    def check_update(self, session: Session, draws: Draws, findings: Findings) -> None:
        """Optimiser, rate, criterion, target, and a whole gradient; raises `Wrong`."""
        recipe = findings.recipe
        name = findings.follows("rate", "beta")
        if name is not None:
            text = f"The steps follow the notebook's `{name}`, not the argument or the model."
            raise Wrong(text, "hidden-global")
        if recipe is None and _goes_as_promised(findings):
            text = "The steps are as promised, but then the model is given other weights than"
            raise Wrong(f"{text} those of the last step.")
        if recipe is None:
            self._check_first_step(session, draws, findings)
            return
        if findings.late is not None and findings.stop is None and not findings.evaluates:
            name = replay.optimiser_of(findings.late.course, findings.late.state)
            if name is not None:
                text = f"Expected Adam with its defaults; the weights move as {name} does."
                raise Wrong(text, "wrong-optimizer")
            for size in sizes_written(session, self.name):
                if replay.uses_first_rows(findings.late.course, findings.late.state, size):
                    text = f"Of every batch, the training uses the first {size} images only."
                    raise Wrong(text, "drops-data")
            text = "In a longer training the steps do not stay as they begin"
            raise Wrong(f"{text}: does the rate change on the way?", "wrong-learning-rate")
        for aspect, slug in _UPDATE.items():
            if aspect in recipe.deviations():
                raise self._update_fault(session, findings, recipe, aspect, slug)

    def _update_fault(
        self,
        session: Session,
        findings: Findings,
        recipe: Recipe,
        aspect: str,
        slug: str,
    ) -> Wrong:
        value = getattr(recipe, aspect)
        if aspect == "rate":
            name = self._replaces(session, findings, "rate")
            if name is not None:
                text = f"The rate comes from the notebook's `{name}`, not from the argument."
                return Wrong(text, "hidden-global")
            return Wrong("The steps are not of the learning rate that was asked for.", slug)
        if value == replay.TOLD:
            return _told_fault(findings)
        if aspect == "optimiser":
            return Wrong(
                f"Expected Adam with its defaults; the weights move as {value} does.", slug
            )
        if aspect == "renewed":
            text = f"The optimiser is made again at every {value}, so that it forgets its past."
            return Wrong(text, slug)
        if aspect == "share":
            text = f"The rate is divided by the number of {value}; it should be as asked."
            return Wrong(text, slug)
        if aspect == "part":
            text = "Encoder and decoder are trained at different rates; both should have the one"
            return Wrong(f"{text} asked for.", slug)
        passes = self._backward_passes(findings)
        if aspect == "scale" and passes > 1:
            text = f"There are {passes} backward passes for every step; their gradients add up."
            return Wrong(text, "gradients-accumulate")
        if aspect == "scale" and self.kind == "TinyAutoEncoder":
            text = "The squared error should be averaged over all pixels; yours is scaled"
            return Wrong(f"{text} by {value:.3g}.", "rec-reduction")
        if aspect == "scale":
            return Wrong(f"What is minimised is {value:.3g} times the total.", slug)
        if aspect == "decay":
            return Wrong("The learning rate changes on the way; it should stay as asked.", slug)
        if aspect == "criterion" and value in _SCALED:
            text = "The squared error should be averaged over all pixels; yours is scaled"
            return Wrong(f"{text} ({value}).", "rec-reduction")
        if aspect == "criterion":
            slug = _CRITERIA.get(value, slug)
            if slug == "wrong-target":
                text = "Every output should be compared with its own input; yours is compared with"
                return Wrong(f"{text} all of them, since the shapes differ and broadcast.", slug)
            return Wrong(f"What is minimised is not the promised loss, but {value}.", slug)
        if aspect == "warm":
            text = "The weight of the KL term should be beta throughout; yours grows by"
            return Wrong(f"{text} {value}.", slug)
        if aspect == "rows":
            return Wrong(f"Not the whole of every batch is used, but {value}.", slug)
        if aspect == "inputs":
            text = "as input and as target" if recipe.target == value else "as input"
            return Wrong(f"The batch should be used as it is; yours takes {value} {text}.", slug)
        if aspect == "target":
            return Wrong(f"The output is compared with {value}, not with the input batch.", slug)
        text = f"Part of the model does not move: {value}. No gradient reaches it, or no step."
        return Wrong(text, slug)

    @staticmethod
    def _backward_passes(findings: Findings) -> int:
        """How many backward passes were noted for every batch."""
        first = findings.trials[0].course
        return (len(first.notes) - 1) // len(first.batches)

    def _check_first_step(self, session: Session, draws: Draws, findings: Findings) -> None:
        """Judge the first step alone where no recipe explains all trials."""
        first = findings.trials[0]
        if _promised(first):
            return
        recipe = replay.explain([first.course], [first.state])
        if recipe is not None and recipe.deviations():
            aspect = recipe.deviations()[0]
            if aspect in _UPDATE:
                raise self._update_fault(session, findings, recipe, aspect, _UPDATE[aspect])
            slug = {**_STEPPING, "epochs": "wrong-epochs"}[aspect]
            raise Wrong(f"The first step is not as promised ({getattr(recipe, aspect)}).", slug)
        if not replay.same(first.course, self.trial(session, first.course).state, first.state):
            text = "Two trainings from the same start differ: inputs or targets are random."
            raise Wrong(text, "wrong-target")
        if replay.steps_as_adam(first.course, first.state):
            text = "The steps are Adam's, but what is minimised is not the promised loss."
            raise Wrong(text, "wrong-criterion")
        raise Wrong("The weights after one step are not those of Adam on the promised loss.")

    def check_stepping(self, session: Session, findings: Findings) -> None:
        """A step for every batch with fresh gradients, in train mode; raises `Wrong`."""
        recipe = findings.recipe
        if recipe is None:
            if _goes_as_promised(findings):
                return  # its end was charged with the update
            if _promised(findings.trials[0]):
                raise Wrong("The weights after a pass are not those of one step for every batch.")
            if not _learns_throughout(findings):
                raise _unknown_update()
            return  # the update was charged
        for aspect, slug in _STEPPING.items():
            if aspect in recipe.deviations():
                raise self._stepping_fault(session, findings, recipe, aspect, slug)
        if findings.stop is not None and _passes(findings) == 1:
            text = f"Of {replay.MANY} batches in a pass, the training uses {findings.stop}."
            raise Wrong(text, "drops-data")
        if findings.evaluates:
            raise Wrong("After some steps the model trains on in eval mode.", "eval-mode-training")
        if findings.unmoved:
            text = "The batches of the loader are not moved to the `device` that is asked for."
            raise Wrong(text, "hard-coded-device")
        if any(trial.reseeded for trial in findings.trials):
            text = "The random numbers are the same at every step: set no seed in the loop."
            raise Wrong(text, "frozen-noise")

    def _stepping_fault(
        self, session: Session, findings: Findings, recipe: Recipe, aspect: str, slug: str
    ) -> Wrong:
        value = getattr(recipe, aspect)
        if aspect == "mode":
            whose = f"The {value.split()[-1]}" if value in replay.PART_MODES else "The model"
            some = ", for some of the steps" if value == replay.NOTED else ""
            return Wrong(f"{whose} is in eval mode while it trains{some}.", slug)
        courses = [t.course for t in findings.trials]
        if recipe.clears in replay.AT_STEPS and all(c.steps_once_a_pass for c in courses):
            return Wrong("There is one step an epoch, not one a batch.", "one-step-an-epoch")
        if recipe.clears in replay.AT_STEPS:
            text = "Gradients of several batches are summed for one step; each batch has its own."
            return Wrong(text, "gradients-accumulate")
        if aspect == "clears" and value in replay.PARTS_CLEARED:
            return Wrong(f"Not all gradients are cleared: {value}.", slug)
        if aspect == "clears":
            return Wrong("Gradients of earlier batches are still there at a step.", slug)
        if aspect == "batches":
            if value in _DROPPING:
                return Wrong("Not every batch of the loader is used.", "drops-data")
            if value == "each twice":
                return Wrong("There are two steps on every batch, where one was asked for.", slug)
            return Wrong("The same batch is used over and over.", slug)
        if value in ("epoch", "end"):
            return Wrong("There is one step an epoch, not one a batch.", "one-step-an-epoch")
        if value == "never":
            if "module" in session.reads(self.name).values():
                text = f"`{self.name}` does not train the model that it is handed."
                return Wrong(text, "uses-global-model")
            if not any(t.differentiated for t in findings.trials):
                text = "No gradient of the loss reaches the weights of the model."
                return Wrong(text, "detached-gradient")
            if all(t.cleared for t in findings.trials):
                text = "The gradients are cleared between the backward pass and the step."
                return Wrong(text, "gradients-accumulate")
            return Wrong("The weights never move: no step follows the backward pass.", slug)
        if value == "delayed":
            return Wrong("The step comes before the backward pass of its batch.", slug)
        return Wrong("There is not exactly one step for every batch.", slug)

    def check_fruitful(self, session: Session, findings: Findings) -> None:
        """Not a training of which the replay shows that it leads nowhere; raises `Wrong`."""
        recipe = findings.recipe
        for aspect, choices in _FRUITLESS.items():
            value = getattr(recipe, aspect, None)
            if value in choices:
                slug = {**_UPDATE, **_STEPPING, "epochs": "wrong-epochs"}[aspect]
                if recipe is not None and aspect in _STEPPING:
                    fault = self._stepping_fault(session, findings, recipe, aspect, slug)
                    slug = fault.misconception or slug
                text = f"Nothing is learnt from such a training ({aspect}: {value})."
                raise Wrong(text, slug)

    def check_epochs(self, session: Session, draws: Draws, findings: Findings) -> None:
        """As many passes as asked for; raises `Wrong`."""
        recipe = findings.recipe
        if recipe is None:
            if not _learns_throughout(findings) and not _goes_as_promised(findings):
                raise _unknown_update()
            return
        if findings.stop is not None and _passes(findings) > 1:
            text = f"The training ends after {findings.stop} steps, before the last pass is over."
            raise Wrong(text, "wrong-epochs")
        if "epochs" in recipe.deviations() or findings.follows("epochs"):
            name = findings.follows("epochs") or self._replaces(session, findings, "epochs")
            if name is not None:
                text = f"The number of passes comes from the notebook's `{name}`."
                raise Wrong(text, "hidden-global")
            raise Wrong(
                f"Asked for 3 passes over the loader, it makes another number: {recipe.epochs}.",
                "wrong-epochs",
            )


def _calls_cuda(cell: str) -> bool:
    """Whether the code of a cell, strings and remarks apart, calls a method `cuda`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nodes = list(ast.walk(ast.parse(cell)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # magics
        return ".cuda(" in cell
    return any(isinstance(node, ast.Attribute) and node.attr == "cuda" for node in nodes)


def _cells_behind(name: str, cells: list[str]) -> list[str]:
    """The cells that define a function, or what is named in such a cell, and so on."""
    found: list[str] = []
    names = {name}
    while new := [c for c in cells if c not in found and names & {*_DEFINED.findall(c)}]:
        found += new
        names.update(word for cell in new for word in re.findall(r"\w+", cell))
    return found


def _promised(trial: Trial) -> bool:
    """Whether the promised training gives the same weights."""
    return replay.same(trial.course, trial.state, trial.course.promised.state)


def _notes(told: Any) -> tuple[Note, ...]:
    """What the stand-in noted, as far as it has the form."""
    size = (1 + standins.SAMPLE,)
    rows = told if isinstance(told, list) else []
    return tuple(
        Note(bool(row[0]), row[1:].double())
        for row in rows
        if isinstance(row, Tensor) and tuple(row.shape) == size
    )


def _told(rows: Any) -> tuple[Told, ...]:
    """What the stand-in noted of the optimiser, as far as it has the form."""
    found = []
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, list) or len(row) != 3 or not isinstance(row[2], dict):
            return ()
        step, kind, options = row
        if not isinstance(step, int) or not isinstance(kind, str) or kind not in replay.KINDS:
            return ()
        chosen = {k: options[k] for k in replay.OPTIONS if _is_option(options.get(k))}
        found.append(Told(step, kind, chosen))
    return tuple(found)


def _is_option(value: Any) -> bool:
    """Whether a claim may be the option of an optimiser: a number, a truth value or two numbers."""
    if isinstance(value, tuple):
        return len(value) == 2 and all(isinstance(v, int | float) for v in value)
    return isinstance(value, int | float)


def _passes(findings: Findings) -> int:
    return 0 if findings.late is None else findings.late.course.epochs


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


def _compares_with_itself(recipe: Recipe, trials: list[Trial]) -> bool:
    """Whether the reconstruction error is zero by the student's own count, and gives no step.

    A gradient must have reached the weights, be it zero: else nothing was compared at all.
    """
    nothing = recipe.criterion in ("kl_loss alone", "beta * kl_loss") or (
        recipe.steps == "never" and all(trial.differentiated for trial in trials)
    )
    return nothing and all(_no_error(trial) for trial in trials)


def _no_error(trial: Trial) -> bool:
    told = trial.returned.get("rec_loss") if isinstance(trial.returned, dict) else trial.returned
    values = [_number(v) for v in told] if isinstance(told, list | tuple) and told else [None]
    return all(v is not None and abs(v) < 1e-9 for v in values)


def _forward_passes(trial: Trial) -> int:
    count = trial.state.get("encoder.2.num_batches_tracked", torch.tensor(-1))
    return int(count) if count.numel() == 1 else -1


def _is_like(state: dict[Any, Any], first: State) -> bool:
    """Whether the same weights are there, of the same shapes and dtypes."""
    return set(state) == set(first) and all(
        isinstance(state[n], Tensor) and (state[n].shape, state[n].dtype) == (v.shape, v.dtype)
        for n, v in first.items()
    )


def _learns_throughout(findings: Findings) -> bool:
    """Whether a training that nothing explains still does what training is for.

    As many gradients reached the weights as there are batches in all passes, the weights changed
    after each, and on the host they lower the promised loss at least half as far as the promised
    training does: a count alone could be set.
    """
    return all(
        t.course.epochs * len(t.course.batches) == len(t.course.notes) - 1 == len(t.course.steps)
        and _learned(t)
        for t in findings.trials
    )


def _goes_as_promised(findings: Findings) -> bool:
    """Whether every step was noted as promised, whatever weights were left in the end."""
    courses = [trial.course for trial in findings.trials]
    return any(map(replay.ends_elsewhere, courses)) and all(map(replay.goes_as_promised, courses))


def _learned(trial: Trial) -> bool:
    course = trial.course
    start, reached = replay.loss_of(course, course.state), replay.loss_of(course, trial.state)
    return reached <= start - 0.5 * (start - replay.loss_of(course, course.promised.state))


def _untouched(trial: Trial) -> bool:
    """Whether the model was never run in train mode, nor changed."""
    return _forward_passes(trial) == 0 and not replay.moved(trial.course, trial.state)


def check_series(
    seen: Any,
    expected: list[list[float]],
    what: str,
    whole: bool = True,
    after: list[float] | None = None,
) -> None:
    """A returned list of losses, one a step, that hold no graph; raises `Wrong`.

    expected: the series that count as right. whole: or only their number is known. after: what
    the losses are once each step is made, which is too late.
    """
    if isinstance(seen, Graph) or (
        isinstance(seen, list | tuple) and any(isinstance(v, Graph) for v in seen)
    ):
        text = f"{what} should hold numbers; yours hold the graph of every step."
        raise Wrong(text, "returns-graph")
    if not isinstance(seen, list | tuple | Tensor):
        raise Wrong(f"{what} should be a list, not {described(seen)}.", "wrong-return")
    steps = len(expected[0])
    length = seen.numel() if isinstance(seen, Tensor) else len(seen)
    expected = [series for series in expected if len(series) == length]
    if not expected:
        text = f"{what} should have one entry a step: {steps}, not {length}."
        raise Wrong(text, "wrong-return")
    if isinstance(seen, Tensor):  # not before: a list of many millions takes all memory
        seen = list(seen.flatten())
    values = [_number(v) for v in seen]
    if any(v is None for v in values):
        raise Wrong(f"{what} should hold numbers.", "wrong-return")
    nearest = min(_apart(values, series) for series in expected)
    if after is not None and len(after) == len(values) and 10 * _apart(values, after) < nearest:
        text = f"{what} should be the losses that the steps go down, not those after each step."
        raise Wrong(text, "wrong-return")
    if not whole or nearest <= 2e-3:
        return
    raise Wrong(f"{what} should be the losses of the steps, in their order.", "wrong-return")


def _apart(values: list[float | None], series: list[float]) -> float:
    """The largest relative difference of two series."""
    return max(
        (
            math.inf if v is None or math.isnan(v) else abs(v - e) / max(abs(e), 5e-4)
            for v, e in zip(values, series, strict=True)
        ),
        default=0.0,
    )


def _number(value: Any) -> float | None:
    if isinstance(value, Number):
        return value.value
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value.double())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return None
