# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %%
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


# %%
import dataclasses
from typing import Sequence, Protocol


@dataclasses.dataclass(frozen=True)
class ConvSpec:
    c_in: int
    c_out: int
    k: int
    s: int = 1
    p: int = 0
    norm: bool = True


class HasForward(Protocol):
    def forward(self, x: "torch.Tensor") -> "torch.Tensor": ...


SPECS: Sequence[ConvSpec] = (
    ConvSpec(1, 32, 4, 2, 1, norm=False),
    ConvSpec(32, 64, 4, 2, 1),
    ConvSpec(64, 128, 3, 2),
    ConvSpec(128, 256, 3),
)


def block(spec: ConvSpec) -> nn.Sequential:
    parts: list[nn.Module] = [nn.Conv2d(spec.c_in, spec.c_out, spec.k, spec.s, spec.p)]
    if spec.norm:
        parts.append(nn.BatchNorm2d(spec.c_out))
    parts.append(nn.LeakyReLU(1e-2, inplace=True))
    return nn.Sequential(*parts)


class Encoder(nn.Module):
    def __init__(self, nz: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*map(block, SPECS))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(SPECS[-1].c_out, nz))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.ndim == 4 and x.shape[1:] == (1, 28, 28), x.shape
        h = self.trunk(x)
        assert h.shape[-2:] == (1, 1)
        return self.head(h)


# %%
from collections import namedtuple

Up = namedtuple("Up", "cin cout k s p op", defaults=(1, 0, 0))


class UpBlock(nn.Module):
    def __init__(self, up: Up, last: bool = False):
        super().__init__()
        self.deconv = nn.ConvTranspose2d(
            up.cin, up.cout, kernel_size=up.k, stride=up.s, padding=up.p, output_padding=up.op
        )
        self.post = (
            nn.Sigmoid()
            if last
            else nn.Sequential(nn.BatchNorm2d(up.cout), nn.LeakyReLU(0.2, True))
        )

    def forward(self, x):
        return self.post(self.deconv(x))


class Decoder(nn.Module):
    ups = [Up(256, 128, 3), Up(128, 64, 3, 2), Up(64, 32, 4, 2, 1), Up(32, 1, 4, 2, 1)]

    def __init__(self, nz):
        super().__init__()
        self.fc = nn.Linear(nz, 256)
        self.norm_act = nn.Sequential(nn.BatchNorm1d(256), nn.LeakyReLU(0.2))
        self.blocks = nn.ModuleList(UpBlock(u, last=(u is self.ups[-1])) for u in self.ups)

    def forward(self, z):
        h = self.norm_act(self.fc(z))[..., None, None]
        for b in self.blocks:
            h = b(h)
        return h


# %%
from torch.utils.data import Dataset


class Wrapped(Dataset):
    def __init__(self, base, transform=None):
        self.base, self.transform = base, transform

    def __len__(self):
        return len(self.base)

    def __getitem__(self, i):
        x, y = self.base[i]
        return (self.transform(x) if self.transform else x), y


def make_data_loader(dataset, batch_size, num_workers=0):
    kw = dict(
        batch_size=batch_size,
        shuffle=True,
        num_workers=num_workers,
        drop_last=False,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
    )
    loader = DataLoader(Wrapped(dataset), **kw)
    assert len(loader) == (len(dataset) + batch_size - 1) // batch_size
    print(f"{len(loader)} batches")
    return loader


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
from contextlib import contextmanager


@contextmanager
def training_mode(net):
    was = net.training
    net.train()
    try:
        yield net
    finally:
        net.train(was)


class Trainer:
    def __init__(self, model, lr, device):
        self.model, self.device = model, device
        self.opt = torch.optim.Adam(model.parameters(), lr=lr)
        self.history = []

    def loss(self, x):
        return torch.mean(torch.square(self.model(x) - x))

    def step(self, x):
        self.opt.zero_grad()
        l = self.loss(x)
        l.backward()
        self.opt.step()
        return l.item()

    def epoch(self, loader):
        with training_mode(self.model):
            return [self.step(b[0].to(self.device)) for b in loader]

    def __call__(self, loader, n):
        for k in range(n):
            self.history.extend(self.epoch(loader))
        return self.history


def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    return Trainer(model, learning_rate, device)(data_loader, epochs)


# %%
from torch.distributions import Normal, Independent, MultivariateNormal


def device_of(m):
    return {p.device for p in m.parameters()}.pop()


@torch.inference_mode()
def sample_images(model, num_samples, nz):
    dev = device_of(model)
    prior = Independent(Normal(torch.zeros(nz, device=dev), torch.ones(nz, device=dev)), 1)
    z = prior.sample(torch.Size([num_samples]))
    return model.decoder(z)


# %%
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    log_ratio = log_sigma2 - log_sigma1
    spread = torch.exp(2 * log_sigma1) + (mu1 - mu2) ** 2
    return log_ratio + spread / (2 * torch.exp(2 * log_sigma2)) - 0.5


# %%
from dataclasses import dataclass


@dataclass
class Posterior:
    mu: torch.Tensor
    log_sigma: torch.Tensor

    @classmethod
    def from_q(cls, q):
        return cls(*q.tensor_split(2, dim=-1))

    @property
    def sigma(self):
        return self.log_sigma.exp()

    def sample(self):
        return torch.addcmul(self.mu, self.sigma, torch.randn_like(self.mu))

    def kl(self):
        return (0.5 * (self.mu.square() + self.sigma.square() - 1) - self.log_sigma).sum(-1)


class VAE(nn.Module):
    def __init__(self, nz: int, beta: float = 1.0):
        super().__init__()
        self.beta = beta
        self.encoder = Encoder(nz * 2)
        self.decoder = Decoder(nz)

    def forward(self, x):
        q = self.encoder(x)
        return dict(q=q, rec=self.decoder(Posterior.from_q(q).sample()))

    def loss(self, x, outputs):
        rec = F.mse_loss(outputs["rec"], x)
        kl = Posterior.from_q(outputs["q"]).kl().mean()
        return rec + self.beta * kl, {"rec_loss": rec, "kl_loss": kl}

    def reconstruct(self, x):
        return self.decoder(Posterior.from_q(self.encoder(x)).mu)


# %%
class History(dict):
    def log(self, **kw):
        for k, v in kw.items():
            self.setdefault(k, []).append(v.item() if torch.is_tensor(v) else v)


def train_vae(model, data_loader, epochs, learning_rate, device):
    h = History(rec_loss=[], kl_loss=[])
    optimizer = torch.optim.Adam(
        params=list(model.encoder.parameters()) + list(model.decoder.parameters()), lr=learning_rate
    )
    model.train()
    assert epochs >= 0
    n = 0
    while n < epochs:
        n += 1
        for imgs, _ in iter(data_loader):
            imgs = imgs.to(device)
            optimizer.zero_grad()
            (total, terms) = model.loss(imgs, model.forward(imgs))
            total.backward()
            optimizer.step()
            h.log(total=total, **terms)
        plt.figure()
        plt.plot(h["rec_loss"])
        plt.close("all")
    return h


# %%
from decimal import Decimal

betas = {name: Decimal(v) for name, v in [("low", "1e-5"), ("mid", "1e-4"), ("high", "1e-3")]}
TUNED_BETA = float(betas["mid"])
