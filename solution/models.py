"""The auto-encoder, the variational auto-encoder, and what is done with a trained one."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from solution.divergence import kl_divergence
from solution.networks import Decoder, Encoder


class AutoEncoder(nn.Module):
    """Squeezes an image through nz numbers and draws it again."""

    def __init__(self, nz: int) -> None:
        super().__init__()
        self.encoder = Encoder(nz)
        self.decoder = Decoder(nz)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 1, 28, 28) in [0, 1]; returns its reconstruction, of the same shape."""
        reconstruction: Tensor = self.decoder(self.encoder(x))
        return reconstruction

    def reconstruct(self, x: Tensor) -> Tensor:
        """As forward; the VAE has a method of this name too."""
        return self.forward(x)


def sample_images(model: "AutoEncoder | VAE", num_samples: int, nz: int) -> Tensor:
    """Decodes num_samples fresh draws from N(0, I): (num_samples, 1, 28, 28) in [0, 1].

    The latents, (num_samples, nz), are drawn on the device that the model is on.
    """
    ### BEGIN SOLUTION
    model_device = next(model.parameters()).device
    with torch.no_grad():
        latents = torch.randn(num_samples, nz, device=model_device)  # z ~ N(0, I)
        decoded: Tensor = model.decoder(latents)
    return decoded
    ### END SOLUTION


class VAE(nn.Module):
    """An auto-encoder whose encoder answers with a Gaussian, q(z | x), instead of a point."""

    def __init__(self, nz: int, beta: float = 1.0) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        self.encoder = Encoder(2 * nz)  # a mean and a log standard deviation for each latent
        self.decoder = Decoder(nz)
        self.beta = beta
        ### END SOLUTION

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """x: (B, 1, 28, 28) in [0, 1]; returns {'q': (B, 2 nz), 'rec': (B, 1, 28, 28)}.

        q holds nz means, then nz log standard deviations; rec decodes one draw from
        N(mean, sigma^2), made with the reparameterisation trick.
        """
        ### BEGIN SOLUTION
        q = self.encoder(x)  # (B, 2 nz)
        mean, log_sigma = q.chunk(2, dim=1)  # (B, nz) each
        # z = mu + sigma * eps: the randomness stands beside the path that gradients take.
        z = mean + torch.exp(log_sigma) * torch.randn_like(mean)  # (B, nz)
        return {"q": q, "rec": self.decoder(z)}
        ### END SOLUTION

    def loss(self, x: Tensor, outputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """x: (B, 1, 28, 28), outputs: what forward(x) returned.

        Returns (total, {'rec_loss': r, 'kl_loss': k}), three scalars: r the mean squared
        error over all pixels; k = KL(q(z | x) || N(0, I)) in nats, summed over the latents
        and averaged over the batch; total = r + beta * k.
        """
        ### BEGIN SOLUTION
        rec_loss = F.mse_loss(outputs["rec"], x)  # mean over B * 784 pixels
        mean, log_sigma = outputs["q"].chunk(2, dim=1)  # (B, nz) each
        zeros = torch.zeros_like(mean)  # the prior: mean 0, log standard deviation 0
        # Latents are independent, so their divergences add up: KL = sum_j KL_j.
        kl_loss = kl_divergence(mean, log_sigma, zeros, zeros).sum(dim=1).mean()
        return rec_loss + self.beta * kl_loss, {"rec_loss": rec_loss, "kl_loss": kl_loss}
        ### END SOLUTION

    def reconstruct(self, x: Tensor) -> Tensor:
        """x: (B, 1, 28, 28); decodes the mean of q(z | x), drawing nothing at random."""
        ### BEGIN SOLUTION
        mean, _ = self.encoder(x).chunk(2, dim=1)  # (B, nz)
        best_guess: Tensor = self.decoder(mean)
        return best_guess
        ### END SOLUTION


def interpolate(
    model: "AutoEncoder | VAE", start_image: Tensor, end_image: Tensor, num_steps: int
) -> Tensor:
    """Decodes num_steps evenly spaced latents between the codes of two images (1, 28, 28).

    Returns (num_steps, 1, 28, 28); first and last are the reconstructions of the two images.
    """
    images = torch.stack([start_image, end_image]).to(next(model.parameters()).device)
    with torch.no_grad():
        codes = model.encoder(images)  # (2, nz), or (2, 2 nz) for a VAE
        if isinstance(model, VAE):
            codes = codes[:, : codes.shape[1] // 2]  # the means
        weights = torch.linspace(0, 1, num_steps, device=images.device).unsqueeze(1)
        on_the_way: Tensor = model.decoder(torch.lerp(codes[:1], codes[1:], weights))
    return on_the_way
