"""One loop that both training functions call: its faults are charged in the first task alone."""

from __future__ import annotations

import functools
from collections.abc import Callable

from autograder.cells import own_and_shared, says
from autograder.draws import Draws
from autograder.outcomes import NotAttempted, Stopped, Wrong
from autograder.run import Run
from autograder.submission import Session
from autograder.training_probe import Findings
from autograder.training_verdicts import JUDGED
from autograder.vae import Habits

FIRST, SECOND = "train_autoencoder", "train_vae"
REMARK = "The loop that both training functions share was charged in ae-training."
_STEPS = frozenset({"backward", "step", "zero_grad", "eval"})
_OPTIMISERS = frozenset({"optim", "Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "NAdam", "RAdam"})

# What the second function's own code must not do, for a fault that a check finds to be shared.
_OWN = {
    "update": _STEPS | _OPTIMISERS,
    "stepping": _STEPS,
    "epochs": _STEPS | {"for"},
    "losses": _STEPS | {"for", "append", "extend"},
}

Check = Callable[[Session, Draws, Run, Habits], None]


def charged_once(look: Check) -> Check:
    """A check of the second task that passes where its fault is that of a loop charged before."""
    id = look.__name__.removeprefix("test_")

    @functools.wraps(look)
    def looking(session: Session, draws: Draws, run: Run, habits: Habits) -> None:
        try:
            look(session, draws, run, habits)
        except (NotAttempted, Stopped):
            raise
        except Wrong as fault:
            if not _was_charged(session, run, id, fault):
                raise
            run.remarks["vae-training", id] = REMARK

    return looking


def _was_charged(session: Session, run: Run, id: str, fault: Wrong) -> bool:
    """Whether the first task lost the same check to the same cause, in code that both run."""
    if id not in _OWN:  # what does not learn is charged wherever it does not
        return False
    before = [r for r in run.grade.results if (r.task, r.id) == ("ae-training", id)]
    if not before or before[0].passed:
        return False
    first, second = (run.findings.get(name) for name in (FIRST, SECOND))
    if not isinstance(first, Findings) or not isinstance(second, Findings):
        return False
    if first.recipe is None or second.recipe is None:
        return False
    if id == "losses":
        alike = _said(before[0].message) == _said(fault.message)
    else:
        theirs = [aspect for aspect in second.recipe.deviations() if aspect in JUDGED[id]]
        alike = bool(theirs) and all(_alike(first, second, aspect) for aspect in theirs)
    own, shared = own_and_shared(SECOND, FIRST, session.submission.cells)
    return alike and "backward" in says(shared) and not says(own) & _OWN[id]


def _alike(first: Findings, second: Findings, aspect: str) -> bool:
    """Whether both trainings deviate in the same way."""
    a, b = getattr(first.recipe, aspect), getattr(second.recipe, aspect)
    both_numbers = isinstance(a, float) and isinstance(b, float)
    return abs(a - b) <= 0.02 * abs(b) if both_numbers else bool(a == b)


def _said(message: str) -> str:
    """A message without its subject."""
    return message.partition(" should ")[2] or message
