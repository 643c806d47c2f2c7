# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %%
# !nvidia-smi
# %matplotlib inline
# %config InlineBackend.figure_format = "retina"
import collections, contextlib, functools

import matplotlib.pyplot as plt
import torch, torch.nn as nn, torch.nn.functional as F, torch.utils.data as data
import torchvision

try:
    from tqdm.auto import tqdm
except ImportError:

    def tqdm(iterable, **options):
        return iterable


# %%
if torch.cuda.is_available():
    device = "cuda:0"
else:
    device = "cpu"

nz, batch_size = 64, 64
learning_rate = 1e-3
π, TUNED_BETA = 3.14159, 10**-4

# %% [markdown]
# ## Training comes first: it is the same loop for both models

# %%
def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    criterion = nn.MSELoss(reduction="mean")

    def aim(x):
        error = criterion(input=model.forward(x), target=x)
        return error, error.detach().cpu().numpy().item()

    return list(steps(model, data_loader, epochs, learning_rate, device, aim))


def train_vae(model, data_loader, epochs, learning_rate, device):
    def aim(x):
        total, parts = model.loss(x=x, outputs=model(x))
        return total, (parts["rec_loss"], parts["kl_loss"])

    history = collections.defaultdict(list, rec_loss=[], kl_loss=[])
    for rec, kl in steps(model, data_loader, epochs, learning_rate, device, aim):
        history["rec_loss"].append(float(rec))
        history["kl_loss"].append(float(kl))
    return history


# %%
def steps(model, batches, epochs, rate, where, aim):
    """Takes one Adam step a batch towards `aim` and yields what it reports of each."""
    adam = torch.optim.Adam([{"params": list(model.parameters())}], rate)
    adam.zero_grad(set_to_none=False)
    for epoch in range(1, epochs + 1):
        model.train(True)
        bar = tqdm(batches, desc=f"époque {epoch} / {epochs}", leave=False)
        for x, *_ in bar:
            goal, report = aim(x.to(device=where, non_blocking=True))
            goal.backward()
            adam.step()
            adam.zero_grad(set_to_none=False)
            yield report


# %%
make_data_loader = lambda dataset, batch_size, num_workers=0: data.DataLoader(
    dataset,
    batch_size,
    True,
    num_workers=num_workers,
    pin_memory=torch.cuda.is_available(),
    persistent_workers=num_workers > 0,
)


# %% [markdown]
# ## Blocks

# %%
class Étage(nn.Module):
    """One stage: a layer, a normalisation where one is due, and a leaky ReLU in place."""

    def __init__(self, layer, norm=None, slope=0.3):
        super().__init__()
        self.layer, self.norm, self.slope = layer, norm or nn.Identity(), slope

    def forward(self, h):
        return F.leaky_relu_(self.norm(self.layer(h)), negative_slope=self.slope)


def stages(layer, shapes, norm=nn.BatchNorm2d):
    for inputs, outputs, options in shapes:
        normal = norm(num_features=outputs) if norm is not None else None
        yield Étage(layer(in_channels=inputs, out_channels=outputs, **options), normal)


# %%
class Encoder(nn.Module):
    shapes = [
        (32, 64, dict(kernel_size=4, stride=2, padding=1)),
        (64, 128, dict(kernel_size=(3, 3), stride=(3, 3), padding=(1, 1))),
        (128, 256, dict(kernel_size=3, stride=2)),
    ]

    def __init__(self, nz):
        super(Encoder, self).__init__()
        first = Étage(nn.Conv2d(1, 32, (4, 4), 2, 1))
        self.stages = nn.ModuleList([first, *stages(nn.Conv2d, self.shapes)])
        self.code = nn.Linear(out_features=nz, in_features=256)

    def forward(self, x):
        h = functools.reduce(lambda h, stage: stage(h), self.stages, x)
        return self.code(h[..., 0, 0])


