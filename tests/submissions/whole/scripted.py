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

from typing import Dict, List, Tuple


# %%
@torch.jit.script
def reparameterize(mu: torch.Tensor, log_sigma: torch.Tensor) -> torch.Tensor:
    return mu + torch.exp(log_sigma) * torch.randn_like(mu)


@torch.jit.script
def gaussian_kl(mu: torch.Tensor, log_sigma: torch.Tensor) -> torch.Tensor:
    return (0.5 * (mu.pow(2) + torch.exp(2.0 * log_sigma) - 1.0) - log_sigma).sum(1).mean()


# %%
def conv_block(i: int, o: int, k: int, s: int, p: int) -> List[nn.Module]:
    return [nn.Conv2d(i, o, k, s, p), nn.BatchNorm2d(o), nn.LeakyReLU(0.1)]


def up_block(i: int, o: int, k: int, s: int, p: int) -> List[nn.Module]:
    return [nn.BatchNorm2d(i), nn.LeakyReLU(0.1), nn.ConvTranspose2d(i, o, k, s, p)]


class Encoder(nn.Module):
    def __init__(self, nz: int):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 4, 2, 1),
            nn.LeakyReLU(0.1),
            *conv_block(32, 64, 4, 2, 1),
            *conv_block(64, 128, 3, 2, 0),
            *conv_block(128, 256, 3, 1, 0),
        )
        self.code = nn.Conv2d(256, nz, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.code(self.features(x)).flatten(1)


class Decoder(nn.Module):
    def __init__(self, nz: int):
        super().__init__()
        self.start = nn.ConvTranspose2d(nz, 256, 1)
        self.body = nn.Sequential(
            *up_block(256, 128, 3, 2, 0),
            *up_block(128, 64, 3, 2, 0),
            *up_block(64, 32, 4, 2, 1),
            *up_block(32, 1, 4, 2, 1),
        )

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.body(self.start(z.unsqueeze(2).unsqueeze(3))))


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
def make_data_loader(dataset, batch_size: int, num_workers: int = 0) -> DataLoader:
    sampler = torch.utils.data.RandomSampler(dataset, replacement=False)
    batches = torch.utils.data.BatchSampler(sampler, batch_size=batch_size, drop_last=False)
    return DataLoader(dataset, batch_sampler=batches, num_workers=num_workers)


def train_autoencoder(model, data_loader, epochs: int, learning_rate: float, device) -> List[float]:
    opt = torch.optim.Adam(model.parameters(), lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=False)
    scheduler = torch.optim.lr_scheduler.LambdaLR(opt, lambda epoch: 1.0)
    scaler = torch.amp.GradScaler(enabled=False)
    losses: List[float] = []
    for _ in range(epochs):
        for batch, _ in data_loader:
            batch = batch.to(device)
            opt.zero_grad()
            with torch.autocast("cpu", enabled=False):
                loss = F.mse_loss(model(batch), batch)
            scaler.scale(loss).backward()
            scaler.unscale_(opt)
            nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
            scaler.step(opt)
            scaler.update()
            losses.append(float(loss))
        scheduler.step()
    return losses


@torch.inference_mode()
def sample_images(model, num_samples: int, nz: int) -> torch.Tensor:
    return model.decoder(torch.randn([num_samples, nz]).to(next(model.parameters()).device))


# %%
class VAE(nn.Module):
    def __init__(self, nz: int, beta: float = 1.0):
        super().__init__()
        self.nz = nz
        self.beta = beta
        self.encoder = Encoder(2 * nz)
        self.decoder = Decoder(nz)

    def forward(self, x: torch.Tensor) -> Dict[str, torch.Tensor]:
        q = self.encoder(x)
        return {"q": q, "rec": self.decoder(reparameterize(q[:, : self.nz], q[:, self.nz :]))}

    def loss(self, x: torch.Tensor, outputs: Dict[str, torch.Tensor]) -> Tuple[torch.Tensor, Dict]:
        kl = gaussian_kl(outputs["q"][:, : self.nz], outputs["q"][:, self.nz :])
        rec = F.mse_loss(outputs["rec"], x)
        return rec + self.beta * kl, {"rec_loss": rec.detach(), "kl_loss": kl.detach(), "beta": self.beta}

    @torch.no_grad()
    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x)[:, : self.nz])


def train_vae(model, data_loader, epochs: int, learning_rate: float, device) -> Dict[str, List[float]]:
    opt = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    history: Dict[str, List[float]] = {"rec_loss": [], "kl_loss": [], "total": []}
    for _ in range(epochs):
        for batch, _ in data_loader:
            batch = batch.to(device)
            opt.zero_grad()
            total, parts = model.loss(batch, model(batch))
            total.backward()
            opt.step()
            history["rec_loss"].append(parts["rec_loss"].item())
            history["kl_loss"].append(parts["kl_loss"].item())
            history["total"].append(total.item())
    return history


TUNED_BETA = 8e-5
