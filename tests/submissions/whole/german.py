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

gerät = device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


# %%
class Faltungsblock(nn.Module):
    """Faltung, Normierung, Aktivierung."""

    def __init__(self, faltung, normiert=True, aktivierung=None):
        super().__init__()
        self.faltung = faltung
        self.normierung = nn.BatchNorm2d(faltung.out_channels) if normiert else None
        self.aktivierung = aktivierung or nn.LeakyReLU(0.2)

    def forward(self, x):
        y = self.faltung(x)
        if self.normierung is not None:
            y = self.normierung(y)
        return self.aktivierung(y)


class Encoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.stufe_1 = Faltungsblock(nn.Conv2d(1, 32, 4, 2, 1), normiert=False)
        self.stufe_2 = Faltungsblock(nn.Conv2d(32, 64, 4, 2, 1))
        self.stufe_3 = Faltungsblock(nn.Conv2d(64, 128, 3, 2))
        self.stufe_4 = Faltungsblock(nn.Conv2d(128, 256, 3))
        self.ausgabe = nn.Linear(256, nz)

    def forward(self, bilder):
        merkmale = self.stufe_4(self.stufe_3(self.stufe_2(self.stufe_1(bilder))))
        größe = merkmale.size(1)
        return self.ausgabe(merkmale.view(-1, größe))


class Decoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.eingabe = nn.Linear(nz, 256)
        self.anfang = nn.Sequential(nn.BatchNorm2d(256), nn.LeakyReLU(0.2))
        self.stufe_1 = Faltungsblock(nn.ConvTranspose2d(256, 128, 3))
        self.stufe_2 = Faltungsblock(nn.ConvTranspose2d(128, 64, 3, 2))
        self.stufe_3 = Faltungsblock(nn.ConvTranspose2d(64, 32, 4, 2, 1))
        self.stufe_4 = Faltungsblock(nn.ConvTranspose2d(32, 1, 4, 2, 1), False, nn.Sigmoid())

    def forward(self, z):
        h = self.anfang(self.eingabe(z).view(-1, 256, 1, 1))
        for stufe in (self.stufe_1, self.stufe_2, self.stufe_3, self.stufe_4):
            h = stufe(h)
        return h


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
def schritte(modell, lader, durchgänge, rate, gerät, ziel):
    """Ein Adam-Schritt je Stapel; gibt zurück, was das Ziel meldet."""
    verfahren = torch.optim.Adam(modell.parameters(), lr=rate)
    modell.train()
    for durchgang in range(durchgänge):
        for bilder, _ in lader:
            bilder = bilder.to(gerät)
            verlust, meldung = ziel(bilder)
            verfahren.zero_grad()
            verlust.backward()
            verfahren.step()
            yield meldung


def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    def ziel(x):
        fehler = F.mse_loss(model(x), x)
        return fehler, fehler.item()

    return [*schritte(model, data_loader, epochs, learning_rate, device, ziel)]


def train_vae(model, data_loader, epochs, learning_rate, device):
    def ziel(x):
        gesamt, teile = model.loss(x, model(x))
        return gesamt, {name: teil.item() for name, teil in teile.items()}

    verlauf = {"rec_loss": [], "kl_loss": []}
    for meldung in schritte(model, data_loader, epochs, learning_rate, device, ziel):
        for name, werte in verlauf.items():
            werte.append(meldung[name])
    return verlauf


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
        self.β = self.beta = beta
        self.encoder = Encoder(2 * nz)
        self.decoder = Decoder(nz)

    def hälften(self, q):
        return q.index_select(1, torch.arange(q.shape[1] // 2)), q.index_select(1, torch.arange(q.shape[1] // 2, q.shape[1]))

    def forward(self, x):
        q = self.encoder(x)
        μ, log_σ = self.hälften(q)
        ε = torch.randn_like(μ)
        return {"q": q, "rec": self.decoder(μ + log_σ.exp() * ε)}

    def loss(self, x, outputs):
        μ, log_σ = self.hälften(outputs["q"])
        σ2 = (2 * log_σ).exp()
        kl_loss = ((μ.square() + σ2 - σ2.log() - 1) / 2).sum(1).mean()
        rec_loss = F.mse_loss(outputs["rec"], x)
        return rec_loss + self.beta * kl_loss, {"rec_loss": rec_loss, "kl_loss": kl_loss}

    def reconstruct(self, x):
        return self.decoder(self.hälften(self.encoder(x))[0])


β_gut = 1e-4
TUNED_BETA = β_gut