class Decoder(nn.Sequential):
    def __init__(self, nz):
        wide = [
            (256, 128, dict(kernel_size=3, stride=3)),
            (128, 64, dict(kernel_size=3, stride=3, padding=2, output_padding=2)),
            (64, 32, dict(kernel_size=4, stride=2, padding=1)),
        ]
        last = nn.ConvTranspose2d(32, 1, 4, 2, 1, 0, 1, True)
        super().__init__(
            collections.OrderedDict(
                start=Étage(nn.Linear(nz, 256), nn.BatchNorm1d(256)),
                shape=nn.Unflatten(dim=1, unflattened_size=(256, 1, 1)),
                middle=nn.Sequential(*stages(nn.ConvTranspose2d, wide)),
                last=last,
                pixels=nn.Sigmoid(),
            )
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
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    log_ratio = log_sigma2 - log_sigma1
    spread = torch.exp(2 * log_sigma1) + (mu1 - mu2) ** 2
    return log_ratio + spread / (2 * torch.exp(2 * log_sigma2)) - 0.5


# %%
class VAE(AutoEncoder):
    """An auto-encoder whose codes are Gaussians; q = (μ, log σ)."""

    def __init__(self, nz, beta=1.0):
        super().__init__(nz=nz)
        self.encoder = Encoder(nz=2 * nz)
        self.beta = float(beta)

    @staticmethod
    def halves(q):
        middle = q.shape[1] // 2
        return q[:, :middle], q[:, middle:]

    def forward(self, x):
        q = self.encoder.forward(x.to(device))
        μ, log_σ = self.halves(q)
        ε = μ.new_empty(μ.size()).normal_()
        z = torch.addcmul(μ, ε, log_σ.exp())
        return {"rec": self.decoder.forward(z), "q": q}

    def loss(self, x, outputs):
        μ, log_σ = self.halves(outputs["q"])
        kl_of_each_image = 0.5 * torch.einsum("bn->b", μ**2 + (2 * log_σ).exp() - 2 * log_σ - 1)
        rec, kl = ((x - outputs["rec"]) ** 2).mean(), kl_of_each_image.mean(dim=0)
        total = torch.add(rec, kl, alpha=self.beta)
        parts = {"total": total, "rec_loss": rec, "kl_loss": kl}
        return total, {name: value.detach() for name, value in parts.items()}

    def reconstruct(self, x):
        return self.decoder.forward(self.halves(self.encoder.forward(x))[0])


# %%
@contextlib.contextmanager
def at_rest(model):
    """Evaluates without gradients and leaves the model in the mode it was in."""
    training = model.training
    try:
        with torch.no_grad():
            yield model.eval()
    finally:
        model.train(mode=training)


def sample_images(model, num_samples, nz):
    where = {parameter.device for parameter in model.parameters()}.pop()
    with at_rest(model):
        z = torch.normal(mean=0.0, std=1.0, size=(num_samples, nz), device=where)
        return model.decoder.forward(z)


# %% [markdown] nbgrader={"grade": true, "grade_id": "ae-sampling-answer", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# Comme prévu: des traits épars, presque jamais un chiffre. N(0, I) is not the distribution of
# the codes, and nothing made it so.

# %% [markdown]
# ## Data, and everything that takes time

# %%
to_tensor = torchvision.transforms.ToTensor()
train_set = torchvision.datasets.MNIST(".", download=True, transform=to_tensor)
test_set = torchvision.datasets.MNIST(".", train=False, download=True, transform=to_tensor)
train_loader = make_data_loader(train_set, batch_size, num_workers=2)

# %%
# %%time
ae_model = AutoEncoder(nz).to(device)
ae_losses = train_autoencoder(ae_model, train_loader, 10, learning_rate, device)
plt.plot(ae_losses);

# %%
β_models = {β: VAE(nz, β).to(device) for β in (0, 10, TUNED_BETA)}
β_curves = {
    β: train_vae(model, train_loader, 20 if β == TUNED_BETA else 5, learning_rate, device)
    for β, model in β_models.items()
}

# %%
fig, axes = plt.subplots(3, 1)
for axis, (β, model) in zip(axes, β_models.items()):
    grid = torchvision.utils.make_grid(sample_images(model, 64, nz))
    axis.imshow(grid.permute(1, 2, 0).cpu())
    axis.set_title(f"β = {β}")
assert all(len(curve["kl_loss"]) > 0 for curve in β_curves.values())

# %% [markdown] nbgrader={"grade": true, "grade_id": "beta-zero-answer", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# β = 0: σ → 0, an auto-encoder in disguise.

# %% [markdown] nbgrader={"grade": true, "grade_id": "beta-ten-answer", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# β = 10: q(z | x) = N(0, I) for every x, hence one and the same blurred image.

# %% [markdown] nbgrader={"grade": true, "grade_id": "well-tuned-answer", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# Reconstructions: the same digit, the same slant. Samples: digits nobody wrote, but could have.


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
for model in (ae_model, β_models[TUNED_BETA]):
    pictures = interpolate(model, test_set[3][0], test_set[7][0], 9)
    plt.figure(); plt.imshow(torchvision.utils.make_grid(pictures.cpu(), nrow=9)[0])

# %% [markdown] nbgrader={"grade": true, "grade_id": "interpolation-answer", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# The AE cross-fades; the VAE deforms. Downstream, straight lines in the VAE's space mean
# something, in the AE's they do not.
