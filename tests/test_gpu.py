"""What only a machine with a GPU can show; elsewhere these tests are skipped."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from autograder import learning, sandbox
from autograder.draws import Draws
from autograder.outcomes import Wrong
from autograder.submission import Submission
from solution import VAE, AutoEncoder, load_digits, train_autoencoder
from solution.data import SAMPLE
from solution.together import train_together
from tests import corpus
from tests.grading import as_submission, causes, grade, lost

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch reaches no GPU through CUDA"
)
TASKS = ("ae-training", "vae-training")
SLOW = [m for m in corpus.mistakes() if m.misconception == "does-not-learn"]


@pytest.mark.parametrize("name", ["perfect", "functional", "eccentric"])
def test_what_learns_on_the_gpu_is_not_trained_again(name: str, trained_on: list[str]) -> None:
    made = grade(corpus.submission(name), tasks=TASKS, learning=True, device="cuda")
    assert not {task: points for task, points in lost(made).items() if task in TASKS}
    assert trained_on == ["cuda", "cuda"]


@pytest.mark.parametrize("mistake", SLOW, ids=lambda mistake: mistake.name)
def test_what_does_not_learn_is_told_as_on_the_cpu(mistake: corpus.Mistake) -> None:
    here, there = (
        grade(mistake.notebook(), tasks=(mistake.group,), learning=True, device=device)
        for device in ("cpu", "cuda")
    )
    assert lost(there) == lost(here)
    assert causes(there) == causes(here)
    assert mistake.misconception in causes(there)[mistake.group]


def test_errors_reached_on_the_gpu_lie_where_they_were_calibrated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With seeds that no one chose, as far below the limit as the calibration's worst."""
    reached: list[float] = []
    judge = learning.error

    def noting(encoder: Any, decoder: Any, digits: Tensor, draws: Draws) -> float:
        reached.append(judge(encoder, decoder, digits, draws))
        return reached[-1]

    monkeypatch.setattr(learning, "error", noting)
    cells = as_submission(corpus.submission("perfect")).cells
    submission = Submission(cells, boxed=sandbox.missing() is None, device="cuda")
    try:
        for seed, kind in itertools.product(range(3), ("ae", "vae")):
            trainer = {"ae": "train_autoencoder", "vae": "train_vae"}[kind]
            with submission.session(seed) as session:
                learning.LearningRun(kind, trainer).check(session, Draws(seed, "gpu"), "cuda")
            assert reached[-1] < learning.limit(kind) / 1.1
    finally:
        submission.close()
    assert len(reached) == 6


def test_memory_of_the_gpu_is_bounded() -> None:
    takes = "import torch\ndef make_data_loader(count):\n"
    takes += "    return torch.empty(count, dtype=torch.uint8, device='cuda').numel()\n"
    submission = Submission([takes], boxed=sandbox.missing() is None, device="cuda")
    try:
        with submission.session(1) as session:
            session.ask("move", session.make("learning encoder", 8), "cuda")
            take = session.read("make_data_loader")
            assert session.call(take, 1 << 30) == 1 << 30
            with pytest.raises(Wrong, match="out of memory"):
                session.call(take, 9 << 30)
    finally:
        submission.close()


def test_the_full_length_homework_takes_the_steps_of_the_loop() -> None:
    """Some steps come before the graph, some from it, some after it, and one is a smaller batch."""
    images = load_digits(SAMPLE, train=True).tensors[0][: 64 * 9 + 20].cuda()
    torch.manual_seed(0)
    model, vae = AutoEncoder(8).cuda(), VAE(8, 0.0).cuda()
    other = copy.deepcopy(model)
    torch.manual_seed(1)
    losses, vae_losses = train_together([model, vae], [2, 4], images, 64, 1e-3)

    def batches() -> list[tuple[Tensor, Tensor]]:
        return [(images[rows], rows) for rows in torch.randperm(len(images)).split(64)]

    torch.manual_seed(1)
    expected = train_autoencoder(other, [*batches(), *batches()], 1, 1e-3, "cuda")
    assert losses["rec_loss"] == pytest.approx(expected, rel=0.02)
    assert len(vae_losses["rec_loss"]) == 40
    assert min(vae_losses["rec_loss"]) > 0
    assert vae_losses["rec_loss"][-1] < 0.7 * vae_losses["rec_loss"][0]
