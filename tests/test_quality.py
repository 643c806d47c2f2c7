"""The quality of samples: Fréchet distance and diversity in the classifier's features."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autograder import quality
from autograder.digit_files import digits
from autograder.quality import CLASSES, FEATURES, frechet_distance, moments


@given(st.integers(1, 6), st.integers(0, 2**31))
def test_distance_of_diagonal_gaussians_is_the_textbooks(size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mean1, mean2 = torch.randn(2, size, generator=generator, dtype=torch.float64)
    sigma1, sigma2 = torch.rand(2, size, generator=generator, dtype=torch.float64) + 0.1
    expected = (mean1 - mean2).square().sum() + (sigma1 - sigma2).square().sum()
    turn = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    pairs = [
        (turn @ m, turn @ s.square().diag() @ turn.T) for m, s in ((mean1, sigma1), (mean2, sigma2))
    ]
    assert frechet_distance(*pairs) == pytest.approx(float(expected), abs=1e-8)


def test_digits_are_near_digits_and_far_from_anything_else() -> None:
    test, train = digits("t10k"), digits("train")
    real = moments(test)
    assert real[0].shape == (FEATURES,)
    assert quality.quality(train[:1000], real).distance < 5
    for other in (train.mean(0, keepdim=True).expand(500, -1, -1, -1), torch.rand(500, 1, 28, 28)):
        assert quality.quality(other, real).distance > 50


def test_entropy_tells_how_many_classes_there_are() -> None:
    images = digits("t10k")
    seen = quality.classifier()(images).argmax(1)
    assert quality.class_entropy(images) == pytest.approx(math.log(CLASSES), abs=0.05)
    assert quality.class_entropy(images[seen == 3]) == 0
    two = torch.cat([images[seen == 3][:50], images[seen == 8][:50]])
    assert quality.class_entropy(two) == pytest.approx(math.log(2))
