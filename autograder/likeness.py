"""How a loop whose steps nothing explains goes over its loader, whatever it minimises.

That need not be known to compare trainings which end alike if there is a step for every batch,
and passes as asked. What the run claims of itself serves where these bear it out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from autograder import explaining
from autograder.replay import Course, State
from autograder.trial import Trial
from autograder.worker import standins

BATCH, LAST = 7, 4  # images in a batch, and in the last
COUNT = 3 * BATCH + LAST
PASSES = 3
_DROPPED = "Not every batch of the loader is used.", "drops-data"
_STALE = "The same batch is used over and over.", "stale-batch"
_RARE = "There is one step an epoch, not one a batch.", "one-step-an-epoch"
Fault = tuple[str, str | None]
UNLIKE: Fault = "The passes over the loader are not as many as asked for, or unlike.", None


def faults(run: Callable[[Course], Trial], course: Course) -> dict[str, Fault] | None:
    """What is wrong with steps and passes, by check; None where the same training varies.

    run: a training. course: of `COUNT` images, in batches of `BATCH`, and one pass.
    """
    images = course.images

    def ends(images: torch.Tensor, epochs: int = 1) -> Trial:
        return run(replace(course, images=images, epochs=epochs))

    def alike(one: State, other: State) -> bool:
        return explaining.same(course, one, other)

    grown = [ends(images[:count]) for count in (*range(BATCH, COUNT, BATCH), COUNT)]
    whole = grown[-1].state
    if not alike(whole, ends(images).state):
        return None
    found: dict[str, Fault] = {}
    first, last = images.clone(), images.clone()
    first[0], last[-1] = images[-1], images[0]
    states = [course.state, *(trial.state for trial in grown)]
    if any(map(_stands_till_the_end, _noted(grown))):
        found["stepping"] = _RARE
    elif any(alike(*two) for two in itertools.pairwise(states)):
        found["stepping"] = _DROPPED
    elif alike(whole, ends(last).state):
        found["stepping"] = _STALE
    elif alike(whole, ends(first).state):
        found["stepping"] = _DROPPED
    elif any(len(seen) > 1 for seen in _noted(grown)) and not _goes_on(course, grown):
        found["stepping"] = "There is not exactly one step for every batch.", None
    two = images[: 2 * BATCH]
    asked = ends(two, PASSES)
    if found.get("stepping") == _RARE and len(asked.course.notes) - 1 == 2 * PASSES:
        return found
    counts = (PASSES, 1, PASSES - 1, PASSES + 1, 2 * PASSES)
    made = [n for n in counts if alike(asked.state, ends(torch.cat([two] * n)).state)]
    if len(made) != 1:  # where nothing moves, all are alike
        found["epochs"] = UNLIKE
    elif made != [PASSES]:
        text = f"Asked for {PASSES} passes over the loader, it makes another number."
        found["epochs"] = text, "wrong-epochs"
    return found


def _noted(trials: list[Trial]) -> Iterator[list[torch.Tensor]]:
    """Weights at the backward passes of each training, and at its end."""
    for trial in trials:
        yield [note.weights for note in trial.course.notes]


def _stands_till_the_end(noted: list[torch.Tensor]) -> bool:
    """Whether weights were the same at several backward passes, and others after the last."""
    if len(noted) < 3:
        return False
    first, *others, end = noted
    stand = all(torch.equal(seen, first) for seen in others)
    return stand and not torch.equal(first, end)


def _goes_on(course: Course, grown: list[Trial]) -> bool:
    """Whether trainings on more and more batches go on where the one before ended."""
    states = [course.state, *(trial.state for trial in grown)]
    ends = [standins.sample(state["decoder.0.weight"]).double() for state in states]
    return all(
        # with which weights it begins is for the update to judge
        len(seen) == count + 1 and all(map(torch.equal, seen[1:], ends[1:]))
        for count, seen in enumerate(_noted(grown), 1)
    )
