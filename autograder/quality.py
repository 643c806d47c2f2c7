"""How good samples are: their Fréchet distance to real digits, and how many classes they show.

Both are taken in the features of a small classifier of the project's own (Heusel et al., 2017,
with a network for digits in the place of Inception); tools/train_classifier.py trains it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).resolve().parent / "classifier.safetensors"
FEATURES, CLASSES = 64, 10
CHUNK = 500  # images at once


class Classifier(nn.Module):
    """Digits to ten classes, with FEATURES numbers before the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(16, 32, 4, 2, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(32, 32, 3, 2, 1),
            nn.LeakyReLU(0.1),
            nn.Flatten(),
            nn.Linear(32 * 16, FEATURES),
            nn.LeakyReLU(0.1),
        )
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 1, 28, 28) in [0, 1]; returns logits, (B, CLASSES)."""
        logits: Tensor = self.head(self.features(x))
        return logits


@functools.cache
def classifier() -> Classifier:
    """The trained classifier."""
    made = Classifier()
    made.load_state_dict(load_file(WEIGHTS))
    return made.eval()


@dataclass(frozen=True)
class Quality:
    """Of a set of images.

    distance: Fréchet distance of features to those of real digits, 0 for other digits of the
    same kind. entropy: of the classes seen, in nats; ln 10 where all are as frequent.
    """

    distance: float
    entropy: float


def moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (FEATURES,) and covariance (FEATURES, FEATURES) of the features of images."""
    features = torch.cat([_features(chunk) for chunk in images.split(CHUNK)])
    return features.mean(0), features.T.cov()


def _features(images: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = classifier().features(images)
    return found.double()


def frechet_distance(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> float:
    """Fréchet distance of two normal distributions, each given as mean and covariance."""
    (mean1, cov1), (mean2, cov2) = first, second
    root = _root(cov1)
    cross = _root(root @ cov2 @ root)
    trace = cov1.trace() + cov2.trace() - 2 * cross.trace()
    return float((mean1 - mean2).square().sum() + trace)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    root: Tensor = vectors @ values.clamp_min(0).sqrt().diag() @ vectors.T
    return root


def class_entropy(images: Tensor) -> float:
    """Entropy in nats of how often the classifier sees each class."""
    with torch.no_grad():
        seen = torch.cat([classifier()(chunk).argmax(1) for chunk in images.split(CHUNK)])
    shares = seen.bincount(minlength=CLASSES).double() / len(seen)
    return float(torch.special.entr(shares).sum())


def quality(images: Tensor, real: tuple[Tensor, Tensor]) -> Quality:
    """The quality of images (N, 1, 28, 28) against the moments of real digits."""
    return Quality(frechet_distance(moments(images), real), class_entropy(images))
