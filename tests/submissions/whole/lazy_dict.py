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

import collections


# %%
class Encoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.net = nn.Sequential(
            collections.OrderedDict(
                conv1=nn.LazyConv2d(32, 4, 2, 1),
                act1=nn.LeakyReLU(),
                conv2=nn.LazyConv2d(64, 4, 2, 1),
                norm2=nn.LazyBatchNorm2d(),
                act2=nn.LeakyReLU(),
                conv3=nn.LazyConv2d(128, 3, 2),
                norm3=nn.LazyBatchNorm2d(),
                act3=nn.LeakyReLU(),
                conv4=nn.LazyConv2d(256, 3),
                norm4=nn.LazyBatchNorm2d(),
                act4=nn.LeakyReLU(),
                flat=nn.Flatten(),
                code=nn.LazyLinear(nz),
            )
        )
        self.net(torch.zeros(2, 1, 28, 28))  # gives the lazy layers their sizes

    def forward(self, x):
        return self.net(x)


class Decoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.net = nn.ModuleDict(
            {
                "code": nn.Linear(nz, 256),
                "norm0": nn.LazyBatchNorm2d(),
                "conv1": nn.LazyConvTranspose2d(128, 3),
                "norm1": nn.LazyBatchNorm2d(),
                "conv2": nn.LazyConvTranspose2d(64, 3, 2),
                "norm2": nn.LazyBatchNorm2d(),
                "conv3": nn.LazyConvTranspose2d(32, 4, 2, 1),
                "norm3": nn.LazyBatchNorm2d(),
                "conv4": nn.LazyConvTranspose2d(1, 4, 2, 1),
            }
        )
        with torch.no_grad():
            self(torch.zeros(2, nz))

    def forward(self, z):
        h = self.net["code"](z).view(z.size(0), 256, 1, 1)
        for i in range(4):
            h = F.leaky_relu(self.net[f"norm{i}"](h), 0.01)
            h = self.net[f"conv{i + 1}"](h)
        return F.sigmoid(h)


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
    kwargs = collections.ChainMap({"shuffle": True}, {"batch_size": batch_size, "num_workers": num_workers})
    return DataLoader(dataset, **kwargs)


# %%
Step = collections.namedtuple("Step", "epoch batch loss")


def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    history = collections.deque()
    optimizer = torch.optim.Adam(
        [
            {"params": model.encoder.parameters(), "lr": learning_rate},
            {"params": model.decoder.parameters(), "lr": learning_rate},
        ]
    )
    for epoch, batch, (x, _) in (
        (epoch, batch, data) for epoch in range(epochs) for batch, data in enumerate(data_loader)
    ):
        x = x.to(device)
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = None
        loss = F.mse_loss(model(x), x, reduction="sum").div(x.numel())
        loss.backward()
        optimizer.step()
        history.append(Step(epoch, batch, loss.item()))
    return [step.loss for step in history]


def sample_images(model, num_samples, nz):
    with torch.random.fork_rng(enabled=False), torch.set_grad_enabled(False):
        z = torch.randn(num_samples, nz)
        return model.decoder(z.to(device=next(model.decoder.parameters()).device, dtype=torch.float))


# %%
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    log_ratio = log_sigma2 - log_sigma1
    spread = torch.exp(2 * log_sigma1) + (mu1 - mu2) ** 2
    return log_ratio + spread / (2 * torch.exp(2 * log_sigma2)) - 0.5


# %%
class VAE(AutoEncoder):
    """An auto-encoder whose code is drawn."""

    def __init__(self, nz, beta=1.0, **unused):
        nn.Module.__init__(self)
        self.beta = beta
        for name, width in {"encoder": 2 * nz, "decoder": nz}.items():
            self.add_module(name, {"encoder": Encoder, "decoder": Decoder}[name](width))

    def forward(self, x, *, noise=torch.randn_like):
        outputs = collections.OrderedDict(q=self.encoder(x))
        mu, log_sigma = outputs["q"].chunk(2, dim=1)
        outputs["rec"] = self.decoder(mu + log_sigma.exp() * noise(mu))
        return outputs

    def loss(self, x, outputs):
        mu, log_sigma = outputs["q"].chunk(2, dim=1)
        prior = {"mu2": torch.zeros_like(mu), "log_sigma2": torch.zeros_like(mu)}
        parts = collections.OrderedDict()
        parts["rec_loss"] = F.mse_loss(input=outputs["rec"], target=x)
        parts["kl_loss"] = kl_divergence(mu, log_sigma, **prior).sum(dim=-1).mean()
        return parts["rec_loss"] + self.beta * parts["kl_loss"], parts

    def reconstruct(self, x):
        return self.decoder(self.encoder(x).chunk(2, dim=1)[0])


def train_vae(model, data_loader, epochs, learning_rate, device):
    optimizer = torch.optim.Adam(dict(model.named_parameters()).values(), lr=learning_rate)
    history = collections.defaultdict(list)
    for epoch in range(epochs):
        for x, *_ in data_loader:
            x = x.to(device)
            optimizer.zero_grad()
            loss, parts = model.loss(x, model(x))
            loss.backward()
            optimizer.step()
            for name, part in parts.items():
                history[name].append(part.item())
    return dict(history)


TUNED_BETA = {"small": 1e-6, "tuned": 1e-4, "large": 10.0}["tuned"]
