# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %%
from functools import partial, reduce
import torch as T
from torch import nn
import torch.distributions as D
from torch.nn import functional as F
from torch.utils.data import DataLoader, RandomSampler

ℝ = T.Tensor
device = T.device("cuda") if T.cuda.is_available() else T.device("cpu")

# %%
leaky = partial(F.leaky_relu, negative_slope=0.1)


def compose(*functions):
    return lambda x: reduce(lambda value, f: f(value), functions, x)


class Encoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.c = nn.ModuleList(
            [
                nn.Conv2d(1, 32, 4, 2, 1),
                nn.Conv2d(32, 64, 4, 2, 1),
                nn.Conv2d(64, 128, 3, 3, 1),
                nn.Conv2d(128, 256, 3, 1, 0),
            ]
        )
        self.n = nn.ModuleList([nn.Identity()] + [nn.BatchNorm2d(c.out_channels) for c in self.c[1:]])
        self.φ = nn.Linear(256, nz)

    def forward(self, x: ℝ) -> ℝ:
        layers = [compose(c, n, leaky) for c, n in zip(self.c, self.n)]
        return self.φ(compose(*layers)(x).squeeze(-1).squeeze(-1))


class Decoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.ψ = nn.Linear(nz, 256)
        self.c = nn.ModuleList(
            [
                nn.ConvTranspose2d(256, 128, 3, 1, 0),
                nn.ConvTranspose2d(128, 64, 3, 2, 0),
                nn.ConvTranspose2d(64, 32, 4, 2, 1),
                nn.ConvTranspose2d(32, 1, 4, 2, 1),
            ]
        )
        self.n = nn.ModuleList([nn.BatchNorm2d(c.in_channels) for c in self.c])

    def forward(self, z: ℝ) -> ℝ:
        h = self.ψ(z)[..., None, None]
        for n, c in zip(self.n, self.c):
            h = c(leaky(n(h)))
        return h.sigmoid()


class AutoEncoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.encoder, self.decoder = Encoder(nz), Decoder(nz)

    def forward(self, x):
        return self.decoder(self.encoder(x))

    reconstruct = forward


# %%
def make_data_loader(dataset, batch_size, num_workers=0):
    return DataLoader(dataset, batch_size, sampler=RandomSampler(dataset), num_workers=num_workers)


# %%
def descend(params, lr):
    """A generator that takes losses and steps down them."""
    opt = T.optim.Adam(params, lr=lr)
    ℓ = yield
    while True:
        opt.zero_grad()
        ℓ.backward()
        opt.step()
        ℓ = yield ℓ.item()


def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    down = descend(model.parameters(), learning_rate)
    next(down)
    return [
        down.send(F.mse_loss(model(x.to(device)), x.to(device)))
        for _ in range(epochs)
        for x, _ in data_loader
    ]


# %%
@T.no_grad()
def sample_images(model, num_samples, nz):
    θ = next(model.parameters())
    return model.decoder(D.Normal(θ.new_zeros(nz), θ.new_ones(nz)).sample((num_samples,)))


# %%
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    log_ratio = log_sigma2 - log_sigma1
    spread = T.exp(2 * log_sigma1) + (mu1 - mu2) ** 2
    return log_ratio + spread / (2 * T.exp(2 * log_sigma2)) - 0.5


class VAE(nn.Module):
    prior = staticmethod(lambda μ: D.Independent(D.Normal(T.zeros_like(μ), T.ones_like(μ)), 1))

    def __init__(self, nz, beta=1.0):
        super().__init__()
        self.encoder, self.decoder, self.beta = Encoder(2 * nz), Decoder(nz), beta

    @staticmethod
    def posterior(q):
        μ, log_σ = q.tensor_split(2, dim=-1)
        return D.Independent(D.Normal(μ, log_σ.exp()), 1)

    def forward(self, x):
        q = self.encoder(x)
        return {"q": q, "rec": self.decoder(self.posterior(q).rsample())}

    def loss(self, x, outputs):
        q = self.posterior(outputs["q"])
        k = D.kl_divergence(q, self.prior(q.mean)).mean()
        r = (outputs["rec"] - x).square().mean()
        return r + self.beta * k, {"rec_loss": r, "kl_loss": k}

    def reconstruct(self, x):
        return self.decoder(self.posterior(self.encoder(x)).mean)


# %%
def train_vae(model, data_loader, epochs, learning_rate, device):
    down = descend(model.parameters(), learning_rate)
    next(down)
    trace = []
    for _ in range(epochs):
        for x, _ in data_loader:
            x = x.to(device)
            ℓ, parts = model.loss(x, model(x))
            down.send(ℓ)
            trace.append(T.stack([parts["rec_loss"], parts["kl_loss"]]).detach())
    rec, kl = T.stack(trace).cpu().T.tolist()
    return {"rec_loss": rec, "kl_loss": kl}


TUNED_BETA = 1.2e-4
