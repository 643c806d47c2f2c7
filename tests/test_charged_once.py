"""What costs nothing more: a reading of q that was charged for, and what only deserves a remark."""

from __future__ import annotations

import pytest

from tests import corpus
from tests.corpus import Edit, Variant
from tests.grading import causes, grade, lost

LOG_VARIANCE = (
    Edit(old="sigma = torch.exp(log_sigma)", new="sigma = torch.exp(0.5 * log_sigma)"),
    Edit(
        old='q_mu, q_log_sigma = torch.chunk(outputs["q"], 2, dim=1)',
        new='q_mu, q_log_var = torch.chunk(outputs["q"], 2, dim=1)',
    ),
    Edit(old="kl = kl_divergence(q_mu, q_log_sigma, zeros, zeros)", new="kl = 1 + q_log_var"),
)
SCALES = {  # of the KL, and the beta that is tuned for it
    "sum": "TUNED_BETA = 1e-4 / 64",
    "mean": "TUNED_BETA = 0.0064",
}


@pytest.mark.parametrize("scale", SCALES)
def test_log_variance_throughout_leaves_a_scale_its_own_price(scale: str) -> None:
    kl = f"kl_loss = -0.5 * torch.{scale}(kl - q_mu.pow(2) - q_log_var.exp())"
    edits = (
        *LOG_VARIANCE,
        Edit(old="kl_loss = kl.sum(dim=1).mean()", new=kl),
        Edit(old="TUNED_BETA = 1e-4", new=SCALES[scale]),
    )
    made = grade(Variant(scale, "vae-loss", edits).notebook())
    assert not made.faults
    assert lost(made) == {"vae-forward": 1.0, "vae-loss": 0.75}
    named = causes(made)
    assert named["vae-forward"] == {"wrong-variance"}
    assert named["vae-loss"] == {"kl-reduction"}


@pytest.mark.parametrize("task", ["ae-training", "vae-training"])
def test_batches_that_are_kept_for_all_passes_are_remarked_on(task: str) -> None:
    for kept in (False, True):
        name = task.replace("training", "batches-of-the-first-pass-kept")
        variant = next(v for v in corpus.variants() if v.name == name)
        edits = variant.edits if kept else ()
        made = grade(Variant("kept", task, edits).notebook(), tasks=(task,))
        passes = next(r for r in made.results if r.id == "epochs")
        assert passes.passed
        assert ("gone through once" in passes.message) is kept
