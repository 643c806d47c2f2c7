# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Auto-encoders and variational auto-encoders

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from torchvision.utils import make_grid

# %%
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(0)

nz = 64
batch_size = 64
learning_rate = 1e-3

# %%
train_set = datasets.MNIST("data", train=True, download=True, transform=transforms.ToTensor())
test_set = datasets.MNIST("data", train=False, download=True, transform=transforms.ToTensor())
print(len(train_set), "training images,", len(test_set), "test images")


# %%
def show_images(images, title, columns=8):
    grid = make_grid(images.detach().cpu(), nrow=columns)
    plt.figure(figsize=(8, 8))
    plt.imshow(grid.permute(1, 2, 0).numpy())
    plt.title(title)
    plt.axis("off")
    plt.show()


show_images(torch.stack([train_set[i][0] for i in range(64)]), "MNIST")


# %% [markdown]
# ## 1. The auto-encoder

# %%
class Encoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.act = nn.LeakyReLU(0.2)
        self.conv1 = nn.Conv2d(1, 32, kernel_size=4, stride=2, padding=1)  # 14x14
        self.conv2 = nn.Conv2d(32, 64, kernel_size=4, stride=2, padding=1)  # 7x7
        self.bn2 = nn.BatchNorm2d(64)
        self.conv3 = nn.Conv2d(64, 128, kernel_size=3, stride=2)  # 3x3
        self.bn3 = nn.BatchNorm2d(128)
        self.conv4 = nn.Conv2d(128, 256, kernel_size=3)  # 1x1
        self.bn4 = nn.BatchNorm2d(256)
        self.fc = nn.Linear(256, nz)

    def forward(self, x):
        x = self.act(self.conv1(x))
        x = self.act(self.bn2(self.conv2(x)))
        x = self.act(self.bn3(self.conv3(x)))
        x = self.act(self.bn4(self.conv4(x)))
        x = torch.flatten(x, start_dim=1)
        return self.fc(x)


# %%
class Decoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.linear = nn.Linear(nz, 256)
        self.first = nn.Sequential(
            nn.BatchNorm2d(256),
            nn.LeakyReLU(0.2),
        )
        self.up1 = nn.Sequential(
            nn.ConvTranspose2d(256, 128, kernel_size=3),  # 3x3
            nn.BatchNorm2d(128),
            nn.LeakyReLU(0.2),
        )
        self.up2 = nn.Sequential(
            nn.ConvTranspose2d(128, 64, kernel_size=3, stride=2),  # 7x7
            nn.BatchNorm2d(64),
            nn.LeakyReLU(0.2),
        )
        self.up3 = nn.Sequential(
            nn.ConvTranspose2d(64, 32, kernel_size=4, stride=2, padding=1),  # 14x14
            nn.BatchNorm2d(32),
            nn.LeakyReLU(0.2),
        )
        self.up4 = nn.Sequential(
            nn.ConvTranspose2d(32, 1, kernel_size=4, stride=2, padding=1),  # 28x28
            nn.Sigmoid(),
        )

    def forward(self, z):
        h = self.linear(z)
        h = h.view(-1, 256, 1, 1)
        h = self.first(h)
        h = self.up1(h)
        h = self.up2(h)
        h = self.up3(h)
        return self.up4(h)


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
ae_model = AutoEncoder(nz).to(device)
print(ae_model)


# %%
def make_data_loader(dataset, batch_size, num_workers=0):
    return DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=num_workers)


# %%
train_loader = make_data_loader(train_set, batch_size)

images, labels = next(iter(train_loader))
print(images.shape, labels.shape)
with torch.no_grad():
    print(ae_model(images.to(device)).shape)


# %%
def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    losses = []
    model.train()
    for epoch in range(epochs):
        for images, _ in data_loader:
            images = images.to(device)
            optimizer.zero_grad()
            rec = model(images)
            loss = F.mse_loss(rec, images)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {losses[-1]:.4f}")
    return losses


# %%
# %%time
ae_losses = train_autoencoder(ae_model, train_loader, 10, learning_rate, device)

plt.plot(ae_losses)
plt.xlabel("step")
plt.ylabel("mean squared error")
plt.show()

# %%
ae_model.eval()
test_images = torch.stack([test_set[i][0] for i in range(32)]).to(device)
with torch.no_grad():
    pairs = torch.cat([test_images, ae_model.reconstruct(test_images)])
show_images(pairs, "test digits and their reconstructions")


# %% [markdown]
# ## 2. Sampling from the auto-encoder

# %%
def sample_images(model, num_samples, nz):
    with torch.no_grad():
        z = torch.randn(num_samples, nz, device=next(model.parameters()).device)
        return model.decoder(z)


# %%
show_images(sample_images(ae_model, 64, nz), "samples of the auto-encoder")

# %% [markdown] nbgrader={"grade": true, "grade_id": "ae-sampling-answer", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# The samples look like scraps of strokes: here and there a piece of an 8 or a 3, but no
# clean digit. Nothing in the loss of an auto-encoder says where codes should lie. The
# encoder may spread them over any odd region of the 64-dimensional space with large holes
# between them, and the decoder has only learnt what to draw at the codes of real images.
# A draw from N(0, I) lands almost surely in a place that the decoder has never seen.


# %% [markdown]
# ## 3. The variational auto-encoder

# %%
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    log_ratio = log_sigma2 - log_sigma1
    spread = torch.exp(2 * log_sigma1) + (mu1 - mu2) ** 2
    return log_ratio + spread / (2 * torch.exp(2 * log_sigma2)) - 0.5


