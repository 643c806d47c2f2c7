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

import math
import itertools


# %%
class Adam:
    """Kingma and Ba, written out."""

    def __init__(self, parameters, lr, β1=0.9, β2=0.999, ε=1e-8):
        self.parameters = [p for p in parameters if p.requires_grad]
        self.lr, self.β1, self.β2, self.ε, self.t = lr, β1, β2, ε, 0
        self.m = [torch.zeros_like(p) for p in self.parameters]
        self.v = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, gradients):
        self.t += 1
        for p, g, m, v in zip(self.parameters, gradients, self.m, self.v):
            m.lerp_(g, 1 - self.β1)
            v.mul_(self.β2).addcmul_(g, g, value=1 - self.β2)
            m_hat = m / (1 - self.β1**self.t)
            v_hat = v / (1 - self.β2**self.t)
            p -= self.lr * m_hat / (v_hat.sqrt() + self.ε)


def minimise(objective, model, loader, epochs, rate, device):
    """Yields what `objective` reports at every step."""
    adam = Adam(model.parameters(), rate)
    for x, _ in itertools.chain.from_iterable(itertools.repeat(loader, epochs)):
        value, report = objective(x.to(device))
        adam.step(torch.autograd.grad(value, adam.parameters))
        yield report


# %%
def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    def objective(x):
        value = torch.dist(model(x), x) ** 2 / x.numel()
        return value, value.item()

    return [*minimise(objective, model, data_loader, epochs, learning_rate, device)]


def train_vae(model, data_loader, epochs, learning_rate, device):
    def objective(x):
        value, parts = model.loss(x, model(x))
        return value, (parts["rec_loss"].item(), parts["kl_loss"].item())

    reports = list(minimise(objective, model, data_loader, epochs, learning_rate, device))
    rec, kl = map(list, zip(*reports)) if reports else ([], [])
    return {"rec_loss": rec, "kl_loss": kl}


# %%
class Conv(nn.Module):
    """A convolution that is its own: weights, bias, and F.conv2d."""

    def __init__(self, i, o, k, s=1, p=0, transposed=False):
        super().__init__()
        shape = (i, o, k, k) if transposed else (o, i, k, k)
        bound = 1 / math.sqrt(i * k * k)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(o))
        self.f = F.conv_transpose2d if transposed else F.conv2d
        self.s, self.p = s, p

    def forward(self, x):
        return self.f(x, self.weight, self.bias, self.s, self.p)


class Dense(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(i, o) / math.sqrt(i))
        self.bias = nn.Parameter(torch.zeros(o))

    def forward(self, x):
        return torch.addmm(self.bias, x, self.weight)


class Encoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.convs = nn.ModuleList([Conv(1, 32, 4, 2, 1), Conv(32, 64, 4, 2, 1), Conv(64, 128, 3, 2), Conv(128, 256, 3)])
        self.norms = nn.ModuleList(map(nn.BatchNorm2d, (64, 128, 256)))
        self.dense = Dense(256, nz)

    def forward(self, x):
        first, *rest = self.convs
        h = F.leaky_relu(first(x))
        for conv, norm in zip(rest, self.norms, strict=True):
            h = F.leaky_relu(norm(conv(h)))
        return self.dense(h.view(len(h), 256))


class Decoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.dense = Dense(nz, 256)
        sizes = [(256, 128, 3, 1, 0), (128, 64, 3, 2, 0), (64, 32, 4, 2, 1), (32, 1, 4, 2, 1)]
        self.norms = nn.ModuleList(nn.BatchNorm2d(i) for i, *_ in sizes)
        self.convs = nn.ModuleList(Conv(*size, transposed=True) for size in sizes)

    def forward(self, z):
        h = self.dense(z).view(len(z), 256, 1, 1)
        for norm, conv in zip(self.norms, self.convs):
            h = conv(F.leaky_relu(norm(h)))
        return 1 / (1 + (-h).exp())


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
def make_data_loader(dataset, batch_size, num_workers=0):
    generator = torch.Generator().manual_seed(torch.initial_seed() % 2**31)
    return DataLoader(dataset, batch_size, shuffle=True, num_workers=num_workers, generator=generator)


def sample_images(model, num_samples, nz):
    z = torch.empty((num_samples, nz), device=device)
    nn.init.normal_(z)
    return model.decoder(z).detach()


# %%
class VAE(nn.Module):
    def __init__(self, nz, beta=1.0):
        super().__init__()
        self.register_parameter("beta", nn.Parameter(torch.tensor(float(beta)), requires_grad=False))
        self.encoder = Encoder(2 * nz)
        self.decoder = Decoder(nz)

    def split(self, q):
        n = q.size(1) // 2
        return q.narrow(1, 0, n), q.narrow(1, n, n)

    def forward(self, x):
        q = self.encoder(x)
        μ, λ = self.split(q)
        ε = torch.zeros_like(μ).normal_()
        return {"q": q, "rec": self.decoder(torch.addcmul(μ, λ.exp(), ε))}

    def loss(self, x, outputs):
        μ, λ = self.split(outputs["q"])
        σ2 = torch.exp(2 * λ)
        kl = 0.5 * (σ2 + μ * μ - 1 - torch.log(σ2)).sum(-1).mean(0)
        rec = (x - outputs["rec"]).flatten().square().mean()
        return rec + self.beta * kl, {"rec_loss": rec, "kl_loss": kl}

    def reconstruct(self, x):
        μ, _ = self.split(self.encoder(x))
        return self.decoder(μ)


TUNED_BETA = math.exp(-9)
