"""`train_vae(model, data_loader, epochs, learning_rate, device)`.

It is handed a model whose loss returns what the student's own returns: numbers or tensors, and
further keys. `habits` are asked for to know that.
"""

from __future__ import annotations

from functools import partial

from autograder import handed_in, training_verdicts
from autograder.checks import check
from autograder.draws import Draws
from autograder.learning import LearningRun, limit
from autograder.loss_series import check_series
from autograder.outcomes import Wrong
from autograder.run import Run
from autograder.shared_loop import charged_once
from autograder.submission import Session
from autograder.test_ae_training import check_learning, findings_of
from autograder.training_probe import Trainer
from autograder.vae import Habits

TRAINER = Trainer("train_vae", "TinyVariational")


@check("vae-training", "update", 1)
@charged_once
def test_update(session: Session, draws: Draws, run: Run, habits: Habits) -> None:
    """A step is Adam's, of the rate asked for, on the total of `model.loss`."""
    findings = findings_of(TRAINER, session, draws, run)
    training_verdicts.check_update(TRAINER, session, draws, findings)


@check("vae-training", "stepping", 1)
@charged_once
def test_stepping(session: Session, draws: Draws, run: Run, habits: Habits) -> None:
    """One step for every batch, with fresh gradients, in train mode."""
    findings = findings_of(TRAINER, session, draws, run)
    training_verdicts.check_stepping(TRAINER, session, findings)


@check("vae-training", "epochs", 0.5)
@charged_once
def test_epochs(session: Session, draws: Draws, run: Run, habits: Habits) -> None:
    """As many passes over the loader as asked for."""
    findings = findings_of(TRAINER, session, draws, run)
    training_verdicts.check_epochs(TRAINER, session, draws, findings)
    run.remarks["vae-training", "epochs"] = training_verdicts.remark_on_epochs(findings)


@check("vae-training", "losses", 1)
@charged_once
def test_losses(session: Session, draws: Draws, run: Run, habits: Habits) -> None:
    """Returns the two terms of every step, as lists of floats by name."""
    findings = findings_of(TRAINER, session, draws, run)
    known = bool(findings.recipe) and not findings.lent
    for trial, after, tolerance in findings.returned():
        seen = trial.returned
        if not isinstance(seen, dict) or not {"rec_loss", "kl_loss"} <= set(seen):
            text = "`train_vae` should return a dict of the lists 'rec_loss' and 'kl_loss'."
            raise Wrong(text, "wrong-return")
        for name in ("rec_loss", "kl_loss"):
            expected = findings.series(trial, name)
            check_series(seen[name], expected, f"'{name}'", known, partial(after, name), tolerance)


@check("vae-training", "learning", 0.5)
@charged_once
def test_learning(session: Session, draws: Draws, run: Run, habits: Habits) -> None:
    """Trained by it on digits, the student's own VAE gets as far as a right one.

    Trained weights that were handed in show it as well.
    """
    shown = handed_in.judged(session, draws, run)
    settled = shown is not None and shown.error <= limit("vae")
    check_learning(TRAINER, LearningRun("vae", TRAINER.name), session, draws, run, settled)
