"""Notebooks that import packages which are not installed where they are graded."""

from __future__ import annotations

import pytest

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


@pytest.mark.parametrize(
    ("task", "missing"),
    [("ae-training", "import torch.nn.functional as F"), ("encoder", "import torch.nn as nn")],
)
def test_an_import_that_is_missing_is_said_to_be(task: str, missing: str) -> None:
    made = graded(task, (f"{missing}\n", ""))
    assert {r.misconception for r in made.results} == {"not-defined"}
    assert all("Is an import missing?" in r.message for r in made.results)


def test_a_name_that_is_nearly_right_is_told() -> None:
    made = graded("ae-sampling", ("def sample_images(", "def sample_image("))
    assert {r.outcome for r in made.results} == {"not-attempted"}
    assert all("Is `sample_image` meant to be it?" in r.message for r in made.results)


def test_a_variable_of_a_cell_that_stopped_is_told() -> None:
    wrong = ("        z = torch.randn(num_samples", "        z = scale * torch.randn(num_samples")
    made = graded(
        "ae-sampling", ("def sample_images(", "scale = 1 / 0\n\n\ndef sample_images("), wrong
    )
    failed = [r for r in made.results if not r.passed]
    assert {r.misconception for r in failed} == {"hidden-global"}
    assert all("stopped first (ZeroDivisionError" in r.message for r in failed)


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


def test_tables_of_losses_cost_nothing() -> None:
    made = graded(
        "ae-training",
        (IMPORT, f"{IMPORT}\nimport pandas_of_no_kind as pd\nfrom scipy_of_no_kind import smooth"),
        (
            '        print(f"epoch {epoch + 1}',
            """        table = pd.DataFrame([{"loss": loss} for loss in losses])
        table["doubled"] = 2 * table.loss + table["loss"] / 3
        table.to_csv("losses.csv")
        pd.Series(losses).rolling(50).mean().plot()
        smoothed = smooth(losses, sigma=5)
        plt.plot(range(len(losses)), smoothed)
        print(len(smoothed), smoothed.min(), smoothed[-1], [float(v) for v in smoothed][:2])
        print(f"epoch {epoch + 1}""",
        ),
    )
    assert lost(made).get("ae-training", 0) == 0


@pytest.mark.usefixtures("box")
def test_files_on_a_drive_that_is_not_here_cost_nothing() -> None:
    made = graded(
        "ae-training",
        (
            '        print(f"epoch {epoch + 1}',
            """        import os
        os.makedirs("/kaggle/working/runs", exist_ok=True)
        torch.save(model.state_dict(), f"/content/drive/MyDrive/vae/{epoch}.pt")
        plt.savefig("figures/deep/losses.png")
        with open("/home/someone/logs/log.csv", "a") as log:
            log.write("done")
        print(f"epoch {epoch + 1}""",
        ),
    )
    assert lost(made).get("ae-training", 0) == 0


@pytest.mark.usefixtures("box")
def test_a_file_that_is_read_is_not_made_up() -> None:
    line = "    z = torch.load('/content/z.pt')\n"
    made = graded(
        "ae-sampling",
        ("    with torch.no_grad():\n        z =", f"{line}    with torch.no_grad():\n        z ="),
    )
    assert all("FileNotFoundError" in r.message for r in made.results)
