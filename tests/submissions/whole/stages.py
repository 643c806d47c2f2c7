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
class Encoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        chans = [1, 32, 64, 128, 256]
        spec = [(4, 2, 1), (4, 2, 1), (3, 2, 0), (3, 1, 0)]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, *s) for i, o, s in zip(chans, chans[1:], spec))
        self.norms = nn.ModuleList([nn.Identity()] + [nn.BatchNorm2d(c) for c in chans[2:]])
        self.head = nn.Linear(256, nz)

    def extract(self, x):
        for conv, norm in zip(self.convs, self.norms):
            x = F.leaky_relu(norm(conv(x)), 0.1)
        return torch.flatten(x, 1)

    def forward(self, x):
        return self.head(self.extract(x))


# %%
class Decoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.project = nn.Sequential(nn.Linear(nz, 256), nn.Unflatten(1, (256, 1, 1)), nn.BatchNorm2d(256), nn.LeakyReLU(0.2))
        self.upsample = nn.Sequential(
            nn.ConvTranspose2d(256, 128, 3, 1, 0), nn.BatchNorm2d(128), nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(128, 64, 3, 2, 0), nn.BatchNorm2d(64), nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Sigmoid())

    def forward(self, z):
        return self.upsample(self.project(z))


# %%
def make_data_loader(dataset, batch_size, num_workers=0):
    return DataLoader(dataset, batch_size, shuffle=True, num_workers=num_workers)


# %%
class AutoEncoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.encoder, self.decoder = Encoder(nz), Decoder(nz)

    def forward(self, x):
        z = self.encoder.head(self.encoder.extract(x))
        return self.decoder.upsample(self.decoder.project(z))

    reconstruct = forward


# %%
def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    losses = []
    for _ in range(epochs):
        for x, _ in data_loader:
            x = x.to(device)
            loss = F.mse_loss(model(x), x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


# %%
@torch.no_grad()
def sample_images(model, num_samples, nz):
    device = next(model.parameters()).device
    decoder = model.decoder
    z = torch.normal(0.0, 1.0, (num_samples, nz), device=device)
    return decoder.upsample(decoder.project(z))


# %%
class VAE(nn.Module):
    def __init__(self, nz, beta=1.0):
        super().__init__()
        self.nz, self.beta = nz, beta
        self.encoder, self.decoder = Encoder(2 * nz), Decoder(nz)

    def posterior(self, x):
        h = self.encoder.extract(x)
        q = self.encoder.head(h)
        return q, q[:, :self.nz], q[:, self.nz:]

    def decode(self, z):
        return self.decoder.upsample(self.decoder.project(z))

    def forward(self, x):
        q, mu, log_sigma = self.posterior(x)
        z = torch.distributions.Normal(mu, log_sigma.exp()).rsample()
        return {'q': q, 'rec': self.decode(z)}

    def loss(self, x, outputs):
        mu, log_sigma = outputs['q'][:, :self.nz], outputs['q'][:, self.nz:]
        rec = ((outputs['rec'] - x) ** 2).mean()
        kl = (0.5 * (mu ** 2 + (2 * log_sigma).exp() - 1) - log_sigma).sum(1).mean()
        return rec + self.beta * kl, {'rec_loss': rec, 'kl_loss': kl}

    def reconstruct(self, x):
        _, mu, _ = self.posterior(x)
        return self.decode(mu)


# %%
def train_vae(model, data_loader, epochs, learning_rate, device):
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    history = {"rec_loss": [], "kl_loss": []}
    for _ in range(epochs):
        for x, _ in data_loader:
            x = x.to(device)
            total, terms = model.loss(x, model(x))
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            for name, values in history.items():
                values.append(terms[name].item())
    return history


TUNED_BETA = 1e-4
