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
class Encoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.layers = nn.ModuleDict()
        canales = [1, 32, 64, 128, 256]
        nucleos = [4, 4, 3, 3]
        pasos = [2, 2, 2, 1]
        rellenos = [1, 1, 0, 0]
        for i, (k, s, p) in enumerate(zip(nucleos, pasos, rellenos), start=1):
            self.layers[f"conv{i}"] = nn.Conv2d(canales[i - 1], canales[i], k, s, p)
            if i > 1:
                self.layers[f"bn{i}"] = nn.BatchNorm2d(canales[i])
        self.capa_final = nn.Linear(canales[-1], nz)
        self.activaciones = {}

    def forward(self, imagenes):
        salida = {"entrada": imagenes}
        previo = "entrada"
        for i in range(1, 5):
            h = self.layers[f"conv{i}"](salida[previo])
            if f"bn{i}" in self.layers:
                h = self.layers[f"bn{i}"](h)
            salida[f"bloque{i}"] = F.leaky_relu(h, 0.1)
            previo = f"bloque{i}"
        salida["plano"] = salida[previo].reshape(imagenes.shape[0], -1)
        salida["latente"] = self.capa_final(salida["plano"])
        self.activaciones = {k: tuple(v.shape) for k, v in salida.items()}
        return salida["latente"]


# %%
class Decoder(nn.Module):
    def __init__(self, nz: "int", slope: "float" = 0.2):
        super().__init__()
        self.slope = slope
        self.linear = nn.Linear(in_features=nz, out_features=256, bias=True)
        self.deconv = nn.ModuleDict(
            {
                "3": nn.ConvTranspose2d(256, 128, 3, stride=3),
                "7": nn.ConvTranspose2d(128, 64, 3, stride=2),
                "14": nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1),
                "28": nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1),
            }
        )
        self.norm = nn.ModuleDict(
            {
                "1": nn.BatchNorm2d(256),
                "3": nn.BatchNorm2d(128),
                "7": nn.BatchNorm2d(64),
                "14": nn.BatchNorm2d(32),
            }
        )

    def forward(self, z):
        maps = {}
        maps[1] = F.leaky_relu(self.norm["1"](self.linear(z).unsqueeze(2).unsqueeze(3)), self.slope)
        prev = 1
        for r in (3, 7, 14):
            maps[r] = F.leaky_relu(
                self.norm[str(r)](self.deconv[str(r)](maps[prev], output_size=[r, r])), self.slope
            )
            prev = r
        logits = self.deconv["28"](maps[14], output_size=[28, 28])
        return logits.sigmoid()


# %%
class MiniBatches(DataLoader):
    @property
    def steps_per_epoch(self):
        return len(self)

    def __repr__(self):
        return f"MiniBatches({len(self.dataset)} images)"


def make_data_loader(dataset, batch_size, num_workers=0, *, shuffle=True):
    return MiniBatches(dataset, batch_size, shuffle=shuffle, num_workers=num_workers)


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
from IPython import display
from IPython.display import clear_output

try:
    from tqdm.notebook import tqdm, trange
except ImportError:
    tqdm = lambda x, **k: x
    trange = range
try:
    import wandb
except ImportError:
    wandb = None


def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    if wandb is not None and wandb.run is not None:
        wandb.config.update({"lr": learning_rate})
    opt = torch.optim.Adam(model.parameters(), learning_rate)
    model.train()
    losses = []
    for ep in trange(epochs):
        running = 0.0
        for x, y in tqdm(data_loader, leave=False, desc=f"epoch {ep}"):
            x = x.to(device)
            loss = F.mse_loss(model(x), x)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses += [loss.item()]
            running += loss.item() * len(x)
        clear_output(wait=True)
        fig, ax = plt.subplots()
        ax.semilogy(losses)
        ax.set_title(
            f"avg {running / len(data_loader.dataset):.4f}"
            if hasattr(data_loader, "dataset")
            else "loss"
        )
        display.display(fig)
        plt.close(fig)
        if wandb:
            wandb.log({"loss": running})
    return losses


# %%
def _latents(n, d, bs=16):
    for start in range(0, n, bs):
        yield torch.normal(0.0, 1.0, size=(min(bs, n - start), d))


def sample_images(model, num_samples, nz):
    dev = next(model.decoder.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return torch.cat([model.decoder(z.to(dev)) for z in _latents(num_samples, nz)], dim=0)
    finally:
        model.train(was_training)


# %%
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    log_ratio = log_sigma2 - log_sigma1
    spread = torch.exp(2 * log_sigma1) + (mu1 - mu2) ** 2
    return log_ratio + spread / (2 * torch.exp(2 * log_sigma2)) - 0.5


# %%
from torch.func import vmap


class VAE(nn.Module):
    def __init__(self, nz, beta=1.0):
        super().__init__()
        self.encoder = Encoder(2 * nz)
        self.decoder = Decoder(nz)
        self.beta = torch.tensor(float(beta))

    def _split(self, q):
        b, two_nz = q.shape
        halves = q.reshape(b, 2, two_nz // 2)
        return halves.unbind(dim=1)

    def forward(self, x):
        q = self.encoder(x)
        m, s = self._split(q)
        noise = torch.randn(m.size(), dtype=m.dtype, device=m.device)
        z = torch.lerp(m, m + torch.exp(s), noise)
        return {"q": q, "rec": self.decoder(z)}

    def loss(self, x, outputs):
        m, s = self._split(outputs["q"])
        per_image = vmap(
            lambda a, b: kl_divergence(a, b, torch.zeros_like(a), torch.zeros_like(b)).sum()
        )(m, s)
        rec = vmap(lambda a, b: ((a - b) ** 2).mean())(outputs["rec"], x).mean()
        kl = per_image.mean()
        total = rec + self.beta.to(rec.device) * kl
        return total, dict(rec_loss=rec, kl_loss=kl)

    def reconstruct(self, x):
        return self.decoder(self._split(self.encoder(x))[0])


# %%
import copy


def train_vae(model, data_loader, epochs, learning_rate, device):
    shadow = copy.deepcopy(model).eval().requires_grad_(False)
    opt = torch.optim.Adam(model.parameters(), lr=learning_rate)
    rec_hist, kl_hist = [], []
    model.train()
    for _ in range(epochs):
        for x, y in data_loader:
            x = x.to(device)
            outputs = model(x)
            total, d = model.loss(x, outputs)
            opt.zero_grad()
            total.backward()
            opt.step()
            with torch.no_grad():
                for s, p in zip(shadow.parameters(), model.parameters()):
                    s.lerp_(p, 0.01)
            rec_hist.append(float(d["rec_loss"]))
            kl_hist.append(float(d["kl_loss"]))
    return {"rec_loss": rec_hist, "kl_loss": kl_hist}


# %%
candidates = torch.logspace(-6, -2, 5).tolist()
TUNED_BETA: float = (
    min(candidates, key=lambda b: abs(math.log10(b) + 4)) if "math" in dir() else candidates[2]
)
