# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # HW: VAE (lightning-flavoured)

# %%
# !pip install -q torchinfo pytorch-lightning
# %load_ext autoreload
# %autoreload 2
from __future__ import annotations

import math
import os
import random
from collections import OrderedDict, defaultdict
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.utils import data

try:
    from torchinfo import summary
except ImportError:
    summary = None


# %%
def seed_everything(seed: int = 42) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
    os.environ["PYTHONHASHSEED"] = str(seed)


seed_everything()
DEVICE = device = "cuda" if torch.cuda.is_available() else "cpu"
hparams = dict(nz=64, lr=1e-3, batch_size=64, epochs=10)
nz = hparams["nz"]


# %%
class LightModule(nn.Module):
    """A poor man's LightningModule."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def num_params(self) -> int:
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def log(self, name: str, value: Any) -> None:
        if not hasattr(self, "_logged"):
            object.__setattr__(self, "_logged", defaultdict(list))
        self._logged[name].append(float(value))


def block(i: int, o: int, *, k: int, s: int, p: int = 0, up: bool = False) -> nn.Sequential:
    conv = nn.ConvTranspose2d if up else nn.Conv2d
    return nn.Sequential(
        OrderedDict(
            conv=conv(i, o, k, s, p, bias=True),
            norm=nn.BatchNorm2d(o),
            act=nn.LeakyReLU(negative_slope=0.01, inplace=True),
        )
    )


# %%
class Encoder(LightModule):
    __constants__ = ["nz"]

    def __init__(self, nz: int) -> None:
        super().__init__()
        assert nz > 0, f"latent size must be positive, got {nz}"
        self.nz = nz
        self.stem = nn.Sequential(
            OrderedDict(conv=nn.Conv2d(1, 32, 4, 2, 1), act=nn.LeakyReLU(inplace=True))
        )
        cfg = [(32, 64, 4, 2, 1), (64, 128, 3, 2, 0), (128, 256, 3, 1, 0)]
        self.body = nn.Sequential(*[block(i, o, k=k, s=s, p=p) for i, o, k, s, p in cfg])
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(256, nz))
        self.apply(self._init_weights)

    @staticmethod
    def _init_weights(m: nn.Module) -> None:
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(m.weight, a=0.01, nonlinearity="leaky_relu")
            nn.init.zeros_(m.bias)
        elif isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.weight, 1.0, 0.02)
            nn.init.constant_(m.bias, 0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B, nz)"""
        b, c, h, w = x.shape
        assert (c, h, w) == (1, 28, 28)
        out = self.head(self.body(self.stem(x)))
        assert out.size() == (b, self.nz)
        return out


# %%
class Decoder(LightModule):
    def __init__(self, nz: int) -> None:
        super().__init__()
        self.nz = nz
        self.project = nn.Linear(nz, 256)
        self.norm = nn.BatchNorm2d(256)
        self.act = nn.LeakyReLU(0.01)
        self.body = nn.ModuleList()
        for i, o, k, s, p in ((256, 128, 3, 1, 0), (128, 64, 3, 2, 0), (64, 32, 4, 2, 1)):
            self.body.append(block(i, o, k=k, s=s, p=p, up=True))
        self.to_pixels = nn.ConvTranspose2d(32, 1, 4, 2, 1)
        for name, param in self.named_parameters():
            if name.endswith("weight") and param.dim() > 1:
                nn.init.xavier_uniform_(param)

    def forward(self, z: Tensor) -> Tensor:
        h = self.act(self.norm(self.project(z)[..., None, None]))
        for layer in self.body:
            h = layer(h)
        return self.to_pixels(h).sigmoid()


# %%
if summary is not None:
    summary(Encoder(nz), (64, 1, 28, 28))


# %%
class AutoEncoder(LightModule):
    def __init__(self, nz):
        super().__init__()
        self.encoder, self.decoder = Encoder(nz), Decoder(nz)

    def forward(self, x):
        return self.decoder(self.encoder(x))

    def reconstruct(self, x):
        return self(x)

    def training_step(self, batch, batch_idx):
        x, _ = batch
        loss = F.mse_loss(self(x), x)
        self.log("train_loss", loss)
        return loss


# %%
def make_data_loader(
    dataset: data.Dataset, batch_size: int, num_workers: int = 0
) -> data.DataLoader:
    kwargs = {"num_workers": num_workers, "pin_memory": torch.cuda.is_available()}
    if num_workers > 0:
        kwargs["persistent_workers"] = True
    return data.DataLoader(dataset, batch_size, shuffle=True, drop_last=False, **kwargs)


# %%
def to_device(batch, device):
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    return type(batch)(to_device(b, device) for b in batch)


