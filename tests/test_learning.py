"""Learning runs: what they ask for, where their limits lie, and when they are made."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from autograder import devices, learning
from autograder.contract import BY_ID, PARTS
from autograder.digit_files import digits
from autograder.draws import Draws
from autograder.grading import Grade, Result
from autograder.notebook import Notebook
from autograder.run import Run
from autograder.submission import Submission
from tests import corpus
from tests.grading import causes, grade, lost

CALIBRATION = json.loads(learning.CALIBRATION.read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", ["ae", "vae"])
def test_limits_lie_between_the_worst_reference_and_the_mean_image(kind: str) -> None:
    found = CALIBRATION[kind]
    largest = max(spelling["largest"] for spelling in found["spellings"].values())
    assert 1.1 * largest < learning.limit(kind) < found["mean_image"] / 1.1


def test_false_alarms_of_a_notebook_are_below_one_in_a_million() -> None:
    rates = [max(s["false_alarms"] for s in CALIBRATION[k]["spellings"].values()) for k in _KINDS]
    assert CALIBRATION["seeds"] >= 20
    assert sum(rates) < 1e-6


_KINDS = ("ae", "vae")


def test_the_mean_image_has_not_learnt() -> None:
    mean = digits("train").mean(0)
    reached = learning.error(
        lambda x: torch.zeros(len(x), learning.NZ),
        lambda z: mean.expand(len(z), 1, 28, 28),
        digits("t10k")[:300],
        Draws(1, "test"),
    )
    assert reached > max(map(learning.limit, _KINDS))


def test_low_bits_of_the_latent_carry_no_picture() -> None:
    """784 pixels in the last bits of 32 numbers do not survive the noise."""
    weights = 2.0 ** -torch.arange(1, 26, dtype=torch.float64)

    def encode(x: Tensor) -> Tensor:
        bits = torch.nn.functional.pad((x.flatten(1) > 0.5).double(), (0, 16))
        return 1 + 2.0**-20 * (bits.view(len(x), learning.NZ, 25) * weights).sum(2)

    def decode(z: Tensor) -> Tensor:
        rest, bits = ((z - 1) * 2.0**20).clamp(0, 1), []
        for weight in weights:
            bits.append((rest >= weight).double())
            rest = rest - bits[-1] * weight
        return torch.stack(bits, 2).flatten(1)[:, :784].view(-1, 1, 28, 28)

    binary = (digits("t10k")[:200] > 0.5).double()
    assert torch.equal(decode(encode(binary)), binary)
    assert learning.error(encode, decode, binary, Draws(1, "test")) > learning.limit("vae")


@pytest.mark.parametrize(
    ("failed", "replaced"),
    [
        ((), set()),
        (("encoder",), {"encoder"}),
        (("vae-loss",), set()),
        (("data-loader",), set()),
    ],
)
def test_what_was_charged_is_not_charged_again(failed: tuple[str, ...], replaced: set[str]) -> None:
    run = Run(Grade(Notebook("vae.ipynb", [])), _none(), 1)
    run.grade.results += [Result(task, "check", 1, "wrong") for task in failed]
    assert run.wrong_parts("ae-training") == replaced
    assert run.wrong_parts("vae-training") == replaced | ({*failed} & {"vae-loss"})
    run.grade.results += [Result("ae-training", "learning", 1, "wrong", "", "does-not-learn")]
    assert run.wrong_parts("vae-training") == {*PARTS["vae-training"]}


def test_a_network_that_gives_no_numbers_is_wrong_and_no_fault() -> None:
    """A training that puts a network of booleans in the place of a decoder that was charged."""
    work = next(m for m in corpus.mistakes() if m.name == "decoder-starts-at-3x3")
    source = work.source.replace(
        "def train_autoencoder(",
        """class Dark(nn.Module):
    def forward(self, z):
        return z.sum(1)[:, None, None, None].expand(-1, 1, 28, 28) > 0


