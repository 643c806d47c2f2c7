# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %%
from dataclasses import dataclass
from typing import override

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

Images = Float[Tensor, "batch 1 28 28"]


# %%
class Encoder(nn.Sequential):
    def __init__(self, nz):
        layers = []
        sizes = zip((1, 32, 64, 128), (32, 64, 128, 256), (4, 4, 3, 3), (2, 2, 2, 1), (1, 1, 0, 0))
        for i, o, kernel, stride, padding in sizes:
            layers.append(nn.Conv2d(i, o, kernel, stride, padding))
            layers += [nn.BatchNorm2d(o)] if i > 1 else []
            layers.append(nn.LeakyReLU(0.2))
        super().__init__(*layers, nn.Flatten(), nn.Linear(256, nz))

    @override
    def forward(self, images: Images) -> Float[Tensor, "batch nz"]:
        for layer in self:
            images = layer(images)
        return images


class Decoder(nn.Sequential):
    def __init__(self, nz):
        super().__init__(
            nn.Linear(nz, 256), nn.Unflatten(1, (256, 1, 1)), nn.BatchNorm2d(256), nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(256, 128, 3), nn.BatchNorm2d(128), nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(128, 64, 3, 2), nn.BatchNorm2d(64), nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Sigmoid(),
        )

    def forward(self, latents):
        return super().forward(latents)


class AutoEncoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.encoder = Encoder(nz)
        self.decoder = Decoder(nz)

    def forward(self, x):
        return self.decoder(latents=self.encoder(images=x))

    def reconstruct(self, x):
        return self(x)


# %%
@torch.compile
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    log_ratio = log_sigma2 - log_sigma1
    spread = torch.exp(2 * log_sigma1) + (mu1 - mu2) ** 2
    return log_ratio + spread / (2 * torch.exp(2 * log_sigma2)) - 0.5


class Terms(dict):
    """A dict whose keys are attributes, too."""

    __getattr__ = dict.__getitem__


class VAE(nn.Module):
    def __init__(self, nz, beta=1.0):
        super().__init__()
        self.beta = beta
        self.steps = 0
        self.criterion = nn.MSELoss()
        self.encoder = Encoder(2 * nz)
        self.decoder = Decoder(nz)
        self.width = self.encoder[-1].out_features // 2
        nn.init.zeros_(self.encoder[-1].bias)
        heads = [layer for layer in self.encoder.modules() if isinstance(layer, nn.Linear)]
        dict(heads[0].named_parameters())["weight"].data.mul_(0.5)

    @property
    def device(self):
        return next(self.buffers()).device

    def encode(self, images: Images):
        h = images.to(self.device)
        for layer in self.encoder:
            h = layer(h)
        return h

    def forward(self, x):
        q = self.encode(images=x)
        mu, log_sigma = q.split(self.width, dim=1)
        noise = torch.randn(mu.shape, device=self.device)
        return {"q": q, "rec": self.decoder(latents=torch.addcmul(mu, log_sigma.exp(), noise))}

    def loss(self, images, out):
        mu, log_sigma = out["q"].split(self.width, dim=1)
        rec = self.criterion(out["rec"], images)
        kl = kl_divergence(mu, log_sigma, torch.zeros_like(mu), torch.zeros_like(mu)).sum(1).mean()
        return rec + self.beta * kl, Terms(rec_loss=rec, kl_loss=kl)

    def reconstruct(self, x):
        return self.decoder(latents=self.encode(images=x)[:, : self.width])


# %%
def make_data_loader(dataset, batch_size, num_workers=0):
    return DataLoader(dataset, batch_size, shuffle=True, num_workers=num_workers)


# %%
def sample_images(model, num_samples, nz) -> Float[Tensor, "n 1 28 28"]:
    h = torch.randn(num_samples, nz, device=next(model.decoder.buffers()).device)
    with torch.no_grad():
        for layer in model.decoder:
            h = layer(h)
    return h


# %%
@dataclass
class Step:
    loss: Tensor
    logged: dict


def trainer_of(step, report):
    """A training function for any model: step gives the loss of a batch."""

    def train(model, data_loader, epochs, learning_rate, device):
        adam = torch.optim.Adam(model.parameters(), lr=learning_rate)
        model.train()
        logged = []
        for _ in range(epochs):
            for x, _ in data_loader:
                done = step(model, x.to(device))
                adam.zero_grad()
                done.loss.backward()
                adam.step()
                logged.append({name: value.item() for name, value in done.logged.items()})
        return report(logged)

    return train


def ae_step(model, x):
    loss = F.mse_loss(model(x), x)
    return Step(loss, {"loss": loss})


def vae_step(model, x):
    model.steps += 1
    total, terms = model.loss(images=x, out=model(x))
    return Step(total, {"rec_loss": terms.rec_loss, "kl_loss": terms.kl_loss})


train_autoencoder = trainer_of(ae_step, lambda logged: [entry["loss"] for entry in logged])
train_vae = trainer_of(
    vae_step, lambda logged: {k: [entry[k] for entry in logged] for k in ("rec_loss", "kl_loss")}
)

# %%
ae_model = AutoEncoder(64).to(device)
ae_losses = train_autoencoder(ae_model, train_loader, 10, 1e-3, device)

TUNED_BETA = 1e-4

# %% [markdown]
# Once more, with names that mean something else by now.

# %%
def ae_step(model, x, noise):
    return F.mse_loss(model(x + noise * torch.randn_like(x)), x)


F = torch.fft.fft2(torch.zeros(28, 28))
nn = 3