class Trainer:
    def __init__(self, max_epochs: int, device, log_every_n_steps: int = 50):
        self.max_epochs, self.device = max_epochs, device
        self.every = log_every_n_steps
        self.global_step = 0

    def fit(self, model, loader, optimizer, step_fn, on_step=None):
        model = model.to(self.device).train()
        for self.current_epoch in range(self.max_epochs):
            for batch_idx, batch in enumerate(loader):
                batch = to_device(list(batch), self.device)

                def closure():
                    optimizer.zero_grad(set_to_none=True)
                    loss = step_fn(model, batch, batch_idx)
                    loss.backward()
                    return loss

                loss = optimizer.step(closure)
                self.global_step += 1
                if on_step is not None:
                    on_step(float(loss))


def ae_step(model, batch, batch_idx):
    x = batch[0]
    return nn.functional.mse_loss(model(x), x, reduction="mean")


def train_autoencoder(model, data_loader, epochs, learning_rate, device) -> List[float]:
    """Trains and returns one number a step."""
    losses: List[float] = []
    optimizer = optim.Adam(params=model.parameters(), lr=learning_rate)
    Trainer(max_epochs=epochs, device=device).fit(
        model, data_loader, optimizer, ae_step, losses.append
    )
    return losses


# %%
@torch.inference_mode()
def sample_images(model, num_samples: int, nz: int) -> Tensor:
    was_training = model.training
    model.eval()
    ref = next(iter(model.decoder.parameters()))
    z = ref.new_empty(num_samples, nz).normal_()
    images = model.decoder(z)
    model.train(was_training)
    return images


# %%
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    return (
        log_sigma2
        - log_sigma1
        + (torch.exp(2 * log_sigma1) + (mu1 - mu2) ** 2) / (2 * torch.exp(2 * log_sigma2))
        - 0.5
    )


# %%
class VAE(AutoEncoder):
    def __init__(self, nz: int, beta: float = 1.0) -> None:
        LightModule.__init__(self)
        self.hparams = {"nz": nz, "beta": beta}
        self.encoder = Encoder(2 * nz)
        self.decoder = Decoder(nz)

    @property
    def beta(self) -> float:
        return self.hparams["beta"]

    @beta.setter
    def beta(self, value: float) -> None:
        self.hparams["beta"] = value

    def split(self, q: Tensor) -> Tuple[Tensor, Tensor]:
        return q.split(self.hparams["nz"], dim=-1)

    def encode(self, x: Tensor) -> torch.distributions.Distribution:
        mu, log_sigma = self.split(self.encoder(x))
        return torch.distributions.Normal(mu, log_sigma.exp(), validate_args=False)

    def forward(self, x: Tensor) -> Dict[str, Tensor]:
        q = self.encoder(x)
        mu, log_sigma = self.split(q)
        z = self.reparameterize(mu, log_sigma)
        return {"q": q, "rec": self.decoder(z), "z": z}

    def reparameterize(self, mu: Tensor, log_sigma: Tensor) -> Tensor:
        std = log_sigma.exp()
        eps = torch.randn(*std.size(), dtype=std.dtype, device=std.device)
        return eps.mul(std).add_(mu)

    def loss(self, x: Tensor, outputs: Dict[str, Tensor]) -> Tuple[Tensor, Dict[str, Tensor]]:
        mu, log_sigma = self.split(outputs["q"])
        prior = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
        post = torch.distributions.Normal(mu, log_sigma.exp(), validate_args=False)
        kl = torch.distributions.kl_divergence(post, prior).sum(-1).mean()
        rec = F.mse_loss(input=outputs["rec"], target=x)
        elbo = torch.add(rec, kl, alpha=self.beta)
        return elbo, {"loss": elbo.detach(), "rec_loss": rec.detach(), "kl_loss": kl.detach()}

    def training_step(self, batch, batch_idx):
        total, logs = self.loss(batch[0], self(batch[0]))
        for k, v in logs.items():
            self.log(k, v)
        return total

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decoder(self.encode(x).mean)


# %%
def train_vae(model, data_loader, epochs, learning_rate, device) -> Dict[str, List[float]]:
    history: Dict[str, List[float]] = defaultdict(list)

    def step(model, batch, batch_idx):
        x, *_ = batch
        total, logs = model.loss(x, model(x))
        for name in ("rec_loss", "kl_loss"):
            history[name].append(float(torch.as_tensor(logs[name]).detach().cpu()))
        return total

    optimizer = optim.Adam(model.parameters(), lr=learning_rate)
    Trainer(epochs, device).fit(model, data_loader, optimizer, step)
    return dict(history)


# %%
TUNED_BETA: float = 1 / 10_000
