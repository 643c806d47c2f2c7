"""The two training loops, and the beta that serves the second one best."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from solution.models import VAE, AutoEncoder


class Progress:
    """A data loader with a progress bar that runs through all epochs of a training."""

    def __init__(self, data_loader: DataLoader[Any], epochs: int, label: str = "") -> None:
        self.data_loader = data_loader
        self.bar = tqdm(total=epochs * len(data_loader), desc=label, unit="step", mininterval=1)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.data_loader:
            yield batch
            self.bar.update()
        if self.bar.total is not None and self.bar.n >= self.bar.total:
            self.bar.close()

    def __len__(self) -> int:
        return len(self.data_loader)


def train_autoencoder(
    model: AutoEncoder,
    data_loader: Iterable[tuple[Tensor, Tensor]],
    epochs: int,
    learning_rate: float,
    device: torch.device | str,
) -> list[float]:
    """Trains the model, which is on `device`, with Adam on the mean squared error of all pixels.

    data_loader yields (images, labels), images (B, 1, 28, 28) in [0, 1]. One step a batch,
    `epochs` passes over the loader; returns the loss of every step as a number.
    """
    ### BEGIN SOLUTION
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    losses = []
    model.train()
    for _ in range(epochs):
        for images, _labels in data_loader:
            images = images.to(device)
            loss = F.mse_loss(model(images), images)  # mean over B * 784 pixels
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses
    ### END SOLUTION


def train_vae(
    model: VAE,
    data_loader: Iterable[tuple[Tensor, Tensor]],
    epochs: int,
    learning_rate: float,
    device: torch.device | str,
) -> dict[str, list[float]]:
    """Trains the model, which is on `device`, with Adam on the total of model.loss(x, model(x)).

    As train_autoencoder otherwise; returns {'rec_loss': [...], 'kl_loss': [...]}, one number
    a step in each list.
    """
    ### BEGIN SOLUTION
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    history: dict[str, list[float]] = {"rec_loss": [], "kl_loss": []}
    model.train()
    for _ in range(epochs):
        for images, _labels in data_loader:
            images = images.to(device)
            total, parts = model.loss(images, model(images))
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            for name, values in history.items():
                values.append(parts[name].item())
    return history
    ### END SOLUTION


### BEGIN SOLUTION
# r is a mean over 784 pixels and k a sum over nz latents, so an honest ELBO with pixel
# noise s would put beta = 2 s^2 / 784; this one stands for s = 0.34, on pixels in [0, 1].
# Below it samples fall apart, above it reconstructions lose their detail.
TUNED_BETA = 1.5e-4
### END SOLUTION
