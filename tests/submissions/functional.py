# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Auto-encoders and VAEs, written with functions

# %%
# %load_ext autoreload
# %autoreload 2
from __future__ import annotations

import math

import matplotlib.pyplot as plt
import torch
import torch.distributions as D
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler
from torchvision import datasets, transforms
from torchvision.utils import make_grid

# %%
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

nz = 64
batch_size = 64
learning_rate = 1e-3

# %%
train_set = datasets.MNIST("data", train=True, download=True, transform=transforms.ToTensor())
test_set = datasets.MNIST("data", train=False, download=True, transform=transforms.ToTensor())


# %%
def show(images: Tensor, title: str) -> None:
    plt.imshow(make_grid(images.detach().cpu()).permute(1, 2, 0))
    plt.title(title)
    plt.show()


# %% [markdown]
# Layers as parameters: every network below is a bag of tensors and a chain of functions.

# %%
SLOPE = 0.1


class Parameters(nn.Module):
    """Makes the tensors that the functional layers need."""

    def convolution(self, name: str, shape: tuple[int, int, int, int], outputs: int) -> None:
        weight = torch.empty(shape)
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        self.register_parameter(f"{name}_weight", nn.Parameter(weight))
        self.register_parameter(f"{name}_bias", nn.Parameter(torch.zeros(outputs)))

    def normalisation(self, name: str, channels: int) -> None:
        self.register_parameter(f"{name}_gamma", nn.Parameter(torch.ones(channels)))
        self.register_parameter(f"{name}_beta", nn.Parameter(torch.zeros(channels)))
        self.register_buffer(f"{name}_mean", torch.zeros(channels))
        self.register_buffer(f"{name}_var", torch.ones(channels))

    def matrix(self, name: str, inputs: int, outputs: int) -> None:
        bound = 1 / math.sqrt(inputs)
        self.register_parameter(
            f"{name}_weight", nn.Parameter(torch.empty(inputs, outputs).uniform_(-bound, bound))
        )
        self.register_parameter(f"{name}_bias", nn.Parameter(torch.zeros(outputs)))

    def weights(self, name: str) -> tuple[Tensor, Tensor]:
        return getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")

    def normalise(self, name: str, h: Tensor) -> Tensor:
        return F.batch_norm(
            h,
            getattr(self, f"{name}_mean"),
            getattr(self, f"{name}_var"),
            weight=getattr(self, f"{name}_gamma"),
            bias=getattr(self, f"{name}_beta"),
            training=self.training,
        )


# %%
class Encoder(Parameters):
    def __init__(self, nz: int):
        super().__init__()
        self.convolution("c1", (32, 1, 4, 4), 32)
        self.convolution("c2", (64, 32, 4, 4), 64)
        self.convolution("c3", (128, 64, 3, 3), 128)
        self.convolution("c4", (256, 128, 3, 3), 256)
        for name, channels in (("n2", 64), ("n3", 128), ("n4", 256)):
            self.normalisation(name, channels)
        self.matrix("code", 256, nz)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(F.conv2d(x, *self.weights("c1"), stride=2, padding=1), SLOPE)
        h = F.conv2d(h, *self.weights("c2"), stride=2, padding=1)
        h = F.leaky_relu(self.normalise("n2", h), SLOPE)
        h = F.conv2d(h, *self.weights("c3"), stride=3, padding=1)
        h = F.leaky_relu(self.normalise("n3", h), SLOPE)
        h = F.conv2d(h, *self.weights("c4"), stride=3, padding=0)
        h = F.leaky_relu(self.normalise("n4", h), SLOPE)
        weight, bias = self.weights("code")
        return torch.addmm(bias, h.flatten(1), weight)


# %%
class Decoder(Parameters):
    def __init__(self, nz: int):
        super().__init__()
        self.matrix("code", nz, 256)
        self.convolution("t1", (256, 128, 3, 3), 128)
        self.convolution("t2", (128, 64, 3, 3), 64)
        self.convolution("t3", (64, 32, 4, 4), 32)
        self.convolution("t4", (32, 1, 4, 4), 1)
        for name, channels in (("n0", 256), ("n1", 128), ("n2", 64), ("n3", 32)):
            self.normalisation(name, channels)

    def forward(self, z: Tensor) -> Tensor:
        weight, bias = self.weights("code")
        h = (z @ weight + bias)[:, :, None, None]
        h = F.leaky_relu(self.normalise("n0", h), SLOPE)
        h = F.conv_transpose2d(h, *self.weights("t1"), stride=2)
        h = F.leaky_relu(self.normalise("n1", h), SLOPE)
        h = F.conv_transpose2d(h, *self.weights("t2"), stride=3, padding=1)
        h = F.leaky_relu(self.normalise("n2", h), SLOPE)
        h = F.conv_transpose2d(h, *self.weights("t3"), stride=2, padding=1)
        h = F.leaky_relu(self.normalise("n3", h), SLOPE)
        h = F.conv_transpose2d(h, *self.weights("t4"), stride=2, padding=1)
        return torch.sigmoid(h)


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
def make_data_loader(dataset, batch_size: int, num_workers: int = 0) -> DataLoader:
    batches = BatchSampler(RandomSampler(dataset), batch_size, drop_last=False)
    return DataLoader(dataset, batch_sampler=batches, num_workers=num_workers)


# %%
train_loader = make_data_loader(train_set, batch_size)
ae_model = AutoEncoder(nz).to(device)


