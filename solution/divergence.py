"""The distance that the VAE's loss keeps small."""

import torch
from torch import Tensor


def kl_divergence(mu1: Tensor, log_sigma1: Tensor, mu2: Tensor, log_sigma2: Tensor) -> Tensor:
    """KL(N1 || N2) of diagonal Gaussians, elementwise, in nats; all of one shape, natural logs."""
    # KL(N1 || N2) = log(s2 / s1) + (s1^2 + (mu1 - mu2)^2) / (2 s2^2) - 1/2. With
    # r = log(s1 / s2) that is (e^(2r) - 1)/2 - r + (mu1 - mu2)^2 / (2 s2^2), and
    # expm1 keeps the digits that e^(2r) - 1 would lose where the two nearly agree.
    log_ratio = log_sigma1 - log_sigma2
    distance = (mu1 - mu2) * torch.exp(-log_sigma2)  # in units of sigma2
    return 0.5 * (torch.expm1(2 * log_ratio) + distance**2) - log_ratio
