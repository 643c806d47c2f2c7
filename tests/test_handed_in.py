"""Trained weights that lie beside a notebook: read with care, judged on the host."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import nbformat
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nbformat import NotebookNode
from safetensors.torch import save
from torch.utils.data import DataLoader, TensorDataset

from autograder import learning
from autograder.beta import GOOD, NEAR, SWEEP, is_good, usual_kl
from autograder.digit_files import digits
from autograder.grading import Grade
from autograder.handed_in import Judgement, parse
from autograder.outcomes import Wrong
from autograder.weights_file import BYTES, NAME, content
from solution import TUNED_BETA, VAE, train_vae
from tests.grading import grade
from tests.mutants import REFERENCE

NZ = 16


@cache
def trained() -> bytes:
    """A VAE trained for as long as a learning run, as the notebook saves it."""
    torch.manual_seed(0)
    model = VAE(NZ, TUNED_BETA)
    images = digits("train")[: learning.BATCH * learning.STEPS]
    loader = DataLoader(TensorDataset(images, torch.zeros(len(images))), learning.BATCH)
    train_vae(model, loader, 1, learning.RATE, "cpu")
    return save(model.state_dict(), {"nz": str(NZ)})


def reference(beta: float = TUNED_BETA) -> NotebookNode:
    """The reference's notebook, with another beta."""
    node: NotebookNode = nbformat.read(REFERENCE, as_version=4)
    for cell in node.cells:
        cell.source = re.sub(r"TUNED_BETA = [\d.e-]+", f"TUNED_BETA = {beta!r}", cell.source)
    return node


def range_check(made: Grade) -> tuple[bool, str]:
    """Whether the beta is in the range, and what is said of it."""
    (found,) = (r for r in made.results if (r.task, r.id) == ("beta-tuning", "range"))
    return found.passed, found.message


def test_trained_weights_are_judged_and_nothing_is_trained_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a learning run")

    monkeypatch.setattr(learning.LearningRun, "check", fail)
    tasks = ("vae-training", "beta-tuning")
    made = grade(reference(), tasks=tasks, learning=True, weights=trained())
    assert all(r.outcome == "passed" for r in made.results)
    told = range_check(made)[1]
    assert "reconstruction error of 0.0" in told
    assert "Fréchet distance" in told


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (b"", "empty, a folder, a link, or larger than 64 MB"),
        (b"\xff" * 100, "is not a file of weights"),
        (save({"encoder.weight": torch.zeros(3)}), "do not fit your `VAE(64)`"),
        (save({"x": torch.tensor([float("nan")])}), "are not finite"),
        (save({"x": torch.zeros(1)}, {"nz": "-1"}), "from 1 to 1024, not '-1'"),
        (
            save({"x": torch.zeros(1)}, {"nz": "64.0"}),
            "as a whole number from 1 to 1024, not '64.0'",
        ),
        (save({f"{n:040}": torch.zeros(0) for n in range(3000)}), "holds other things than"),
    ],
)
def test_weights_that_do_not_count_cost_nothing_and_are_explained(
    weights: bytes, said: str
) -> None:
    passed, message = range_check(grade(reference(), tasks=("beta-tuning",), weights=weights))
    assert passed
    assert said in message


def test_weights_do_not_help_a_beta_that_is_out_of_reach() -> None:
    passed, message = range_check(grade(reference(10.0), tasks=("beta-tuning",), weights=trained()))
    assert not passed
    assert "blurred" in message


def test_a_beta_near_the_range_is_right_with_a_good_model_of_its_own() -> None:
    beta = (GOOD[1] * NEAR[1]) ** 0.5
    usual = usual_kl(beta)
    good = Judgement(SWEEP["error"], usual, SWEEP["distance"], 2.3)
    assert is_good(good, beta)
    assert not is_good(Judgement(SWEEP["error"] * 1.1, usual, 1.0, 2.3), beta)
    assert not is_good(Judgement(0.001, usual, SWEEP["distance"] * 1.1, 2.3), beta)
    assert not is_good(Judgement(0.001, usual, 1.0, 1.0), beta), "hardly three classes"
    assert not is_good(Judgement(0.001, 4 * usual, 1.0, 2.3), beta), "of another beta"


@given(st.binary(max_size=300))
def test_nonsense_is_refused(data: bytes) -> None:
    with pytest.raises(Wrong, match=NAME):
        parse(data)


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod."])
def test_weights_of_a_wrapped_model_are_those_of_the_model(wrapper: str) -> None:
    found = parse(save({f"{wrapper}x": torch.zeros(1), f"{wrapper}y": torch.ones(1)}, {"nz": "3"}))
    assert set(found.tensors) == {"x", "y"}
    assert found.nz == 3


def test_only_a_regular_file_of_bearable_size_is_read(tmp_path: Path) -> None:
    assert content(tmp_path) is None
    file = tmp_path / NAME
    file.write_bytes(b"abc")
    assert content(tmp_path) == b"abc"
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_bytes(b"secret")
    if hasattr(os, "O_NOFOLLOW"):
        assert content(tmp_path) == b""
    file.unlink()
    file.mkdir()
    assert content(tmp_path) == b""
    file.rmdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(file)
        assert content(tmp_path) == b""
        file.unlink()
    with file.open("wb") as large:
        large.truncate(BYTES + 1)
    assert content(tmp_path) == b""
    with pytest.raises(Wrong, match="larger than 64 MB"):
        parse(b"")
