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


# %%
LAYERS = {}


def layer(cls):
    """Make a class known by its name in lower case."""
    LAYERS[cls.__name__.lower()] = cls
    return cls


@layer
class Down(nn.Sequential):
    def __init__(self, i, o, k, s, p, norm):
        super().__init__(nn.Conv2d(i, o, k, s, p), *[nn.BatchNorm2d(o)] * norm, nn.LeakyReLU(0.2))


@layer
class Up(nn.Sequential):
    def __init__(self, i, o, k, s, p):
        super().__init__(nn.BatchNorm2d(i), nn.LeakyReLU(0.2), nn.ConvTranspose2d(i, o, k, s, p))


@layer
class Code(nn.Sequential):
    def __init__(self, nz):
        super().__init__(nn.Flatten(), nn.Linear(256, nz))


@layer
class Start(nn.Sequential):
    def __init__(self, nz):
        super().__init__(nn.Linear(nz, 256), nn.Unflatten(1, (256, 1, 1)))


def build(description, **values):
    parts = [line.split() for line in description.strip().splitlines()]
    return nn.Sequential(
        *(LAYERS[name](*(values[n] if n in values else int(n) for n in numbers)) for name, *numbers in parts)
    )


class Encoder(nn.Module):
    text = """
        down 1 32 4 2 1 0
        down 32 64 4 2 1 1
        down 64 128 3 2 0 1
        down 128 256 3 1 0 1
        code nz
    """

    def __init__(self, nz):
        super().__init__()
        self.net = build(self.text, nz=nz)

    def forward(self, x):
        return self.net(x)


class Decoder(nn.Module):
    text = """
        start nz
        up 256 128 3 1 0
        up 128 64 3 2 0
        up 64 32 4 2 1
        up 32 1 4 2 1
    """

    def __init__(self, nz):
        super().__init__()
        self.net = build(self.text, nz=nz)

    def forward(self, z):
        return self.net(z).sigmoid()


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
def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    adam = torch.optim.Adam(model.parameters(), lr=learning_rate)
    losses = []
    for _ in range(epochs):
        for x, _ in data_loader:
            x = x.to(device)
            adam.zero_grad()
            loss = F.mse_loss(model(x), x)
            loss.backward()
            adam.step()
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
        self.encoder, self.decoder, self.beta = Encoder(2 * nz), Decoder(nz), beta

    def forward(self, x):
        q = self.encoder(x)
        mu, log_sigma = q.chunk(2, 1)
        return {"q": q, "rec": self.decoder(mu + log_sigma.exp() * torch.randn_like(mu))}

    def loss(self, x, outputs):
        mu, log_sigma = outputs["q"].chunk(2, 1)
        zeros = torch.zeros_like(mu)
        kl_loss = kl_divergence(mu, log_sigma, zeros, zeros).sum(1).mean()
        rec_loss = F.mse_loss(outputs["rec"], x)
        return rec_loss + self.beta * kl_loss, {"rec_loss": rec_loss, "kl_loss": kl_loss}

    def reconstruct(self, x):
        return self.decoder(self.encoder(x).chunk(2, 1)[0])

# %%
def train_vae(model, data_loader, epochs, learning_rate, device):
    adam = torch.optim.Adam(model.parameters(), lr=learning_rate)
    history = {"rec_loss": [], "kl_loss": []}
    for _ in range(epochs):
        for x, _ in data_loader:
            x = x.to(device)
            adam.zero_grad()
            total, parts = model.loss(x, model(x))
            total.backward()
            adam.step()
            for name in history:
                history[name].append(parts[name].item())
    return history


TUNED_BETA = 1e-4
