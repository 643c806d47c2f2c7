# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %%
import abc
import dataclasses
import enum
import logging
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

logger = logging.getLogger(__name__)
logging.basicConfig(level=logging.INFO)


# %%
class Direction(enum.Enum):
    DOWN = nn.Conv2d
    UP = nn.ConvTranspose2d


@dataclasses.dataclass(frozen=True)
class LayerSpec:
    """One convolution with what follows it."""

    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    padding: int = 0
    norm: bool = True
    final: bool = False

    def build(self, direction: Direction) -> nn.Sequential:
        layers: list[nn.Module] = [
            direction.value(self.inputs, self.outputs, self.kernel, self.stride, self.padding)
        ]
        if self.norm:
            layers.append(nn.BatchNorm2d(self.outputs))
        layers.append(nn.Sigmoid() if self.final else nn.LeakyReLU(0.2))
        return nn.Sequential(*layers)


ENCODER_SPECS = (
    LayerSpec(1, 32, 4, 2, 1, norm=False),
    LayerSpec(32, 64, 4, 2, 1),
    LayerSpec(64, 128, 3, 2),
    LayerSpec(128, 256, 3),
)
DECODER_SPECS = (
    LayerSpec(256, 128, 3),
    LayerSpec(128, 64, 3, 2),
    LayerSpec(64, 32, 4, 2, 1),
    LayerSpec(32, 1, 4, 2, 1, norm=False, final=True),
)


class Network(nn.Module, abc.ABC):
    """A chain of specified layers."""

    specs: tuple[LayerSpec, ...]
    direction: Direction

    def __init__(self) -> None:
        super().__init__()
        self.chain = nn.Sequential(*(spec.build(self.direction) for spec in self.specs))

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...


class Encoder(Network):
    specs, direction = ENCODER_SPECS, Direction.DOWN

    def __init__(self, nz: int) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(self.specs[-1].outputs, nz))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.chain(x))


class Decoder(Network):
    specs, direction = DECODER_SPECS, Direction.UP

    def __init__(self, nz: int) -> None:
        super().__init__()
        width = self.specs[0].inputs
        self.stem = nn.Sequential(
            nn.Linear(nz, width),
            nn.Unflatten(-1, (width, 1, 1)),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.chain(self.stem(z))


# %%
class AutoEncoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.encoder = Encoder(nz)
        self.decoder = Decoder(nz)

    def forward(self, x):
        return self.decoder(self.encoder(x))

    def reconstruct(self, x):
        return self.forward(x)


# %%
def make_data_loader(dataset: Dataset, batch_size: int, num_workers: int = 0) -> DataLoader:
    options: dict[str, Any] = {"batch_size": batch_size, "shuffle": True, "num_workers": num_workers}
    if num_workers > 0:
        options |= {"persistent_workers": True, "prefetch_factor": 4}
    return DataLoader(dataset, **options)


# %%
class Callback(Protocol):
    def __call__(self, step: int, values: dict[str, float]) -> None: ...


class History:
    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def __call__(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)


class LogEvery:
    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, step: int, values: dict[str, float]) -> None:
        if step % self.n == 0:
            logger.info("step %d: %s", step, values)


class Trainer:
    """Adam on whatever `objective(model, x)` gives."""

    Objective = Callable[[nn.Module, Tensor], tuple[Tensor, dict[str, Tensor]]]

    def __init__(self, objective: Objective, *callbacks: Callback) -> None:
        self.objective, self.callbacks = objective, callbacks

    def batches(self, loader: DataLoader, epochs: int, device: Any) -> Iterator[Tensor]:
        for _ in range(epochs):
            for images, _labels in loader:
                yield images.to(device)

    def run(self, model: nn.Module, loader: DataLoader, epochs: int, rate: float, device: Any):
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        model.train()
        for step, x in enumerate(self.batches(loader, epochs, device)):
            loss, parts = self.objective(model, x)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            values = {name: float(part.detach()) for name, part in parts.items()}
            for callback in self.callbacks:
                callback(step, values)


def squared_error(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    loss = F.mse_loss(model(x), x)
    return loss, {"loss": loss}


def own_loss(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    return model.loss(x, model(x))


def train_autoencoder(model, data_loader, epochs, learning_rate, device) -> list[float]:
    history = History()
    Trainer(squared_error, history, LogEvery(100)).run(
        model, data_loader, epochs, learning_rate, device
    )
    return history.values["loss"]


def train_vae(model, data_loader, epochs, learning_rate, device) -> dict[str, list[float]]:
    history = History()
    Trainer(own_loss, history).run(model, data_loader, epochs, learning_rate, device)
    return {name: history.values[name] for name in ("rec_loss", "kl_loss")}


# %%
def sample_images(model: nn.Module, num_samples: int, nz: int) -> Tensor:
    parameter = next(iter(model.decoder.parameters()))
    with torch.inference_mode():
        return model.decoder(torch.randn((num_samples, nz), device=parameter.device))


# %%
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    log_ratio = log_sigma2 - log_sigma1
    spread = torch.exp(2 * log_sigma1) + (mu1 - mu2) ** 2
    return log_ratio + spread / (2 * torch.exp(2 * log_sigma2)) - 0.5


# %%
@dataclasses.dataclass
class Gaussian:
    """A diagonal Gaussian."""

    mean: Tensor
    log_sigma: Tensor

    @classmethod
    def from_code(cls, q: Tensor) -> "Gaussian":
        return cls(*q.chunk(2, dim=1))

    def sample(self) -> Tensor:
        return torch.addcmul(self.mean, self.log_sigma.exp(), torch.randn_like(self.mean))

    def kl_to_standard_normal(self) -> Tensor:
        zero = torch.zeros_like(self.mean)
        return kl_divergence(self.mean, self.log_sigma, zero, zero).sum(dim=1)


class LatentModel(nn.Module, abc.ABC):
    encoder: nn.Module
    decoder: nn.Module

    def encode(self, x: Tensor) -> Gaussian:
        return Gaussian.from_code(self.encoder(x))

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x).mean)


class VAE(LatentModel):
    def __init__(self, nz: int, beta: float = 1.0) -> None:
        super().__init__()
        self.encoder = Encoder(2 * nz)
        self.decoder = Decoder(nz)
        self.beta = beta

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        code = self.encoder(x)
        return {"q": code, "rec": self.decode(Gaussian.from_code(code).sample())}

    def loss(self, x: Tensor, outputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        posterior = Gaussian.from_code(outputs["q"])
        terms = {
            "rec_loss": F.mse_loss(outputs["rec"], x),
            "kl_loss": posterior.kl_to_standard_normal().mean(),
        }
        weights = {"rec_loss": 1.0, "kl_loss": self.beta}
        return sum(weights[name] * term for name, term in terms.items()), terms


TUNED_BETA: float = 1e-4
