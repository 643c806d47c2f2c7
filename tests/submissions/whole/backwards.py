# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %%
import torch
from torch import nn, optim
from torch.nn import functional as F
from torch.utils import data

TUNED_BETA = 1e-4
device = "cuda" if torch.cuda.is_available() else "cpu"


# %%
class VAE(nn.Module):
    def __init__(self, nz, beta=1.0):
        super().__init__()
        self.encoder = Encoder(2 * nz)
        self.decoder = Decoder(nz)
        self.beta = beta

    def forward(self, x):
        return run_vae(self, x)

    def loss(self, x, outputs):
        return vae_loss(self.beta, x, **outputs)

    def reconstruct(self, x):
        return self.decoder(halves(self.encoder(x))[0])


# %%
def train_vae(model, data_loader, epochs, learning_rate, device):
    def step(x):
        total, parts = model.loss(x, model(x))
        return total, [parts["rec_loss"].item(), parts["kl_loss"].item()]

    rows = train(model, data_loader, epochs, learning_rate, device, step)
    return {"rec_loss": [row[0] for row in rows], "kl_loss": [row[1] for row in rows]}


# %%
def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    def step(x):
        loss = F.mse_loss(model(x), x)
        return loss, loss.item()

    return train(model, data_loader, epochs, learning_rate, device, step)


# %%
def sample_images(model, num_samples, nz):
    return without_gradients(model.decoder, standard_normal(num_samples, nz, like=model))


# %%
def make_data_loader(dataset, batch_size, num_workers=0):
    return data.DataLoader(dataset, batch_size, **loader_options(num_workers))


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
class Decoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.net = decoder_layers(nz)

    def forward(self, z):
        return self.net(z)


# %%
class Encoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.net = encoder_layers(nz)

    def forward(self, x):
        return self.net(x)


# %% [markdown]
# ## Helpers

# %%
def encoder_layers(nz):
    return nn.Sequential(
        nn.Conv2d(1, 32, 4, 2, 1), act(),
        nn.Conv2d(32, 64, 4, 2, 1), nn.BatchNorm2d(64), act(),
        nn.Conv2d(64, 128, 3, 2), nn.BatchNorm2d(128), act(),
        nn.Conv2d(128, 256, 3), nn.BatchNorm2d(256), act(),
        nn.Flatten(), nn.Linear(256, nz),
    )


def decoder_layers(nz):
    return nn.Sequential(
        nn.Linear(nz, 256), nn.Unflatten(1, (256, 1, 1)), nn.BatchNorm2d(256), act(),
        nn.ConvTranspose2d(256, 128, 3), nn.BatchNorm2d(128), act(),
        nn.ConvTranspose2d(128, 64, 3, 2), nn.BatchNorm2d(64), act(),
        nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.BatchNorm2d(32), act(),
        nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Sigmoid(),
    )


def act():
    return nn.LeakyReLU(slope)


slope = 0.05


# %%
def halves(q):
    n = q.shape[1] // 2
    return q[:, :n], q[:, n:]


def run_vae(model, x):
    q = model.encoder(x)
    mu, log_sigma = halves(q)
    z = mu + torch.exp(log_sigma) * standard_normal(*mu.shape, like=model)
    return {"q": q, "rec": model.decoder(z)}


def vae_loss(beta, x, q, rec):
    mu, log_sigma = halves(q)
    k = kl_divergence(mu, log_sigma, 0 * mu, 0 * mu).sum() / len(x)
    r = ((x - rec) ** 2).sum() / x.numel()
    return r + beta * k, {"rec_loss": r, "kl_loss": k}


def standard_normal(*shape, like):
    return torch.randn(*shape, device=next(like.parameters()).device)


@torch.no_grad()
def without_gradients(function, *arguments):
    return function(*arguments)


def loader_options(num_workers):
    return {"shuffle": True, "num_workers": num_workers}


def train(model, loader, epochs, rate, device, step):
    optimizer = optim.Adam(model.parameters(), lr=rate)
    reports = []
    model.train()
    for _ in range(epochs):
        for images, _labels in loader:
            optimizer.zero_grad()
            loss, report = step(images.to(device))
            loss.backward()
            optimizer.step()
            reports.append(report)
    return reports


# %%
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    log_ratio = log_sigma2 - log_sigma1
    spread = torch.exp(2 * log_sigma1) + (mu1 - mu2) ** 2
    return log_ratio + spread / (2 * torch.exp(2 * log_sigma2)) - 0.5
