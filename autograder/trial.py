"""A training of a tiny model by the student's function, and what is claimed of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autograder import explaining, recipes, replay
from autograder.loss_series import number
from autograder.recipes import Recipe
from autograder.replay import Course, Note, State, Told
from autograder.worker import standins

# of how far a weight moved: what rounding does to a steady course, one time in some hundreds, stays
# below it, so that a training as near as this differs if it does so on several courses
NEAR, REPEATED = 0.1, 3


@dataclass
class Trial:
    """One training by the student's function: the draw, the weights it left, what it returned."""

    course: Course
    state: State
    returned: Any
    cleared: bool  # no gradients were left at the end
    reseeded: bool = False  # whether a random number came twice
    kept: bool = False  # whether the batches of one pass served for several
    lent: bool = False  # whether layers that the model has for the looks were part of it

    @property
    def differentiated(self) -> bool:
        """Whether a gradient reached the weights at some time."""
        return len(self.course.notes) > 1


def promised(trial: Trial) -> bool:
    """Whether the promised training gives the same weights."""
    return explaining.same(trial.course, trial.state, trial.course.promised.state)


def not_by_rounding(trial: Trial, times: int) -> bool:
    """Whether a training that is not as promised is so by more than rounding.

    times: how many trainings on other courses came before it.
    """
    course = trial.course
    near = explaining.same(course, trial.state, course.promised.state, NEAR)
    return (times + 1 >= REPEATED or not near) and explaining.is_steady(course)


def learned(trial: Trial) -> float:
    """How many times as far as the promised training it lowered the promised loss, at most 1.

    The encoder alone is to do so as well: an image in the decoder's bias lowers the loss, too.
    """
    course = trial.course
    start = replay.loss_of(course, course.state)

    def gone(by: State, part: str) -> float:
        state = {n: by[n] if n.startswith(part) else v for n, v in course.state.items()}
        return start - replay.loss_of(course, state)

    found = []
    for part in ("encoder.", ""):
        way, seen = gone(course.promised.state, part), gone(trial.state, part)
        found.append(min(seen / way, 1.0) if way > 0 and math.isfinite(seen) else 0.0)
    return min(found)


def notes_of(told: Any) -> tuple[Note, ...]:
    """What the stand-in noted, as far as it has the form."""
    marks = standins.MARKS
    size = (marks + standins.SAMPLE,)
    rows = told if isinstance(told, list) else []
    return tuple(
        Note(bool(row[0]), bool(row[1]), row[marks:].double(), *map(float, row[2:marks]))
        for row in rows
        if isinstance(row, Tensor) and row.is_floating_point() and tuple(row.shape) == size
    )


def given_of(rows: Any, course: Course) -> tuple[tuple[Tensor, Tensor], ...]:
    """Inputs and targets that the stand-in noted, as far as they have the form of batches."""
    shape, found = course.images.shape[1:], []
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, list) or len(row) != 2:
            return ()
        images = [x for x in row if isinstance(x, Tensor) and x.is_floating_point()]
        if [x.shape[1:] for x in images] != [shape, shape]:
            return ()
        found.append((row[0].float(), row[1].float()))
    return tuple(found)


def told_of_steps(rows: Any) -> tuple[Told, ...]:
    """What the stand-in noted of the optimiser, as far as it has the form."""
    found = []
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, list) or len(row) != 3 or not isinstance(row[2], dict):
            return ()
        step, kind, options = row
        if not isinstance(step, int) or not isinstance(kind, str) or kind not in recipes.KINDS:
            return ()
        chosen = {k: options[k] for k in recipes.OPTIONS if _is_option(options.get(k))}
        found.append(Told(step, kind, chosen))
    return tuple(found)


def _is_option(value: Any) -> bool:
    """Whether a claim may be the option of an optimiser: a number, a truth value or two numbers."""
    if isinstance(value, tuple):
        return len(value) == 2 and all(isinstance(v, int | float) for v in value)
    return isinstance(value, int | float)


def compares_with_itself(recipe: Recipe, trials: list[Trial]) -> bool:
    """Whether the reconstruction error is zero by the student's own count, and gives no step.

    A gradient must have reached the weights, be it zero: else nothing was compared at all.
    """
    nothing = recipe.criterion in ("kl_loss alone", "beta * kl_loss") or (
        recipe.steps == "never" and all(trial.differentiated for trial in trials)
    )
    return nothing and all(_no_error(trial) for trial in trials)


def _no_error(trial: Trial) -> bool:
    told = trial.returned.get("rec_loss") if isinstance(trial.returned, dict) else trial.returned
    values = [number(v) for v in told] if isinstance(told, list | tuple) and told else [None]
    return all(v is not None and abs(v) < 1e-9 for v in values)


def forward_passes(trial: Trial) -> int:
    """How many there were in train mode, as batch norm counts them; -1 where it does not."""
    count = trial.state.get("encoder.2.num_batches_tracked", torch.tensor(-1))
    return int(count) if count.numel() == 1 else -1


def is_like(state: dict[Any, Any], first: State) -> bool:
    """Whether the same weights are there, of the same shapes and dtypes."""
    return set(state) == set(first) and all(
        isinstance(state[n], Tensor) and (state[n].shape, state[n].dtype) == (v.shape, v.dtype)
        for n, v in first.items()
    )


def untouched(trial: Trial) -> bool:
    """Whether the model was never run in train mode, nor changed."""
    return forward_passes(trial) == 0 and not explaining.moved(trial.course, trial.state)
