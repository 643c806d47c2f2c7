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
def make_step(model, rate, objective):
    """The step function of a model: an image batch to a report."""
    optimizer = torch.optim.Adam(list(model.parameters()), lr=rate)

    def step(x):
        report = None

        def closure():
            nonlocal report
            optimizer.zero_grad()
            with torch.enable_grad():
                loss, report = objective(x)
            loss.backward()
            return loss

        optimizer.step(closure)
        return report

    return step


def make_trainer(make_objective, collect):
    def train(model, data_loader, epochs, learning_rate, device):
        model.train()
        step = make_step(model, learning_rate, make_objective(model))
        reports = []
        epoch = 0
        while epoch < epochs:
            batches = iter(data_loader)
            while (batch := next(batches, None)) is not None:
                reports.append(step(batch[0].to(device)))
            epoch += 1
        return collect(reports)

    return train


def ae_objective(model):
    def objective(x):
        loss = ((model(x) - x) ** 2).mean()
        return loss, loss.item()

    return objective


def vae_objective(model):
    def objective(x):
        loss, parts = model.loss(x, model(x))
        return loss, (parts["rec_loss"].item(), parts["kl_loss"].item())

    return objective


train_autoencoder = make_trainer(ae_objective, list)
train_vae = make_trainer(
    vae_objective, lambda rs: {"rec_loss": [r for r, _ in rs], "kl_loss": [k for _, k in rs]}
)


# %%
def make_network(*layers):
    """A class of networks from functions of nz."""

    class Network(nn.Module):
        def __init__(self, nz):
            super().__init__()
            self.layers = nn.ModuleList(layer(nz) for layer in layers)

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    return Network


fixed = lambda make, *args, **options: lambda nz: make(*args, **options)
leaky = fixed(nn.LeakyReLU, 0.25)

Encoder = make_network(
    fixed(nn.Conv2d, 1, 32, 4, stride=2, padding=1), leaky,
    fixed(nn.Conv2d, 32, 64, 4, stride=2, padding=1), fixed(nn.BatchNorm2d, 64), leaky,
    fixed(nn.Conv2d, 64, 128, 3, stride=2), fixed(nn.BatchNorm2d, 128), leaky,
    fixed(nn.Conv2d, 128, 256, 3), fixed(nn.BatchNorm2d, 256), leaky,
    fixed(nn.Flatten), lambda nz: nn.Linear(256, nz),
)
Decoder = make_network(
    lambda nz: nn.Linear(nz, 256), fixed(nn.Unflatten, 1, (256, 1, 1)),
    fixed(nn.BatchNorm2d, 256), leaky,
    fixed(nn.ConvTranspose2d, 256, 128, 3), fixed(nn.BatchNorm2d, 128), leaky,
    fixed(nn.ConvTranspose2d, 128, 64, 3, stride=2), fixed(nn.BatchNorm2d, 64), leaky,
    fixed(nn.ConvTranspose2d, 64, 32, 4, stride=2, padding=1), fixed(nn.BatchNorm2d, 32), leaky,
    fixed(nn.ConvTranspose2d, 32, 1, 4, stride=2, padding=1), fixed(nn.Sigmoid),
)


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
make_data_loader = lambda dataset, batch_size, num_workers=0: DataLoader(
    dataset, batch_size=batch_size, shuffle=True, num_workers=num_workers
)
sample_images = torch.no_grad()(
    lambda model, num_samples, nz: model.decoder(
        torch.randn(num_samples, nz, device=next(model.parameters()).device)
    )
)


# %%
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    log_ratio = log_sigma2 - log_sigma1
    spread = torch.exp(2 * log_sigma1) + (mu1 - mu2) ** 2
    return log_ratio + spread / (2 * torch.exp(2 * log_sigma2)) - 0.5


# %%
def kl_to_prior(q):
    mu, log_sigma = q.chunk(2, 1)
    return kl_divergence(mu, log_sigma, torch.zeros_like(mu), torch.zeros_like(mu)).sum(1)


def sample_of(q):
    mu, log_sigma = q.chunk(2, 1)
    return mu + torch.exp(log_sigma) * torch.randn_like(mu)


class VAE(nn.Module):
    def __init__(self, nz, beta=1.0):
        super().__init__()
        self.beta = beta
        self.encoder, self.decoder = Encoder(2 * nz), Decoder(nz)
        self.total = lambda r, k: r + self.beta * k

    forward = lambda self, x: (lambda q: {"q": q, "rec": self.decoder(sample_of(q))})(self.encoder(x))

    def loss(self, x, outputs):
        parts = {"rec_loss": F.mse_loss(outputs["rec"], x), "kl_loss": kl_to_prior(outputs["q"]).mean()}
        return self.total(*parts.values()), parts

    reconstruct = lambda self, x: self.decoder(self.encoder(x).chunk(2, 1)[0])


(TUNED_BETA,) = (beta for beta in (1e-4,))
