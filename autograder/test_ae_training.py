"""`train_autoencoder(model, data_loader, epochs, learning_rate, device)`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from autograder import training_verdicts
from autograder.checks import check
from autograder.draws import Draws
from autograder.interface import Interface
from autograder.learning import LearningRun
from autograder.loss_series import check_series
from autograder.outcomes import NotAttempted, Stopped, Unchecked, Wrong
from autograder.run import Run
from autograder.submission import Session
from autograder.training_probe import Findings, Trainer

TRAINER = Trainer("train_autoencoder", "TinyAutoEncoder")


@check("ae-training", "update", 1.5)
def test_update(session: Session, draws: Draws, run: Run) -> None:
    """A step is Adam's, of the rate asked for, on the mean squared error."""
    findings = findings_of(TRAINER, session, draws, run)
    training_verdicts.check_update(TRAINER, session, draws, findings)


@check("ae-training", "stepping", 1.5)
def test_stepping(session: Session, draws: Draws, run: Run) -> None:
    """One step for every batch, with fresh gradients, in train mode."""
    findings = findings_of(TRAINER, session, draws, run)
    training_verdicts.check_stepping(TRAINER, session, findings)


@check("ae-training", "epochs", 1)
def test_epochs(session: Session, draws: Draws, run: Run) -> None:
    """As many passes over the loader as asked for."""
    findings = findings_of(TRAINER, session, draws, run)
    training_verdicts.check_epochs(TRAINER, session, draws, findings)
    run.remarks["ae-training", "epochs"] = training_verdicts.remark_on_epochs(findings)


@check("ae-training", "losses", 1)
def test_losses(session: Session, draws: Draws, run: Run) -> None:
    """Returns the loss of every step as a list of floats."""
    findings = findings_of(TRAINER, session, draws, run)
    for trial, after, tolerance in findings.returned():
        expected = findings.series(trial, "promised", "total")
        what, known = "The returned losses", bool(findings.recipe) and not findings.lent
        check_series(trial.returned, expected, what, known, partial(after, "promised"), tolerance)


@check("ae-training", "learning", 1)
def test_learning(session: Session, draws: Draws, run: Run) -> None:
    """Trained by it on digits, the student's own auto-encoder gets as far as a right one."""
    check_learning(TRAINER, LearningRun("ae", TRAINER.name), session, draws, run)


def check_learning(
    trainer: Trainer,
    whole: LearningRun,
    session: Session,
    draws: Draws,
    run: Run,
    settled: bool = False,
) -> None:
    """The training of the whole, unless what is known of its parts settles it; raises `Wrong`.

    settled: whether it is known to learn.
    """
    findings = findings_of(trainer, session, draws, run)
    training_verdicts.check_fruitful(trainer, session, findings)
    explained = findings.recipe is not None and bool(findings.recipe.deviations())
    if not run.learning or explained or settled:
        return
    whole = replace(whole, wrong=run.wrong_parts(whole.task), interface=findings.interface)
    if not _learns_on_gpu(whole, draws, run):
        whole.check(session, draws)


def _learns_on_gpu(whole: LearningRun, draws: Draws, run: Run) -> bool:
    """Whether there is a GPU, and the whole passes there."""
    if run.on_gpu is None:
        return False
    try:
        with run.on_gpu.session(draws.integer(0, 2**62)) as session:
            whole.check(session, draws, run.device)
    except Wrong:  # it may be the device's doing
        return False
    return True


def findings_of(trainer: Trainer, session: Session, draws: Draws, run: Run) -> Findings:
    """The findings on a training function, made once in a run."""
    if trainer.name not in run.findings:
        interface = run.habits.interface if run.habits else Interface()
        run.findings[trainer.name] = _found(trainer, session, draws, interface)
    found: Findings = run.findings[trainer.name]
    return found


def _found(trainer: Trainer, session: Session, draws: Draws, interface: Interface) -> Findings:
    """The findings with a model that speaks as the student's, or as promised if that goes right."""
    known: Findings | None = None
    failed: Unchecked | None = None
    for way in [interface] if interface.promised else [interface, Interface()]:
        try:
            found = trainer.find(session, draws, way)
        except (NotAttempted, Stopped):
            raise
        except Unchecked as error:
            failed = failed or error
            continue
        if found.right:
            return found
        known = known or found
    if known is None:
        assert failed is not None
        raise failed
    return known
