"""Every attack fails: no undeserved point, no lost honest one, no fault, no trace, in time."""

from __future__ import annotations

import pytest

from autograder import networks, submission
from autograder.contract import BY_ID
from tests.attacks import (
    beliefs,
    claims,
    crashes,
    endings,
    forgeries,
    histories,
    knowing,
    outside,
    patches,
    resources,
    tensors,
    texts,
)
from tests.attacks.attack import BOUND, Attack, assert_holds, carry_out

FAMILIES = (
    endings,
    forgeries,
    patches,
    tensors,
    claims,
    crashes,
    beliefs,
    knowing,
    histories,
    resources,
    outside,
    texts,
)
ATTACKS = [attack for module in FAMILIES for attack in module.ATTACKS]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every fifth attack by default; all of them with --whole-corpus."""
    if "attack" in metafunc.fixturenames:
        whole = metafunc.config.getoption("--whole-corpus")
        metafunc.parametrize("attack", ATTACKS if whole else ATTACKS[::5], ids=str)


@pytest.mark.usefixtures("box")
def test_attack(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "SECONDS_LIMIT", 1.0)  # as tight as the answers
    assert_holds(attack)


@pytest.mark.usefixtures("box")
def test_slow_calls_and_slow_definitions_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that stay below the limit of one answer, and definitions without end."""
    monkeypatch.setattr(submission, "SESSION_SECONDS", 4.0)
    slow = Attack("time", "slow", "ae-sampling", SLOW, says="more than 4 seconds", marks=False)
    assert_holds(slow)
    monkeypatch.setattr(submission, "SESSION_SECONDS", 60.0)
    monkeypatch.setattr(submission, "NOTEBOOK_SECONDS", 4.0)
    slow = Attack("time", "slow", "ae-sampling", SLOW, says="all checks", marks=False, honest=None)
    assert_holds(slow)
    monkeypatch.setattr(submission, "NOTEBOOK_SECONDS", 900.0)
    monkeypatch.setattr(submission, "DEFINITIONS_SECONDS", 6.0)
    endless = Attack("time", "endless", "beta-tuning", ENDLESS, honest=None, marks=False, says="")
    outcome = carry_out(endless)
    assert outcome.grade.score(BY_ID["beta-tuning"]) == 0
    assert "longer than 6 s" in outcome.messages("beta-tuning")
    assert outcome.seconds < BOUND


SLOW = """
def sample_images(model, num_samples, nz):
    time.sleep(1.5)
    return model.decoder(torch.randn(num_samples, nz))
"""
ENDLESS = """
def _attack():
    forge(lambda h, t: (h, t))
    frame = sys._getframe()
    while type(frame.f_locals.get("self")).__name__ != "Worker":
        frame = frame.f_back
    while True:
        frame.f_locals["self"]._answer({"progress": [0, 0]})


TUNED_BETA = _attack()
"""
