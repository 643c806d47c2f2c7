# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %%
import logging
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import Enum, auto
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, Final, Iterable, NamedTuple, Protocol

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler

logger = logging.getLogger(__name__)
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")

# %%
device = torch.device(
    "cuda" if torch.cuda.is_available()
    else "mps" if torch.backends.mps.is_available()
    else "cpu"
)
print(f"Using device: {device}")


# %%
@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One (transposed) convolution."""

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    normalise: bool = True
    activation: Callable[[], nn.Module] = partial(nn.LeakyReLU, 0.2)

    def build(self, conv: type[nn.Module]) -> list[nn.Module]:
        layers: list[nn.Module] = [
            conv(
                in_channels=self.in_channels,
                out_channels=self.out_channels,
                kernel_size=self.kernel_size,
                stride=self.stride,
                padding=self.padding,
            )
        ]
        if self.normalise:
            layers.append(nn.BatchNorm2d(num_features=self.out_channels))
        layers.append(self.activation())
        return layers


class Mode(Enum):
    ENCODE = auto()
    DECODE = auto()


ARCHITECTURE: Final[dict[Mode, tuple[LayerSpec, ...]]] = {
    Mode.ENCODE: (
        LayerSpec(1, 32, 4, 2, 1, normalise=False),
        LayerSpec(32, 64, 4, 2, 1),
        LayerSpec(64, 128, 3, 3, 1),
        LayerSpec(128, 256, 3),
    ),
    Mode.DECODE: (
        LayerSpec(256, 128, 3),
        LayerSpec(128, 64, 3, 3, 1),
        LayerSpec(64, 32, 4, 2, 1),
        LayerSpec(32, 1, 4, 2, 1, normalise=False, activation=nn.Sigmoid),
    ),
}


def build(mode: Mode) -> nn.Sequential:
    conv = nn.Conv2d if mode is Mode.ENCODE else nn.ConvTranspose2d
    return nn.Sequential(*(layer for spec in ARCHITECTURE[mode] for layer in spec.build(conv)))


# %%
class Encoder(nn.Module):
    """Convolutional encoder.

    Args:
        nz: Dimensionality of the code.

    Shape:
        - Input: :math:`(B, 1, 28, 28)`
        - Output: :math:`(B, nz)`
    """

    def __init__(self, nz: int) -> None:
        super().__init__()
        self.features = build(Mode.ENCODE)
        self.head = nn.Linear(in_features=256, out_features=nz)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 4:
            raise ValueError(f"Expected a 4D tensor, got {x.ndim}D")
        features = self.features(x)
        return self.head(features.flatten(start_dim=1))


class Decoder(nn.Module):
    """Convolutional decoder; the mirror image of :class:`Encoder`."""

    def __init__(self, nz: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Linear(nz, 256),
            nn.Unflatten(dim=1, unflattened_size=(256, 1, 1)),
            nn.BatchNorm2d(256),
            nn.LeakyReLU(0.2),
        )
        self.upsample = build(Mode.DECODE)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        if z.ndim != 2:
            raise ValueError(f"Expected a 2D tensor, got {z.ndim}D")
        return self.upsample(self.stem(z))


# %%
class GenerativeModel(nn.Module, ABC):
    encoder: Encoder
    decoder: Decoder

    @abstractmethod
    def reconstruct(self, x: torch.Tensor) -> torch.Tensor: ...


class AutoEncoder(GenerativeModel):
    def __init__(self, nz: int) -> None:
        super().__init__()
        self.encoder = Encoder(nz)
        self.decoder = Decoder(nz)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x))

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        return self(x)


# %%
def make_data_loader(dataset: Dataset, batch_size: int, num_workers: int = 0) -> DataLoader:
    """Creates a shuffled loader.

    Example:
        >>> loader = make_data_loader(train_set, 64)
    """
    if batch_size <= 0:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
    sampler = RandomSampler(dataset, replacement=False)
    return DataLoader(dataset, batch_size=batch_size, sampler=sampler, num_workers=num_workers)


# %%
@contextmanager
def training(model: nn.Module):
    mode = model.training
    model.train()
    try:
        yield model
    finally:
        model.train(mode)


class StepResult(NamedTuple):
    objective: torch.Tensor
    metrics: dict[str, float]


class Step(Protocol):
    def __call__(self, model: nn.Module, images: torch.Tensor) -> StepResult: ...


def fit(
    model: nn.Module,
    batches: Iterable,
    *,
    step: Step,
    epochs: int,
    learning_rate: float,
    device: torch.device | str,
) -> list[dict[str, float]]:
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    records: list[dict[str, float]] = []
    with training(model), torch.set_grad_enabled(True):
        for epoch in range(epochs):
            for images, *_ in batches:
                images = images.to(device=device)
                result = step(model, images)
                optimizer.zero_grad(set_to_none=True)
                result.objective.backward()
                optimizer.step()
                records.append(result.metrics)
            if records:
                logger.info("epoch %d/%d %s", epoch + 1, epochs, records[-1])
    return records


def autoencoder_step(model: nn.Module, images: torch.Tensor) -> StepResult:
    loss = F.mse_loss(model(images), images)
    return StepResult(loss, {"loss": loss.item()})


def vae_step(model: nn.Module, images: torch.Tensor) -> StepResult:
    objective, terms = model.loss(images, model(images))
    return StepResult(objective, {k: float(terms[k]) for k in ("rec_loss", "kl_loss")})


def train_autoencoder(model, data_loader, epochs, learning_rate, device) -> list[float]:
    records = fit(
        model,
        data_loader,
        step=autoencoder_step,
        epochs=epochs,
        learning_rate=learning_rate,
        device=device,
    )
    return [record["loss"] for record in records]


# %%
@torch.no_grad()
def sample_images(model: nn.Module, num_samples: int, nz: int) -> torch.Tensor:
    """Draw samples by ancestral sampling: z ~ p(z), x = decoder(z)."""
    param = next(model.parameters())
    prior = torch.distributions.Independent(
        torch.distributions.Normal(
            torch.zeros(nz, device=param.device), torch.ones(nz, device=param.device)
        ),
        reinterpreted_batch_ndims=1,
    )
    return model.decoder(prior.sample(torch.Size([num_samples])))


# %%
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    return (
        (log_sigma2 - log_sigma1)
        + ((2 * log_sigma1).exp() + (mu1 - mu2).pow(2)) / (2 * (2 * log_sigma2).exp())
        - 0.5
    )


# %%
class Posterior(NamedTuple):
    mean: torch.Tensor
    log_std: torch.Tensor

    @classmethod
    def from_parameters(cls, q: torch.Tensor) -> "Posterior":
        return cls(*q.tensor_split(2, dim=1))

    @property
    def std(self) -> torch.Tensor:
        return self.log_std.exp()

    def rsample(self) -> torch.Tensor:
        return torch.addcmul(self.mean, self.std, torch.randn_like(self.std))

    def kl_to_prior(self) -> torch.Tensor:
        zero = self.mean.new_zeros(())
        return kl_divergence(self.mean, self.log_std, zero, zero).sum(dim=1)


class VAE(GenerativeModel):
    def __init__(self, nz: int, beta: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("_beta", torch.tensor(beta, dtype=torch.float32), persistent=False)
        self.encoder = Encoder(2 * nz)
        self.decoder = Decoder(nz)

    @property
    def beta(self) -> float:
        return self._beta.item()

    @beta.setter
    def beta(self, value: float) -> None:
        self._beta.fill_(value)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        q = self.encoder(x)
        return {"q": q, "rec": self.decoder(Posterior.from_parameters(q).rsample())}

    def loss(self, x: torch.Tensor, outputs: dict) -> tuple[torch.Tensor, dict]:
        kl_loss = Posterior.from_parameters(outputs["q"]).kl_to_prior().mean()
        rec_loss = F.mse_loss(outputs["rec"], x, reduction="mean")
        return rec_loss + self._beta * kl_loss, {"rec_loss": rec_loss, "kl_loss": kl_loss}

    @torch.no_grad()
    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(Posterior.from_parameters(self.encoder(x)).mean)


# %%
def train_vae(model, data_loader, epochs, learning_rate, device) -> dict[str, list[float]]:
    records = fit(
        model,
        data_loader,
        step=vae_step,
        epochs=epochs,
        learning_rate=learning_rate,
        device=device,
    )
    return {
        key: [record[key] for record in records] for key in ("rec_loss", "kl_loss")
    }


# %%
@dataclass
class SearchSpace:
    candidates: list[float] = field(default_factory=lambda: [1e-5, 1e-4, 1e-3])
    results: dict = field(default_factory=dict)


space = SearchSpace()
TUNED_BETA = sorted(space.candidates)[len(space.candidates) // 2]
