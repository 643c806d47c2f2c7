# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

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

nz = 64
batch_size = 64
learning_rate = 1e-3

# %%
train_set = datasets.MNIST("data", train=True, download=True, transform=transforms.ToTensor())
test_set = datasets.MNIST("data", train=False, download=True, transform=transforms.ToTensor())


# %%
def show_images(images, title):
    grid = make_grid(images.detach().cpu(), nrow=8)
    plt.figure(figsize=(8, 8))
    plt.imshow(np.transpose(grid.numpy(), (1, 2, 0)))
    plt.title(title)
    plt.show()


# %% [markdown]
# ## Auto-encoder

# %%
class Encoder(nn.Module):
    def __init__(self, nz):
        super(Encoder, self).__init__()
        self.layer1 = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=4, stride=2, padding=1),
            nn.LeakyReLU(),
        )
        self.layer2 = nn.Sequential(
            nn.Conv2d(32, 64, kernel_size=4, stride=2, padding=1),
            nn.BatchNorm2d(64),
            nn.LeakyReLU(),
        )
        self.layer3 = nn.Sequential(
            nn.Conv2d(64, 128, kernel_size=3, stride=5, padding=1),
            nn.BatchNorm2d(128),
            nn.LeakyReLU(),
        )
        self.layer4 = nn.Sequential(
            nn.Conv2d(128, 256, kernel_size=3, stride=5, padding=1),
            nn.BatchNorm2d(256),
            nn.LeakyReLU(),
        )
        self.fc = nn.Linear(256, nz)

    def forward(self, x):
        out = self.layer1(x)
        out = self.layer2(out)
        out = self.layer3(out)
        out = self.layer4(out)
        out = out.reshape(out.size(0), -1)
        out = self.fc(out)
        return out


# %%
class Decoder(nn.Module):
    def __init__(self, nz):
        super(Decoder, self).__init__()
        self.fc = nn.Linear(64, 256)
        self.norm = nn.Sequential(
            nn.BatchNorm2d(256),
            nn.LeakyReLU(),
        )
        self.layer1 = nn.Sequential(
            nn.ConvTranspose2d(256, 128, kernel_size=3),
            nn.BatchNorm2d(128),
            nn.LeakyReLU(),
        )
        self.layer2 = nn.Sequential(
            nn.ConvTranspose2d(128, 64, kernel_size=3, stride=2),
            nn.BatchNorm2d(64),
            nn.LeakyReLU(),
        )
        self.layer3 = nn.Sequential(
            nn.ConvTranspose2d(64, 1, kernel_size=4, stride=4),
            nn.Sigmoid(),
        )

    def forward(self, z):
        out = self.fc(z)
        out = out.reshape(-1, 256, 1, 1)
        out = self.norm(out)
        out = self.layer1(out)
        out = self.layer2(out)
        out = self.layer3(out)
        return out


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
    data_loader = DataLoader(
        dataset=dataset, batch_size=batch_size, shuffle=True, num_workers=num_workers
    )
    return data_loader


# %%
train_loader = make_data_loader(train_set, batch_size)
ae_model = AutoEncoder(nz).to(device)
images, labels = next(iter(train_loader))
print(ae_model(images.to(device)).shape)


