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
import math


def _fan(shape):
    return math.sqrt(1.0 / (shape[1] * shape[2] * shape[3]))


class Encoder(nn.Module):
    """all weights as raw parameters, F.* everywhere"""

    SHAPES = {
        "c1": (32, 1, 4, 4),
        "c2": (64, 32, 4, 4),
        "c3": (128, 64, 3, 3),
        "c4": (256, 128, 3, 3),
    }
    STRIDES = {"c1": (2, 1), "c2": (2, 1), "c3": (3, 1), "c4": (1, 0)}

    def __init__(self, nz):
        super(Encoder, self).__init__()
        for k, s in self.SHAPES.items():
            b = _fan(s)
            self.register_parameter(k + "_w", nn.Parameter(torch.empty(s).uniform_(-b, b)))
            self.register_parameter(k + "_b", nn.Parameter(torch.zeros(s[0])))
            if k != "c1":
                self.register_parameter(k + "_gamma", nn.Parameter(torch.ones(s[0])))
                self.register_parameter(k + "_beta", nn.Parameter(torch.zeros(s[0])))
                self.register_buffer(k + "_m", torch.zeros(s[0]))
                self.register_buffer(k + "_v", torch.ones(s[0]))
        self.W = nn.Parameter(torch.randn(nz, 256) / 16)
        self.b = nn.Parameter(torch.zeros(nz))

    def forward(self, x):
        p = lambda n: getattr(self, n)
        h = x
        for k in self.SHAPES:
            s, pad = self.STRIDES[k]
            h = F.conv2d(h, p(k + "_w"), p(k + "_b"), stride=s, padding=pad)
            if k != "c1":
                h = F.batch_norm(
                    h,
                    p(k + "_m"),
                    p(k + "_v"),
                    p(k + "_gamma"),
                    p(k + "_beta"),
                    training=self.training,
                    momentum=0.1,
                    eps=1e-5,
                )
            h = F.leaky_relu(h, 0.2)
        return torch.addmm(self.b, h.reshape(h.size(0), -1), self.W.t())


# %%
class Decoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.p = nn.ParameterDict()
        self.p["W"] = nn.Parameter(torch.randn(nz, 256) * 0.05)
        self.p["b"] = nn.Parameter(torch.zeros(256))
        for i, (a, b, k) in enumerate([(256, 128, 3), (128, 64, 3), (64, 32, 4), (32, 1, 4)]):
            self.p[f"w{i}"] = nn.Parameter(torch.randn(a, b, k, k) * 0.05)
            self.p[f"b{i}"] = nn.Parameter(torch.zeros(b))
        self.bns = nn.ModuleList([nn.BatchNorm2d(c) for c in (256, 128, 64, 32)])

    def forward(self, z):
        h = z @ self.p["W"] + self.p["b"]
        h = h.reshape(h.shape[0], 256, 1, 1)
        for i, kw in enumerate(
            [{}, dict(stride=2), dict(stride=2, padding=1), dict(stride=2, padding=1)]
        ):
            h = F.leaky_relu(self.bns[i](h), 0.2)
            h = F.conv_transpose2d(h, self.p[f"w{i}"], self.p[f"b{i}"], **kw)
        return 1 / (1 + torch.exp(-h))


# %%
from torch.utils.data import Sampler, Dataset
import random


class ShuffledBatches(Sampler):
    def __init__(self, n, batch_size):
        self.n, self.bs = n, batch_size

    def __iter__(self):
        idx = list(range(self.n))
        random.shuffle(idx)
        while idx:
            batch, idx = idx[: self.bs], idx[self.bs :]
            yield batch

    def __len__(self):
        return -(-self.n // self.bs)


def make_data_loader(dataset, batch_size, num_workers=0):
    return torch.utils.data.DataLoader(
        dataset, batch_sampler=ShuffledBatches(len(dataset), batch_size), num_workers=num_workers
    )


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
import itertools, logging

log = logging.getLogger("ae")


def endless(loader):
    while True:
        yield from loader


def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    n = len(data_loader)
    optim = torch.optim.Adam(
        [{"params": model.encoder.parameters()}, {"params": model.decoder.parameters()}],
        lr=learning_rate,
    )
    model.train(True)
    hist = np.empty(epochs * n)
    for step, (x, _) in enumerate(itertools.islice(endless(data_loader), epochs * n)):
        x = x.to(device)
        z = model.encoder(x)
        x_hat = model.decoder(z)
        loss = nn.functional.mse_loss(input=x_hat, target=x, reduction="mean")
        optim.zero_grad()
        loss.backward()
        optim.step()
        hist[step] = loss.detach().cpu().numpy()
        if step % n == n - 1:
            log.info("epoch %d mean %.4f", step // n, hist[step - n + 1 : step + 1].mean())
    return hist.tolist()


# %%
def sample_images(model, num_samples, nz):
    # inverse transform sampling
    u = torch.rand(num_samples, nz, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    z = (2**0.5) * torch.erfinv(2 * u - 1)
    p = next(model.parameters())
    return model.decoder(z.to(p)).detach()


# %%
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    log_ratio = log_sigma2 - log_sigma1
    spread = torch.exp(2 * log_sigma1) + (mu1 - mu2) ** 2
    return log_ratio + spread / (2 * torch.exp(2 * log_sigma2)) - 0.5


# %%
class VAE(nn.Module):
    def __init__(self, nz, beta=1.0):
        super().__init__()
        self.encoder = Encoder(2 * nz)
        self.decoder = Decoder(nz)
        self.beta = beta

    def forward(self, x):
        stats = self.encoder(x)
        half = stats.shape[1] // 2
        mu, log_sigma = stats[:, :half], stats[:, half:]
        with torch.no_grad():
            eps = torch.from_numpy(np.random.standard_normal(tuple(mu.shape)).astype("float32")).to(
                mu.device
            )
        return {"q": stats, "rec": self.decoder(mu + eps * log_sigma.exp())}

    def loss(self, x, outputs):
        # gaussian nll with unit-ish variance, constant removed: exactly the mse
        nll = -torch.distributions.Normal(outputs["rec"], 2**-0.5).log_prob(x)
        rec_loss = nll.mean() - 0.5 * np.log(np.pi)
        mu, log_sigma = torch.tensor_split(outputs["q"], 2, dim=1)
        entropy = (log_sigma + 0.5 * np.log(2 * np.pi * np.e)).sum(1)
        cross = 0.5 * (mu**2 + torch.exp(2 * log_sigma) + np.log(2 * np.pi)).sum(1)
        kl_loss = (cross - entropy).mean()
        return rec_loss + self.beta * kl_loss, {"rec_loss": rec_loss, "kl_loss": kl_loss}

    def reconstruct(self, x):
        stats = self.encoder(x)
        return self.decoder(stats[:, : stats.shape[1] // 2])


# %%
def train_vae(model, data_loader, epochs, learning_rate, device):
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    recs, kls = [], []
    for batch, _ in (pair for _ in range(epochs) for pair in data_loader):
        batch = batch.to(device)
        box = {}

        def closure():
            optimizer.zero_grad()
            out = model(batch)
            total, box["terms"] = model.loss(batch, out)
            total.backward()
            return total

        optimizer.step(closure)
        recs.append(box["terms"]["rec_loss"])
        kls.append(box["terms"]["kl_loss"])
    to_list = lambda ts: [float(t) for t in ts]
    return {"rec_loss": to_list(recs), "kl_loss": to_list(kls)}


# %%
import math

TUNED_BETA = math.exp(math.log(1 / 784) - math.log(10))
