"""The homework's tasks, points and names, and the vocabulary of misconceptions, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A task that the program grades: its points, and the notebook's name that it is about."""

    id: str
    points: float
    name: str


@dataclass(frozen=True)
class Answer:
    """A written answer, graded by a person; limit: words between blanks, inclusive.

    question: words of the notebook's question that no other cell holds.
    """

    id: str
    points: float
    limit: int
    question: str


TASKS = (
    Task("encoder", 3, "Encoder"),
    Task("decoder", 3, "Decoder"),
    Task("data-loader", 1, "make_data_loader"),
    Task("ae-training", 6, "train_autoencoder"),
    Task("ae-sampling", 2, "sample_images"),
    Task("vae-forward", 4, "VAE"),
    Task("vae-loss", 2, "VAE"),
    Task("vae-reconstruct", 1, "VAE"),
    Task("vae-training", 4, "train_vae"),
    Task("beta-tuning", 5, "TUNED_BETA"),
)
ANSWERS = (
    Answer("ae-sampling-answer", 2, 150, "What do the samples look like?"),
    Answer("beta-zero-answer", 3, 150, "What do you see in the curves"),
    Answer("beta-ten-answer", 3, 200, r"And with $\beta = 10$?"),
    Answer("well-tuned-answer", 3, 200, r"For a well tuned $\beta$, (1) what do"),
    Answer("interpolation-answer", 3, 300, "Compare the interpolations of the auto-encoder"),
)
BY_ID = {task.id: task for task in TASKS}
GIVEN = ("AutoEncoder", "kl_divergence", "interpolate")
PROMISED = (*dict.fromkeys(task.name for task in TASKS), *GIVEN)
ARGUMENTS = {
    "make_data_loader": ("dataset", "batch_size", "num_workers"),
    "train_autoencoder": ("model", "data_loader", "epochs", "learning_rate", "device"),
    "sample_images": ("model", "num_samples", "nz"),
    "VAE": ("nz", "beta"),
    "train_vae": ("model", "data_loader", "epochs", "learning_rate", "device"),
}
# tasks whose work a learning run of a training task is made of
PARTS = {
    "ae-training": ("encoder", "decoder"),
    "vae-training": ("encoder", "decoder", "vae-forward", "vae-loss"),
}
CLASSES = ("Encoder", "Decoder", "VAE")
TRAINERS = ("train_autoencoder", "train_vae")

MISCONCEPTIONS = frozenset(
    """
    not-defined wrong-shape wrong-resolution wrong-channels wrong-kernel missing-layer
    missing-batchnorm extra-batchnorm extra-layer wrong-order missing-activation wrong-activation
    missing-bias hard-coded-nz hidden-global not-shuffled drops-data wrong-batch-size
    hard-coded-batch hard-coded-device wrong-optimizer wrong-learning-rate wrong-criterion
    gradients-accumulate no-step one-step-an-epoch wrong-epochs eval-mode-training wrong-target
    stale-batch detached-gradient returns-graph uses-global-model uniform-noise wrong-variance
    no-noise frozen-noise shared-noise swapped-mean-and-log-sigma wrong-return wrong-signature
    kl-order kl-sign kl-reduction kl-formula kl-log-sigma rec-reduction beta-ignored masks-nan
    samples-in-reconstruct wrong-latent q-structure mode-dependent untuned-beta does-not-learn
    too-slow out-of-memory
    """.split()
)


def counted(number: float, what: str) -> str:
    """So many of what is named in the singular."""
    return f"{number:g} {what}" if number == 1 else f"{number:g} {what}s"
