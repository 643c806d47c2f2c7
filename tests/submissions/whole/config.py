# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %%
import json
import random
import types

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader

CONFIG = json.loads("""
{
  "seed": 17,
  "slope": 0.2,
  "encoder": [
    {"in": 1, "out": 32, "kernel": 4, "stride": 2, "padding": 1, "norm": false},
    {"in": 32, "out": 64, "kernel": 4, "stride": 2, "padding": 1, "norm": true},
    {"in": 64, "out": 128, "kernel": 3, "stride": 2, "padding": 0, "norm": true},
    {"in": 128, "out": 256, "kernel": 3, "stride": 1, "padding": 0, "norm": true}
  ],
  "decoder": [
    {"in": 256, "out": 128, "kernel": 3, "stride": 1, "padding": 0},
    {"in": 128, "out": 64, "kernel": 3, "stride": 2, "padding": 0},
    {"in": 64, "out": 32, "kernel": 4, "stride": 2, "padding": 1},
    {"in": 32, "out": 1, "kernel": 4, "stride": 2, "padding": 1}
  ],
  "optimizer": {"name": "Adam", "betas": [0.9, 0.999]},
  "vae": {"tuned_beta": 1e-4}
}
""")
cfg = types.SimpleNamespace(**CONFIG)
cfg.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seed_everything(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


seed_everything(cfg.seed)


# %%
def stack(kind, rows, first_norm):
    layers = []
    for row in rows:
        layers.append(kind(row["in"], row["out"], row["kernel"], row["stride"], row["padding"]))
        if row.get("norm", row["out"] > 1):
            layers.append(nn.BatchNorm2d(row["out"]))
        layers.append(nn.LeakyReLU(cfg.slope) if row["out"] > 1 else nn.Sigmoid())
    return layers


class Encoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.net = nn.Sequential(*stack(nn.Conv2d, cfg.encoder, False), nn.Flatten(), nn.Linear(256, nz))

    def forward(self, x):
        return self.net(x)


class Decoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        start = [nn.Linear(nz, 256), nn.Unflatten(1, (256, 1, 1)), nn.BatchNorm2d(256), nn.LeakyReLU(cfg.slope)]
        self.net = nn.Sequential(*start, *stack(nn.ConvTranspose2d, cfg.decoder, True))

    def forward(self, z):
        return self.net(z)


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
def make_data_loader(dataset, batch_size, num_workers=0):
    return DataLoader(dataset, batch_size, shuffle=True, num_workers=num_workers)


# %%
def make_optimizer(model, rate):
    kind = getattr(torch.optim, cfg.optimizer["name"])
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in cfg.optimizer.items() if k != "name"}
    return kind(model.parameters(), lr=rate, **options)


def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    optimizer = make_optimizer(model, learning_rate)
    criterion = {"mse": nn.MSELoss(), "l1": nn.L1Loss()}["mse"]
    losses = []
    for epoch in range(epochs):
        for x, y in data_loader:
            x, y = (t.to(device, non_blocking=True) for t in (x, y))
            optimizer.zero_grad()
            loss = criterion(model(x), x)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


# %%
@torch.no_grad()
def sample_images(model, num_samples, nz):
    return model.decoder(torch.randn(num_samples, nz, device=next(model.parameters()).device))


# %%
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    log_ratio = log_sigma2 - log_sigma1
    spread = torch.exp(2 * log_sigma1) + (mu1 - mu2) ** 2
    return log_ratio + spread / (2 * torch.exp(2 * log_sigma2)) - 0.5


# %%
class VAE(nn.Module):
    def __init__(self, nz, beta=1.0):
        super().__init__()
        self.cfg = types.SimpleNamespace(nz=nz, beta=beta)
        self.encoder, self.decoder = Encoder(2 * nz), Decoder(nz)

    @property
    def beta(self):
        return self.cfg.beta

    def forward(self, x):
        q = self.encoder(x)
        mu, log_sigma = q.split([self.cfg.nz, self.cfg.nz], dim=1)
        z = mu + log_sigma.exp() * torch.randn(mu.shape, device=cfg.device)
        return {"q": q, "rec": self.decoder(z)}

    def loss(self, x, outputs):
        mu, log_sigma = outputs["q"].split([self.cfg.nz, self.cfg.nz], dim=1)
        zeros = torch.zeros_like(mu)
        kl_loss = kl_divergence(mu, log_sigma, zeros, zeros).sum(1).mean()
        rec_loss = F.mse_loss(outputs["rec"], x)
        return rec_loss + self.beta * kl_loss, {"rec_loss": rec_loss, "kl_loss": kl_loss}

    def reconstruct(self, x):
        return self.decoder(self.encoder(x).split([self.cfg.nz, self.cfg.nz], dim=1)[0])


# %%
def train_vae(model, data_loader, epochs, learning_rate, device):
    optimizer = make_optimizer(model, learning_rate)
    rec, kl = [], []
    for epoch in range(epochs):
        for x, _ in data_loader:
            x = x.to(device)
            optimizer.zero_grad()
            total, parts = model.loss(x, model(x))
            total.backward()
            optimizer.step()
            rec.append(parts["rec_loss"].item())
            kl.append(parts["kl_loss"].item())
    return {"rec_loss": rec, "kl_loss": kl}


TUNED_BETA = cfg.vae["tuned_beta"]
