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

import time
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import clear_output, display
from tqdm.auto import tqdm, trange

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
class Meter:
    """A running mean."""

    def __init__(self, momentum=0.98):
        self.momentum, self.value = momentum, None

    def __iadd__(self, value):
        self.value = value if self.value is None else self.momentum * self.value + (1 - self.momentum) * value
        return self

    def __format__(self, spec):
        return format(self.value or 0.0, spec)


def save(model, optimizer, folder, epoch):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}, folder / "last.pt")


def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    losses, meter, start = [], Meter(), time.time()
    try:
        for epoch in trange(epochs, desc="epochs", unit="epoch"):
            with tqdm(total=len(data_loader), leave=False) as bar:
                for x, _ in data_loader:
                    model.train()
                    x = x.to(device)
                    rec = model(x)
                    loss = F.mse_loss(rec, x)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    losses.append(loss.item())
                    meter += losses[-1]
                    bar.set_postfix(loss=f"{meter:.4f}")
                    bar.update()
            model.eval()
            with torch.no_grad():
                shown = torch.cat([x[:4], model(x[:4])])
            clear_output(wait=True)
            figure, (left, right) = plt.subplots(1, 2)
            left.plot(losses)
            right.imshow(shown.cpu().flatten(0, 2), aspect="auto")
            plt.show()
            save(model, optimizer, "checkpoints/ae", epoch)
            display(f"{time.time() - start:.1f} s")
    except KeyboardInterrupt:
        print("stopped")
    finally:
        plt.close("all")
    model.train()
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
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        q = self.encoder(x)
        mu, log_sigma = q.chunk(2, 1)
        return {"q": q, "rec": self.decoder(mu + log_sigma.exp() * torch.randn_like(mu))}

    def loss(self, x, outputs):
        mu, log_sigma = outputs["q"].chunk(2, 1)
        zeros = torch.zeros_like(mu)
        kl_loss = kl_divergence(mu, log_sigma, zeros, zeros).sum(1).mean()
        rec_loss = F.mse_loss(outputs["rec"], x)
        if not torch.isfinite(kl_loss):
            print("the KL is not finite!", kl_loss.item())
        return rec_loss + self.beta * kl_loss, {"rec_loss": rec_loss, "kl_loss": kl_loss}

    def reconstruct(self, x):
        return self.decoder(self.encoder(x).chunk(2, 1)[0])


def train_vae(model, data_loader, epochs, learning_rate, device):
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    history = {"rec_loss": [], "kl_loss": [], "seconds": []}
    for epoch in range(epochs):
        start = time.perf_counter()
        for x, _ in (bar := tqdm(data_loader)):
            x = x.to(device)
            total, parts = model.loss(x, model(x))
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            history["rec_loss"].append(parts["rec_loss"].item())
            history["kl_loss"].append(parts["kl_loss"].item())
            bar.set_description(f"{epoch}: {total.item():.3f}")
        history["seconds"].append(time.perf_counter() - start)
        save(model, optimizer, f"checkpoints/vae-{getattr(model, 'beta', 0):g}", epoch)
    return history


TUNED_BETA = 1e-4
