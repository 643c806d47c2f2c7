"""Notebooks that import packages which are not installed where they are graded."""

from __future__ import annotations

from autograder.grading import Grade
from tests.corpus import Edit, Variant
from tests.grading import grade, lost

IMPORT = "import torch.nn.functional as F"


def graded(task: str, *edits: tuple[str, str]) -> Grade:
    made = Variant("made", task, tuple(Edit(old=old, new=new) for old, new in edits))
    return grade(made.notebook(), tasks=(task,))


def test_a_module_of_lightning_is_one_of_torch() -> None:
    made = graded(
        "vae-forward",
        (IMPORT, f"{IMPORT}\nimport lightning_of_no_kind as pl"),
        ("class VAE(nn.Module)", "class VAE(pl.LightningModule)"),
    )
    assert not made.faults
    assert lost(made).get("vae-forward", 0) == 0


def test_a_failure_names_the_package_that_is_not_here() -> None:
    made = graded(
        "encoder",
        (IMPORT, f"{IMPORT}\nfrom einops_of_no_kind import rearrange"),
        ("x = torch.flatten(x, start_dim=1)", "x = rearrange(x, 'b c h w -> b (c h w)')"),
    )
    assert len(made.results) == 3
    assert all(
        not r.passed and "`rearrange` could not be imported" in r.message for r in made.results
    )


def test_a_package_for_logs_costs_nothing() -> None:
    made = graded(
        "ae-training",
        (IMPORT, f"{IMPORT}\nimport wandb_of_no_kind as wandb"),
        (
            "losses.append(loss.item())",
            "losses.append(loss.item()); wandb.log({'loss': losses[-1]})",
        ),
    )
    assert lost(made).get("ae-training", 0) == 0
