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

try:
    from tqdm.auto import tqdm
except ImportError:

    class tqdm:
        def __init__(self, iterable, **options):
            self.iterable = iterable

        def __iter__(self):
            for item in self.iterable:
                yield item


device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


# %%
class Encoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 4, 2, 1)
        self.conv2 = nn.Conv2d(32, 64, 4, 2, 1)
        self.conv3 = nn.Conv2d(64, 128, 3, 2)
        self.conv4 = nn.Conv2d(128, 256, 3)
        self.norm2, self.norm3, self.norm4 = map(nn.BatchNorm2d, (64, 128, 256))
        self.out = nn.Linear(256, nz)

    def forward(self, x):
        h = F.leaky_relu(self.conv1(x), 0.2)
        h = F.leaky_relu(self.norm2(self.conv2(h)), 0.2)
        h = F.leaky_relu(self.norm3(self.conv3(h)), 0.2)
        h = F.leaky_relu(self.norm4(self.conv4(h)), 0.2)
        return self.out(h.flatten(1))


class Decoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.inp = nn.Linear(nz, 256)
        self.norm0, self.norm1, self.norm2, self.norm3 = map(nn.BatchNorm2d, (256, 128, 64, 32))
        self.conv1 = nn.ConvTranspose2d(256, 128, 3)
        self.conv2 = nn.ConvTranspose2d(128, 64, 3, 2)
        self.conv3 = nn.ConvTranspose2d(64, 32, 4, 2, 1)
        self.conv4 = nn.ConvTranspose2d(32, 1, 4, 2, 1)

    def forward(self, z):
        h = F.leaky_relu(self.norm0(self.inp(z)[:, :, None, None]), 0.2)
        h = F.leaky_relu(self.norm1(self.conv1(h)), 0.2)
        h = F.leaky_relu(self.norm2(self.conv2(h)), 0.2)
        h = F.leaky_relu(self.norm3(self.conv3(h)), 0.2)
        return torch.sigmoid(self.conv4(h))


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
        for x, _ in tqdm(data_loader):
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
        for x, _ in tqdm(data_loader):
            x = x.to(device)
            adam.zero_grad()
            total, parts = model.loss(x, model(x))
            total.backward()
            adam.step()
            for name in history:
                history[name].append(parts[name].item())
    return history


# %%
QUICK = True
if QUICK:
    TUNED_BETA = 1e-4
else:
    scores = {}
    for candidate in (1e-5, 1e-4, 1e-3):
        scores[candidate] = float(input(f"how good is {candidate}? "))
    TUNED_BETA = max(scores, key=scores.get)