# %%
class VAE(nn.Module):
    def __init__(self, nz, beta=1.0):
        super().__init__()
        self.nz = nz
        self.beta = beta
        self.encoder = Encoder(2 * nz)
        self.decoder = Decoder(nz)

    def forward(self, x):
        q = self.encoder(x)
        mu, log_var = torch.chunk(q, 2, dim=1)
        sigma = torch.exp(0.5 * log_var)
        eps = torch.randn_like(sigma)
        z = mu + sigma * eps
        rec = self.decoder(z)
        return {"q": q, "rec": rec}

    def loss(self, x, outputs):
        q_mu, q_log_var = torch.chunk(outputs["q"], 2, dim=1)
        rec_loss = F.mse_loss(outputs["rec"], x)
        kl_loss = -0.5 * torch.sum(1 + q_log_var - q_mu.pow(2) - q_log_var.exp())
        total = rec_loss + self.beta * kl_loss
        return total, {"rec_loss": rec_loss, "kl_loss": kl_loss}

    def reconstruct(self, x):
        mean = self.encoder(x)[:, : self.nz]
        return self.decoder(mean)


# %%
def train_vae(model, data_loader, epochs, learning_rate, device):
    adam = torch.optim.Adam(model.parameters(), lr=learning_rate)
    history = {"rec_loss": [], "kl_loss": []}
    model.train()
    for epoch in range(epochs):
        for x, _ in data_loader:
            x = x.to(device)
            outputs = model(x)
            total, parts = model.loss(x, outputs)
            adam.zero_grad()
            total.backward()
            adam.step()
            history["rec_loss"].append(parts["rec_loss"].item())
            history["kl_loss"].append(parts["kl_loss"].item())
    return history


# %%
def show_training(history, title):
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3))
    figure.suptitle(title)
    left.plot(history["rec_loss"])
    left.set_title("reconstruction")
    right.plot(history["kl_loss"])
    right.set_title("KL")
    plt.show()


# %% [markdown]
# ### beta = 0

# %%
beta = 0.0
vae_zero = VAE(nz, beta).to(device)
history_zero = train_vae(vae_zero, train_loader, 5, learning_rate, device)
show_training(history_zero, f"beta = {beta}")

# %%
show_images(vae_zero.reconstruct(test_images), "reconstructions, beta = 0")
show_images(sample_images(vae_zero, 64, nz), "samples, beta = 0")

# %% [markdown] nbgrader={"grade": true, "grade_id": "beta-zero-answer", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# With beta = 0 nothing pulls q(z given x) towards the prior. The quickest way to a small
# reconstruction error is then to shrink sigma towards zero, so the VAE turns into a plain
# auto-encoder: reconstructions are sharp, the KL grows to hundreds of nats, and samples
# from N(0, I) look as broken as before.

# %% [markdown]
# ### beta = 10

# %%
beta = 10.0
vae_ten = VAE(nz, beta).to(device)
history_ten = train_vae(vae_ten, train_loader, 5, learning_rate, device)
show_training(history_ten, f"beta = {beta}")

# %%
show_images(vae_ten.reconstruct(test_images), "reconstructions, beta = 10")
show_images(sample_images(vae_ten, 64, nz), "samples, beta = 10")

# %% [markdown] nbgrader={"grade": true, "grade_id": "beta-ten-answer", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# With beta = 10 the KL term outweighs the reconstruction by far. The encoder answers
# N(0, I) whatever it sees, the KL falls to zero, and z says nothing about x: the posterior
# has collapsed. The best that the decoder can then do is to draw the mean of all training
# images, so every reconstruction and every sample is the same grey blob.

# %% [markdown]
# ### A tuned beta

# %%
TUNED_BETA = 1e-4 / 64

# %%
beta = TUNED_BETA
vae_tuned = VAE(nz, beta).to(device)
history_tuned = train_vae(vae_tuned, train_loader, 20, learning_rate, device)
show_training(history_tuned, f"beta = {beta}")

# %%
show_images(vae_tuned.reconstruct(test_images), "reconstructions, tuned beta")
show_images(sample_images(vae_tuned, 64, nz), "samples, tuned beta")

# %% [markdown] nbgrader={"grade": true, "grade_id": "well-tuned-answer", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# (1) Good reconstructions keep the class, the slant and the width of the stroke of each
# digit; they are a little softer than the original, since the code is noisy.
# (2) Good samples look like digits that could have been in the data, of all ten classes
# and in many hands, with few shapes that are no digit at all.

# %% [markdown]
# ## 4. Interpolation

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
for first, last in [(0, 1), (2, 3), (4, 5)]:
    start, end = test_set[first][0], test_set[last][0]
    show_images(interpolate(ae_model, start, end, 10), "auto-encoder", columns=10)
    show_images(interpolate(vae_tuned, start, end, 10), "VAE", columns=10)

# %% [markdown] nbgrader={"grade": true, "grade_id": "interpolation-answer", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# Between two codes of the auto-encoder the pictures fade: strokes of both digits overlap,
# and in the middle there is often no digit. The VAE has filled the space between its codes,
# since noisy codes must decode to something likely as well; its path bends one digit into
# the other, and most steps on the way look like digits. For a downstream task this means
# that distances and directions in the latent space of the VAE say something about the
# images, so that a small classifier or a clustering on its codes needs fewer labels.
