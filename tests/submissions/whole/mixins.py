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
class EncodesMixin:
    """Whatever has an encoder and a decoder can reconstruct."""

    def encode(self, x):
        return self.encoder(x)

    def decode(self, z):
        return self.decoder(z)

    def reconstruct(self, x):
        return self.decode(self.code_of(x))

    def code_of(self, x):
        return self.encode(x)


class GaussianMixin(EncodesMixin):
    def code_of(self, x):
        return self.split(self.encode(x))[0]

    @staticmethod
    def split(q):
        return torch.hsplit(q, 2)

    def reparameterize(self, q):
        mu, log_sigma = self.split(q)
        return mu + log_sigma.exp() * torch.randn_like(mu)


class CountsMixin:
    @property
    def size(self):
        return sum(p.numel() for p in self.parameters())

    def __repr__(self):
        return f"{type(self).__name__} with {self.size} weights"


def block(i, o, k, transposed=False, **options):
    conv = (nn.ConvTranspose2d if transposed else nn.Conv2d)(i, o, k, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(o), nn.LeakyReLU(0.2))


# %%
class Encoder(CountsMixin, nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.block1 = nn.Sequential(nn.Conv2d(1, 32, 4, stride=2, padding=1), nn.LeakyReLU(0.2))
        self.block2 = block(32, 64, 4, stride=2, padding=1)
        self.block3 = block(64, 128, 3, stride=2)
        self.block4 = block(128, 256, 3)
        self.fc = nn.Linear(256, nz)

    def forward(self, x):
        for i in range(1, 5):
            x = getattr(self, f"block{i}")(x)
        return self.fc(x[:, :, 0, 0])


class Decoder(CountsMixin, nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.fc = nn.Linear(nz, 256)
        self.block0 = nn.Sequential(nn.BatchNorm1d(256), nn.LeakyReLU(0.2), nn.Unflatten(1, (256, 1, 1)))
        self.block1 = block(256, 128, 3, True)
        self.block2 = block(128, 64, 3, True, stride=2)
        self.block3 = block(64, 32, 4, True, stride=2, padding=1)
        self.block4 = nn.Sequential(nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Sigmoid())

    def forward(self, z):
        h = self.fc(z)
        for i in range(5):
            h = self._modules[f"block{i}"](h)
        return h


# %%
class AutoEncoder(EncodesMixin, nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.encoder = Encoder(nz)
        self.decoder = Decoder(nz)

    def forward(self, x):
        return self.decode(self.encode(x))


# %%
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    log_ratio = log_sigma2 - log_sigma1
    spread = torch.exp(2 * log_sigma1) + (mu1 - mu2) ** 2
    return log_ratio + spread / (2 * torch.exp(2 * log_sigma2)) - 0.5


# %%
class VAE(GaussianMixin, CountsMixin, nn.Module):
    def __init__(self, nz, beta=1.0):
        super().__init__()
        self.encoder = Encoder(2 * nz)
        self.decoder = Decoder(nz)
        self._beta = beta

    @property
    def beta(self):
        return self._beta

    @beta.setter
    def beta(self, value):
        if value < 0:
            raise ValueError("beta should not be negative")
        self._beta = value

    def forward(self, x):
        q = self.encode(x)
        return {"q": q, "rec": self.decode(self.reparameterize(q))}

    def loss(self, x, outputs):
        mu, log_sigma = self.split(outputs["q"])
        zero = mu.new_zeros(())
        kl_loss = kl_divergence(mu, log_sigma, zero, zero).sum(-1).mean()
        rec_loss = F.mse_loss(outputs["rec"], x)
        return rec_loss + self.beta * kl_loss, {"rec_loss": rec_loss, "kl_loss": kl_loss}


# %%
def make_data_loader(dataset, batch_size, num_workers=0):
    return DataLoader(dataset, shuffle=True, batch_size=batch_size, num_workers=num_workers)


# %%
class TrainsMixin:
    def __init__(self, model, rate, device):
        self.model, self.device = model.to(device), device
        self.optimizer = torch.optim.Adam(model.parameters(), lr=rate, foreach=False)

    def fit(self, loader, epochs):
        self.model.train()
        return [self.step(x.to(self.device)) for _ in range(epochs) for x, _ in loader]

    def step(self, x):
        loss, report = self.objective(x)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return report


class AutoEncoderTrainer(TrainsMixin):
    def objective(self, x):
        loss = F.mse_loss(self.model(x), x)
        return loss, loss.item()


class VAETrainer(TrainsMixin):
    def objective(self, x):
        loss, parts = self.model.loss(x, self.model(x))
        return loss, {k: v.item() for k, v in parts.items()}


def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    return AutoEncoderTrainer(model, learning_rate, device).fit(data_loader, epochs)


def train_vae(model, data_loader, epochs, learning_rate, device):
    reports = VAETrainer(model, learning_rate, device).fit(data_loader, epochs)
    return {name: [r[name] for r in reports] for name in ("rec_loss", "kl_loss")}


# %%
def sample_images(model, num_samples, nz):
    training = model.training
    try:
        with torch.no_grad():
            z = torch.randn(num_samples, nz, device=next(model.parameters()).device)
            return model.eval().decoder(z)
    finally:
        model.train(training)


TUNED_BETA = 1e-4