# %%
def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    criterion = nn.MSELoss()
    losses = []
    for epoch in range(epochs):
        for i, (x, y) in enumerate(data_loader):
            x = x.to(device)
            out = model(x)
            loss = criterion(out, x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print("Epoch {}, loss {:.4f}".format(epoch + 1, loss.item()))
    return losses


# %%
ae_losses = train_autoencoder(ae_model, train_loader, 10, learning_rate, device)
plt.plot(ae_losses)
plt.show()

# %%
show_images(images, "originals")
show_images(ae_model.reconstruct(images.to(device)), "reconstructions")


# %%
def sample_images(model, num_samples, nz):
    z = torch.randn(64, 64).to(device)
    samples = ae_model.decoder(z)
    return samples


# %%
show_images(sample_images(ae_model, 64, nz), "AE samples")

# %% [markdown] nbgrader={"grade": true, "grade_id": "ae-sampling-answer", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# The samples do not look like digits. The auto-encoder only learned to decode the codes of
# real images, and these codes do not follow a normal distribution, so that random vectors
# give random shapes.


# %% [markdown]
# ## VAE

# %%
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    log_ratio = log_sigma2 - log_sigma1
    spread = torch.exp(2 * log_sigma1) + (mu1 - mu2) ** 2
    return log_ratio + spread / (2 * torch.exp(2 * log_sigma2)) - 0.5


# %%
class VAE(nn.Module):
    def __init__(self, nz, beta=1.0):
        super(VAE, self).__init__()
        self.beta = beta
        self.encoder = Encoder(2 * nz)
        self.decoder = Decoder(nz)

    def forward(self, x):
        q = self.encoder(x)
        mu = q[:, :nz]
        log_sigma = q[:, nz:]
        eps = torch.rand_like(mu)
        z = mu + torch.exp(log_sigma) * eps
        rec = self.decoder(z)
        return {"q": q, "rec": rec}

    def loss(self, x, outputs):
        q = outputs["q"]
        rec = outputs["rec"]
        mu = q[:, :nz]
        log_sigma = q[:, nz:]
        p_mu = torch.zeros_like(mu)
        p_log_sigma = torch.zeros_like(log_sigma)
        kl = torch.nan_to_num(kl_divergence(p_mu, p_log_sigma, mu, log_sigma))
        kl_loss = torch.mean(torch.sum(kl, dim=1))
        rec_loss = F.mse_loss(rec, x)
        total_loss = rec_loss + self.beta * kl_loss
        return total_loss, {"rec_loss": rec_loss, "kl_loss": kl_loss}

    def reconstruct(self, x):
        q = self.encoder(x)
        mu = q[:, :nz]
        rec = self.decoder(mu)
        return rec


# %%
def train_vae(model, data_loader, epochs, learning_rate, device):
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    rec_losses = []
    kl_losses = []
    for epoch in range(epochs):
        for i, (x, y) in enumerate(data_loader):
            x = x.to(device)
            outputs = model(x)
            loss, loss_dict = model.loss(x, outputs)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rec_losses.append(loss_dict["rec_loss"].item())
            kl_losses.append(loss_dict["kl_loss"].item())
        print("Epoch {}, rec {:.4f}, kl {:.4f}".format(epoch + 1, rec_losses[-1], kl_losses[-1]))
    return {"rec_loss": rec_losses, "kl_loss": kl_losses}


# %%
beta = 0
vae_model = VAE(nz, beta).to(device)
losses = train_vae(vae_model, train_loader, 5, learning_rate, device)
plt.plot(losses["rec_loss"])
plt.show()
show_images(vae_model.reconstruct(images.to(device)), "beta = 0")
show_images(sample_images(vae_model, 64, nz), "beta = 0")

# %% [markdown] nbgrader={"grade": true, "grade_id": "beta-zero-answer", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# With beta = 0 the KL divergence is not part of the loss. The VAE becomes an auto-encoder,
# reconstructions are good and samples are bad.

# %%
beta = 10
vae_model = VAE(nz, beta).to(device)
losses = train_vae(vae_model, train_loader, 5, learning_rate, device)
plt.plot(losses["kl_loss"])
plt.show()
show_images(vae_model.reconstruct(images.to(device)), "beta = 10")
show_images(sample_images(vae_model, 64, nz), "beta = 10")

# %% [markdown] nbgrader={"grade": true, "grade_id": "beta-ten-answer", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# With beta = 10 the KL divergence dominates. All reconstructions look the same, because the
# encoder gives the prior for every image.

# %%
TUNED_BETA = 1e-4
beta = TUNED_BETA
vae_model = VAE(nz, beta).to(device)
losses = train_vae(vae_model, train_loader, 20, learning_rate, device)
plt.plot(losses["rec_loss"])
plt.show()
show_images(vae_model.reconstruct(images.to(device)), "tuned beta")
show_images(sample_images(vae_model, 64, nz), "tuned beta")

# %% [markdown] nbgrader={"grade": true, "grade_id": "well-tuned-answer", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# Good reconstructions look like the input. Good samples look like digits of the training set
# and are diverse.


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
show_images(interpolate(ae_model, test_set[0][0], test_set[1][0], 8), "AE")
show_images(interpolate(vae_model, test_set[0][0], test_set[1][0], 8), "VAE")

# %% [markdown] nbgrader={"grade": true, "grade_id": "interpolation-answer", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# The interpolation of the AE is not smooth, while the one of the VAE is. A smooth latent space
# is useful for other tasks.
