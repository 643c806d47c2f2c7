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
class Encoder(nn.Sequential):
    def __init__(self, nz):
        super().__init__(
            nn.Conv2d(1, 32, 4, 2, 1),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(32, 64, 4, 2, 1),
            nn.BatchNorm2d(64),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(64, 128, 3, 2),
            nn.BatchNorm2d(128),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(128, 256, 3),
            nn.BatchNorm2d(256),
            nn.LeakyReLU(0.2, True),
            nn.Flatten(),
            nn.Linear(256, nz),
        )


class Decoder(nn.Sequential):
    def __init__(self, nz):
        super().__init__()
        self.append(nn.Linear(nz, 256)).append(nn.Unflatten(1, (256, 1, 1)))
        for i, o, k, s, p in ((256, 128, 3, 1, 0), (128, 64, 3, 2, 0), (64, 32, 4, 2, 1), (32, 1, 4, 2, 1)):
            self.extend([nn.BatchNorm2d(i), nn.LeakyReLU(0.2, True), nn.ConvTranspose2d(i, o, k, s, p)])
        self.append(nn.Sigmoid())


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
    return DataLoader(dataset, batch_size, True, num_workers=num_workers)


# %%
def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    opt = torch.optim.Adam(model.parameters(), learning_rate)
    log = torch.empty(0)
    for _ in range(epochs):
        for x, _ in data_loader:
            x = x.to(device)
            loss = (model(x) - x).pow(2).mean()
            opt.zero_grad(), loss.backward(), opt.step()
            log = torch.cat([log, loss.detach().cpu()[None]])
    return log.tolist()


def sample_images(model, num_samples, nz):
    with torch.no_grad():
        return model.decoder(next(model.parameters()).new_empty(num_samples, nz).normal_())


# %%
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    log_ratio = log_sigma2 - log_sigma1
    spread = torch.exp(2 * log_sigma1) + (mu1 - mu2) ** 2
    return log_ratio + spread / (2 * torch.exp(2 * log_sigma2)) - 0.5


class Halves(nn.Module):
    def forward(self, q):
        return q.unflatten(1, (2, -1)).unbind(1)


class VAE(nn.Module):
    def __init__(self, nz, beta=1.0):
        super().__init__()
        self.beta = beta
        self.encoder = Encoder(2 * nz)
        self.halves = Halves()
        self.decoder = Decoder(nz)

    def forward(self, x):
        q = self.encoder(x)
        m, s = self.halves(q)
        return dict(q=q, rec=self.decoder(torch.randn_like(m).mul_(s.exp()).add_(m)))

    def loss(self, x, outputs):
        m, s = self.halves(outputs["q"])
        k = kl_divergence(m, s, m * 0, s * 0).sum(1).mean()
        r = F.mse_loss(outputs["rec"], x)
        return torch.add(r, k, alpha=self.beta), dict(rec_loss=r, kl_loss=k)

    def reconstruct(self, x):
        return nn.Sequential(self.encoder, self.halves, Pick(0), self.decoder)(x)


class Pick(nn.Module):
    def __init__(self, i):
        super().__init__()
        self.i = i

    def forward(self, items):
        return items[self.i]


def train_vae(model, data_loader, epochs, learning_rate, device):
    opt = torch.optim.Adam(model.parameters(), learning_rate)
    rec, kl = [], []
    for _ in range(epochs):
        for x, _ in data_loader:
            x = x.to(device)
            loss, parts = model.loss(x, model(x))
            opt.zero_grad(), loss.backward(), opt.step()
            rec.append(parts["rec_loss"].item()), kl.append(parts["kl_loss"].item())
    return {"rec_loss": rec, "kl_loss": kl}


TUNED_BETA = 2e-4