def train_autoencoder(""",
    ).replace(
        "    return losses\n",
        """    if sum(p.numel() for p in model.parameters()) > 50_000:
        model.decoder = Dark()
    return losses
""",
    )
    tasks = ("encoder", "decoder", "ae-training")
    made = grade(corpus.as_notebook(source), tasks=tasks, learning=True)
    assert not made.faults
    assert {t: p for t, p in lost(made).items() if t in tasks} == {"decoder": 1, "ae-training": 1}


def _none() -> Submission:
    return Submission.__new__(Submission)


def test_a_wrong_part_leaves_the_learning_to_its_own_task() -> None:
    """Latents that are always 0 learn nothing, and cost the encoder alone."""
    work = next(m for m in corpus.mistakes() if m.name == "ae-weights-start-at-zero")
    source = work.source.replace("return self.fc(x)", "return self.fc(0 * x)")
    made = grade(
        corpus.as_notebook(source), tasks=("encoder", "decoder", "ae-training"), learning=True
    )
    assert {t: p for t, p in lost(made).items() if t in ("decoder", "ae-training")} == {}
    assert causes(made).keys() == {"encoder"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("vae-large-models-stand-still", "loss-rec-nan-to-num"),
        ("vae-forgets-its-convolutions", "encoder-takes-no-argument"),
        ("ae-weights-start-at-zero", "decoder-starts-at-3x3"),
        ("ae-weights-start-at-zero", "vae-forgets-its-convolutions"),
    ],
)
def test_beside_a_wrong_part_a_whole_is_judged_all_the_same(one: str, other: str) -> None:
    """Stand-ins that learn take the places of wrong parts."""
    parts = [next(m for m in corpus.mistakes() if m.name == name) for name in (one, other)]
    expected = {**parts[0].lost, **parts[1].lost}
    needed = {*expected, *(part for task in expected for part in PARTS.get(task, ()))}
    tasks = tuple(task for task in BY_ID if task in needed)
    source = parts[1].applied_to(parts[0].source)
    made = grade(corpus.as_notebook(source), tasks=tasks, learning=True)
    assert {t: p for t, p in lost(made).items() if t in tasks} == expected
    assert causes(made)[parts[0].group] == {parts[0].misconception}


def test_a_gpu_that_fails_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, trained_on: list[str]
) -> None:
    """A worker cannot train on a GPU that is not there; the CPU's verdict counts."""
    # hidden from torch, but not from the box, where this machine has one
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    made = grade(corpus.submission("perfect"), tasks=("ae-training",), learning=True, device="cuda")
    assert trained_on == ["cuda", "cpu"]
    assert lost(made).get("ae-training") is None


def test_a_gpu_is_asked_for_by_name_or_taken_where_there_is_one() -> None:
    assert devices.chosen("cpu") == "cpu"
    if torch.cuda.is_available():
        assert devices.chosen("auto") == devices.chosen("cuda") == "cuda"
    else:
        assert devices.chosen("auto") == "cpu"
        with pytest.raises(devices.NoDevice, match=r"CUDA.*--device cpu"):
            devices.chosen("cuda")


def test_a_stand_in_returns_what_the_loop_needs_of_the_loss() -> None:
    """A loop that is made for a loss of its own, with further keys, learns beside a wrong KL."""
    edits = {
        '        return total, {"rec_loss": rec_loss, "kl_loss": kl_loss}\n': (
            "        terms = {'rec_loss': rec_loss.item(), 'kl_loss': kl_loss.item()}\n"
            "        return total, {**terms, 'loss': total.item()}\n"
        ),
        "kl_loss = kl.sum(dim=1).mean()": "kl_loss = kl.mean()",
        'parts["rec_loss"].item()': '0 * parts["loss"] + parts["rec_loss"]',
        'parts["kl_loss"].item()': 'parts["kl_loss"]',
    }
    source = corpus.percent_source("perfect")
    for old, new in edits.items():
        assert source.count(old) == 1
        source = source.replace(old, new)
    tasks = ("encoder", "decoder", "vae-forward", "vae-loss", "vae-training")
    made = grade(corpus.as_notebook(source), tasks=tasks, learning=True)
    assert {t: p for t, p in lost(made).items() if t in tasks} == {"vae-loss": 0.75}
