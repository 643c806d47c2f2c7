"""Sweep beta: `python -m tools.beta_sweep [--data DIR]`.

Trains the reference on MNIST at every beta of the plan, and keeps the weights in .sweep/: a
sweep that is stopped goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from solution.__main__ import BATCH_SIZE, LEARNING_RATE, NZ
from solution.data import load_digits, make_data_loader
from solution.models import VAE, AutoEncoder
from solution.training import Progress, train_autoencoder, train_vae

WEIGHTS = Path(__file__).resolve().parents[1] / ".sweep"
SHORT, LONG = 5, 20  # epochs
BETAS = (0.0, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 10.0)
NEAR_THE_BEST = (1e-4, 3e-4, 1e-3, 3e-5)  # these are trained for LONG, in this order
THREADS = 1


def weights_file(name: str, epochs: int) -> Path:
    """Where the weights of a model are kept after so many epochs."""
    return WEIGHTS / f"{name}-{epochs}.safetensors"


def vae_name(beta: float) -> str:
    """What a VAE of this beta is called."""
    return f"vae-{beta:g}"


class Snapshots(Progress):
    """A loader that keeps the model's weights after SHORT and after all epochs."""

    def __init__(self, loader: DataLoader[Any], epochs: int, name: str) -> None:
        super().__init__(loader, epochs, name)
        self.epochs, self.name, self.passes = epochs, name, 0
        self.model: AutoEncoder | VAE | None = None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from super().__iter__()
        self.passes += 1
        if self.model is not None and self.passes in (SHORT, self.epochs):
            weights = {key: value.contiguous() for key, value in self.model.state_dict().items()}
            partial = WEIGHTS / f"{self.name}.partial"
            save_file(weights, partial)
            partial.rename(weights_file(self.name, self.passes))


def train(name: str, model: AutoEncoder | VAE, digits: TensorDataset, epochs: int) -> None:
    """Train for epochs, with the homework's settings, unless that was done before."""
    if weights_file(name, epochs).exists():
        return
    loader = Snapshots(make_data_loader(digits, BATCH_SIZE), epochs, name)
    loader.model = model
    if isinstance(model, VAE):
        train_vae(model, loader, epochs, LEARNING_RATE, "cpu")
    else:
        train_autoencoder(model, loader, epochs, LEARNING_RATE, "cpu")


def main() -> None:
    """Train whatever is missing."""
    parser = argparse.ArgumentParser(prog="python -m tools.beta_sweep", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="MNIST's folder")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    WEIGHTS.mkdir(exist_ok=True)
    digits = load_digits(options.data, train=True)
    torch.manual_seed(options.seed)
    for beta in BETAS:
        if beta not in NEAR_THE_BEST:
            torch.manual_seed(options.seed)
            train(vae_name(beta), VAE(NZ, beta), digits, SHORT)
    for beta in NEAR_THE_BEST:
        torch.manual_seed(options.seed)
        train(vae_name(beta), VAE(NZ, beta), digits, LONG)
    torch.manual_seed(options.seed)
    train("auto-encoder", AutoEncoder(NZ), digits, SHORT)


if __name__ == "__main__":
    main()