# %%
def forget_gradients(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = None


def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    optimizer = torch.optim.Adam(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.999), eps=1e-8
    )
    errors: list[float] = []
    for _ in range(epochs):
        for batch in data_loader:
            x = batch[0].to(device)
            error = (model(x) - x).pow(2).mean()
            forget_gradients(model)
            error.backward()
            optimizer.step()
            errors += [float(error)]
    return errors


# %%
ae_losses = train_autoencoder(ae_model, train_loader, 10, learning_rate, device)
plt.semilogy(ae_losses)
plt.show()


# %%
@torch.no_grad()
def sample_images(model: nn.Module, num_samples: int, nz: int) -> Tensor:
    zero = torch.zeros((), device=next(model.parameters()).device)
    latents = D.Normal(zero, zero + 1).sample((num_samples, nz))
    return model.decoder(latents)


# %%
show(sample_images(ae_model, 64, nz), "auto-encoder samples")

# %% [markdown] nbgrader={"grade": true, "grade_id": "ae-sampling-answer", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# Most samples are blurred strokes that belong to no digit. The auto-encoder was never asked
# to place its codes where a standard normal puts its mass, so the decoder meets codes that
# it has not been trained on.


# %%
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    log_ratio = log_sigma2 - log_sigma1
    spread = torch.exp(2 * log_sigma1) + (mu1 - mu2) ** 2
    return log_ratio + spread / (2 * torch.exp(2 * log_sigma2)) - 0.5


# %%
def posterior(q: Tensor) -> D.Independent:
    """The diagonal Gaussian that a row (mean, log standard deviation) of q stands for."""
    mean, log_sigma = q.tensor_split(2, dim=-1)
    return D.Independent(D.Normal(loc=mean, scale=log_sigma.exp()), 1)


def prior_of(gaussian: D.Independent) -> D.Independent:
    return D.Independent(
        D.Normal(torch.zeros_like(gaussian.mean), torch.ones_like(gaussian.stddev)), 1
    )


# %%
class VAE(nn.Module):
    def __init__(self, nz: int, beta: float = 1.0):
        super().__init__()
        self.encoder, self.decoder, self.beta = Encoder(nz * 2), Decoder(nz), beta

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        q = self.encoder(x)
        return dict(q=q, rec=self.decoder(posterior(q).rsample()))

    def loss(self, x: Tensor, outputs: dict[str, Tensor]):
        gaussian = posterior(outputs["q"])
        divergence = D.kl_divergence(gaussian, prior_of(gaussian))
        parts = {
            "rec_loss": torch.square(outputs["rec"] - x).mean(),
            "kl_loss": torch.mean(divergence),
        }
        return parts["rec_loss"] + self.beta * parts["kl_loss"], parts

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decoder(posterior(self.encoder(x)).mean)


# %%
def train_vae(model, data_loader, epochs, learning_rate, device):
    optimizer = torch.optim.Adam(params=model.parameters(), lr=learning_rate)
    steps: list[tuple[float, float]] = []
    epoch = 0
    while epoch < epochs:
        for x, _labels in data_loader:
            x = x.to(device)
            total, parts = model.loss(x, model(x))
            gradients = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
            for parameter, gradient in zip(model.parameters(), gradients):
                parameter.grad = gradient
            optimizer.step()
            steps.append((float(parts["rec_loss"]), float(parts["kl_loss"])))
        epoch += 1
    return {"rec_loss": [r for r, _ in steps], "kl_loss": [k for _, k in steps]}


# %%
vae_models = {}
for beta, epochs in ((0.0, 5), (10.0, 5)):
    vae_models[beta] = VAE(nz, beta).to(device)
    curves = train_vae(vae_models[beta], train_loader, epochs, learning_rate, device)
    plt.plot(curves["rec_loss"])
    plt.twinx().plot(curves["kl_loss"], "r")
    plt.show()
    show(sample_images(vae_models[beta], 64, nz), f"beta = {beta}")

# %% [markdown] nbgrader={"grade": true, "grade_id": "beta-zero-answer", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# The KL is free to grow, the noise shrinks, and what remains is an auto-encoder: good
# reconstructions, useless samples.

# %% [markdown] nbgrader={"grade": true, "grade_id": "beta-ten-answer", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# The posterior collapses onto the prior. The latent carries no information, so the decoder
# draws the average digit for every input.

# %%
TUNED_BETA: float = 1e-4

# %%
vae_tuned = VAE(nz, TUNED_BETA).to(device)
curves = train_vae(vae_tuned, train_loader, 20, learning_rate, device)
show(sample_images(vae_tuned, 64, nz), "tuned")

# %% [markdown] nbgrader={"grade": true, "grade_id": "well-tuned-answer", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# (1) The same digit in the same hand, slightly smoothed. (2) Digits of every class that
# differ from one another and are not copies of training images.


# %%
def interpolate(model, start_image, end_image, num_steps):
    pair = torch.stack([start_image, end_image]).to(next(model.parameters()).device)
    with torch.no_grad():
        codes = model.encoder(pair)
        if isinstance(model, VAE):
            codes = codes[:, : codes.shape[1] // 2]
        steps = torch.linspace(0, 1, num_steps, device=codes.device).unsqueeze(1)
        return model.decoder((1 - steps) * codes[0] + steps * codes[1])


# %%
for model in (ae_model, vae_tuned):
    show(interpolate(model, test_set[0][0], test_set[1][0], 8), type(model).__name__)

# %% [markdown] nbgrader={"grade": true, "grade_id": "interpolation-answer", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# The auto-encoder blends two pictures, the VAE passes from one digit to the next through
# shapes that are themselves likely. Its latent space is therefore the better start for
# whatever comes after: neighbours in it are alike.
