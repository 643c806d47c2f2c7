# The homework, as the instructor edits it: prose and the order of the cells. Code that
# students write, and helpers that the reference also uses, live in solution/ and are named
# here by `source`. After any change run `make notebook` (python -m solution.notebook),
# whose docstring explains the headers, and `nbgrader generate_assignment vae`.
# An answer cell holds a model answer and a marking scheme; formgrader shows both to whoever
# grades, and the release holds neither.
# This file is not run itself: names are defined in other cells and in solution/.
#
# mypy: ignore-errors
# ruff: noqa: E501, F401, F821

# %% [markdown]
# # Auto-encoders and variational auto-encoders
#
# In this homework you build two networks that learn to draw handwritten digits. The first,
# an **auto-encoder**, squeezes an image through a bottleneck of 64 numbers and draws it
# again from these. It becomes good at that, but it cannot invent a digit. The second, a
# **variational auto-encoder** (VAE), shares nearly all of its code and can. What makes the
# difference is a few lines, and understanding them is what this homework is about.
#
# You write ten pieces of code (31 points), each marked `# YOUR CODE HERE`, and five short
# answers (14 points), each marked "YOUR ANSWER HERE".
#
# | | task | points |
# | --- | --- | --: |
# | 1 | encoder | 3 |
# | | decoder | 3 |
# | 2 | data loader | 1 |
# | | training the auto-encoder | 6 |
# | 3 | sampling from the auto-encoder | 2 |
# | | *answer:* what the samples look like, and why | 2 |
# | 4 | VAE: forward pass | 4 |
# | | VAE: loss | 2 |
# | | VAE: reconstruction | 1 |
# | | training the VAE | 4 |
# | 5 | *answer:* $\beta = 0$ | 3 |
# | | *answer:* $\beta = 10$ | 3 |
# | | *answer:* a well tuned $\beta$ | 3 |
# | | tuning $\beta$ | 5 |
# | 6 | *answer:* interpolation | 3 |
#
# **How your code is checked.** Below every task stands a cell such as `check("encoder")`. Run
# it as often as you like: it tells you what is right, what is wrong, and what to look at next.
# The same checks decide on your points, with other random numbers; nothing is hidden. Each
# task is judged on its own, so a wrong encoder does not spoil your training loop.
#
# **What is free.** The names, arguments and return values that the text promises have to
# stay. Everything else is up to you: helper functions, extra cells, prints, the way you spell
# a layer.
#
# **Where it runs.** Any computer with PyTorch will do. On a GPU all training takes a few
# minutes, on a laptop's processor about an hour. In Colab choose *Runtime, Change runtime
# type, GPU*; upload the folder `autograder` beside the notebook if you want the checks there.

# %% [markdown]
# ## Getting ready

# %%
import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

# %%
nz = 64  # numbers in the bottleneck, and so dimensions of the latent space
batch_size = 64
learning_rate = 1e-3
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
print(f"training on {device}")

# %%
try:
    from autograder import check
except ImportError:  # the homework also runs without the checks

    def check(task: str) -> float:
        """Stands in where the folder autograder is missing."""
        print(f"{task}: not checked. Put the homework's folder autograder beside this notebook,")
        print("restart the kernel and run the cells again.")
        return 0.0


# %% [markdown]
# Helpers that draw digits, reconstructions, loss curves and interpolations. There is nothing
# to do here.

# %% source="figures.draw_digits figures.show_digits figures.show_rows figures.show_reconstructions figures.show_losses figures.show_interpolations"

# %% [markdown]
# ## 1. The data and the networks
#
# ### 1.1 Look at the data
#
# MNIST holds 60,000 handwritten digits to train on and 10,000 to test with, grey images of
# 28 x 28 pixels between 0 (black) and 1 (white). The next cells download it once. Without
# a network they fall back on the 5,000 digits that come with the homework: enough to write and
# check your code, too few for the figures that you hand in.

# %% source="data.unpack_digits"

# %%
try:
    from torchvision import datasets, transforms
except RuntimeError:  # a CUDA build of torchvision beside a CPU build of torch
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        operators.define(f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")
    from torchvision import datasets, transforms

to_tensor = transforms.ToTensor()  # bytes to floats in [0, 1], shape (1, 28, 28)
try:
    train_dataset = datasets.MNIST("data", train=True, transform=to_tensor, download=True)
    test_dataset = datasets.MNIST("data", train=False, transform=to_tensor, download=True)
except (RuntimeError, OSError):
    print("MNIST cannot be downloaded: using the digits that come with the homework.")
    unpack_digits("autograder/digits", "data/bundled")
    train_dataset = datasets.MNIST("data/bundled", train=True, transform=to_tensor)
    test_dataset = datasets.MNIST("data/bundled", train=False, transform=to_tensor)
print(f"{len(train_dataset):,} digits to train on, {len(test_dataset):,} to test with")

# %%
digit_images = {}  # one test image of every digit
for image, label in test_dataset:
    digit_images.setdefault(label, image)
    if len(digit_images) == 10:
        break
test_images = torch.stack([digit_images[digit] for digit in range(10)])  # (10, 1, 28, 28)

train_images = torch.stack([train_dataset[index][0] for index in range(64)])
show_digits({"training images": train_images})

# %% [markdown]
# ### 1.2 The architecture of the auto-encoder
#
# An auto-encoder is a pair of networks. The **encoder** $f$ maps an image $x$ to a code
# $z = f(x)$ of `nz` numbers, the **decoder** $g$ maps a code back to an image
# $\hat x = g(z)$. The code is much smaller than the image, so the pair must find out what
# the images have in common.
#
# The encoder halves the resolution again and again while the number of channels grows:
#
# | layer | channels | resolution after it | then |
# | --- | --: | --: | --- |
# | (image) | 1 | 28 x 28 | |
# | convolution 4 x 4 | 32 | 14 x 14 | LeakyReLU |
# | convolution 4 x 4 | 64 | 7 x 7 | BatchNorm, LeakyReLU |
# | convolution 3 x 3 | 128 | 3 x 3 | BatchNorm, LeakyReLU |
# | convolution 3 x 3 | 256 | 1 x 1 | BatchNorm, LeakyReLU |
# | flatten | 256 | | |
# | linear | `nz` | | |
#
# Every convolution has a bias, which is PyTorch's default.
#
# **Hint.** Strides and paddings are for you to find, and any that give these resolutions are
# right. Along one side, a convolution with kernel size $k$, stride $s$ and padding $p$ turns
# $n$ pixels into
#
# $$\left\lfloor \frac{n + 2p - k}{s} \right\rfloor + 1 .$$
#
# **Hint.** `nn.Sequential` runs layers one after another; `nn.Flatten` drops the two sides
# of length one. If you are unsure about a resolution, send `torch.zeros(2, 1, 28, 28)`
# through a part of the network and print the shape.

# %% solution="encoder-solution" source="networks.Encoder"

# %% test="encoder" points=3
check("encoder")

# %% [markdown]
# The decoder walks the same way back, with transposed convolutions:
#
# | layer | channels | resolution after it | then |
# | --- | --: | --: | --- |
# | (latent) | `nz` | | |
# | linear | 256 | | |
# | reshape | 256 | 1 x 1 | BatchNorm, LeakyReLU |
# | transposed convolution 3 x 3 | 128 | 3 x 3 | BatchNorm, LeakyReLU |
# | transposed convolution 3 x 3 | 64 | 7 x 7 | BatchNorm, LeakyReLU |
# | transposed convolution 4 x 4 | 32 | 14 x 14 | BatchNorm, LeakyReLU |
# | transposed convolution 4 x 4 | 1 | 28 x 28 | sigmoid |
#
# **Hint.** A transposed convolution turns $n$ pixels into $(n - 1)\,s - 2p + k$. The sigmoid at
# the end keeps the pixels between 0 and 1.

# %% solution="decoder-solution" source="networks.Decoder"

# %% test="decoder" points=3
check("decoder")

# %% [markdown]
# ### 1.3 The forward pass
#
# Joining the two is all that is left, and it is done for you.

# %% source="models.AutoEncoder"

# %%
ae_model = AutoEncoder(nz).to(device)
with torch.no_grad():
    codes = ae_model.encoder(test_images.to(device))
    drawn = ae_model(test_images.to(device))
print(f"images {tuple(test_images.shape)}, codes {tuple(codes.shape)}, drawn {tuple(drawn.shape)}")

# %% [markdown]
# Before training, reconstructions are noise, one grey for all images:

# %%
show_reconstructions({"untrained": ae_model}, test_images)

# %% [markdown]
# ## 2. Training the auto-encoder
#
# ### 2.1 Batches
#
# A `DataLoader` hands out a dataset in batches. Yours covers the whole dataset, the last
# and smaller batch included, and shuffles it anew in every epoch: if batches came in the same
# order each time, the network could pick up on that order.

# %% solution="data-loader-solution" source="data.make_data_loader"

# %% test="data-loader" points=1
check("data-loader")

# %%
train_loader = make_data_loader(train_dataset, batch_size)
images, labels = next(iter(train_loader))
print(f"{len(train_loader)} batches; images {tuple(images.shape)}, labels {tuple(labels.shape)}")

# %% [markdown]
# ### 2.2 The training loop
#
# The auto-encoder is to minimise the mean squared error between an image and its
# reconstruction, over all $B$ images of a batch and all 784 pixels $i$:
#
# $$\mathcal L = \frac{1}{784\,B} \sum_{b=1}^{B} \sum_{i=1}^{784} \left(\hat x_{b,i} - x_{b,i}\right)^2 .$$
#
# Write a function that trains the model it is given with Adam (its default settings but for
# the learning rate). It makes `epochs` passes over the data loader and one step for every batch,
# and returns the loss of every step as a list of Python numbers.
#
# **Hints.**
# - The model is already on `device`; the images of a batch have to be moved there.
# - Labels are not needed: the image is its own target.
# - Gradients add up in PyTorch until you clear them.
# - A loss tensor keeps the whole computation behind it alive. Store numbers.
# - BatchNorm behaves differently in training and in evaluation. Here the model trains.

# %% source="training.Progress"

# %% solution="ae-training-solution" source="training.train_autoencoder"

# %% test="ae-training" points=6
check("ae-training")

# %% [markdown]
# Ten epochs. The loss should fall below 0.006 or so.

# %%
ae_epochs = 10
ae_model = AutoEncoder(nz).to(device)
ae_losses = train_autoencoder(
    ae_model, Progress(train_loader, ae_epochs, "auto-encoder"), ae_epochs, learning_rate, device
)

# %%
show_losses({"auto-encoder": {"rec_loss": ae_losses}})

# %% [markdown]
# ### 2.3 Verifying the reconstructions
#
# These are test images, which the network has never seen. If the second row does not look like
# the first, go back before you go on.

# %%
show_reconstructions({"auto-encoder": ae_model}, test_images)

# %% [markdown]
# ## 3. Sampling from the auto-encoder
#
# The decoder draws an image for any 64 numbers. Can it invent digits, then? Let us draw
# latents at random from a standard normal distribution, $z \sim \mathcal N(0, I)$, and decode
# them.
#
# Write `sample_images`. It draws fresh latents at every call, on the device that the model is
# on, and decodes them with the decoder of the model it is handed.

# %% solution="ae-sampling-solution" source="models.sample_images"

# %% test="ae-sampling" points=2
check("ae-sampling")

# %%
ae_model.eval()
show_digits({"auto-encoder: samples": sample_images(ae_model, 36, nz)}, columns=6)

# %% [markdown]
# **Question (2 points, at most 150 words).** What do the samples look like? The
# reconstructions were good: why are the samples not?

# %% [markdown] answer="ae-sampling-answer" points=2
# Most samples are not digits: blurred strokes, fragments, and blends of several digits on top
# of one another. The decoder is not to blame, since it reconstructs test images well. It only
# ever learned to decode latents that the encoder produces, and nothing in the loss says where
# these should lie. The encoder is free to spread its codes over an odd, thin and far-flung
# region of the 64-dimensional space, with any mean and scale, correlated dimensions and gaps
# between the classes. Draws from N(0, I) come from another distribution, and almost all of them
# fall where no training image was ever encoded. What the decoder draws there is whatever its
# weights happen to extrapolate to. To sample, we would need codes whose distribution we know.
#
# **Marking scheme**
#
# - 0.5 points: most samples are no digits (blurred, fragments, blends), as the student's own
#   figure shows.
# - 1 point: nothing in training ties the codes to N(0, I), so that draws from it lie where no
#   image was encoded.
# - 0.5 points: the decoder was trained on codes of images alone, so elsewhere it extrapolates.
#
# Accept any words for "the codes have another distribution". "The auto-encoder overfits" or "it
# was trained too briefly" earns nothing for the cause: reconstructions of test images are good.

# %% [markdown]
# ## 4. The variational auto-encoder
#
# ### 4.1 From a point to a distribution
#
# A VAE makes the distribution of the latents part of the model. It supposes that an image
# arises in two steps: a latent $z$ is drawn from the **prior** $p(z) = \mathcal N(0, I)$,
# then an image from $p(x \mid z)$, whose mean the decoder draws. If that model fits
# the data, sampling is easy: the prior is where latents come from.
#
# Training should make the images likely, but $\log p(x)$ asks for an integral over all $z$.
# The encoder helps. For every image it answers with a distribution of plausible latents, a
# Gaussian with independent dimensions,
#
# $$q(z \mid x) = \mathcal N\left(\mu(x), \operatorname{diag} \sigma^2(x)\right),$$
#
# and for any such $q$ there is a lower bound of the evidence, the **ELBO**:
#
# $$\log p(x) \;\ge\; \mathbb E_{q(z \mid x)}\left[\log p(x \mid z)\right]
#   \;-\; \mathrm{KL}\left(q(z \mid x) \,\|\, p(z)\right).$$
#
# The first term asks for good reconstructions. The second asks that $q(z \mid x)$, the
# distribution that latents have in training, stays near the one we want to sample from.
#
# The bound is to be *maximised* and a loss to be *minimised*, so both signs turn around. With
# Gaussian pixels, $-\log p(x \mid z)$ is a squared error up to scale and a constant. We
# take its mean over all pixels, and let a factor $\beta$ weigh the two terms:
#
# $$\mathcal L \;=\; \underbrace{\frac{1}{784\,B} \sum_{b,i} \left(\hat x_{b,i} - x_{b,i}\right)^2}_{\text{rec\_loss}}
#   \;+\; \beta \cdot \underbrace{\frac{1}{B} \sum_{b} \mathrm{KL}\left(q(z \mid x_b) \,\|\, p(z)\right)}_{\text{kl\_loss}} .$$
#
# Mind the **plus** before $\beta$: with a minus, training would be rewarded for driving
# $q$ away from the prior. Mind the direction as well: $q$ stands on the left.
#
# ### 4.2 The divergence
#
# For two Gaussians in one dimension
#
# $$\mathrm{KL}\left(\mathcal N(\mu_1, \sigma_1^2) \,\|\, \mathcal N(\mu_2, \sigma_2^2)\right)
#   = \log \frac{\sigma_2}{\sigma_1} + \frac{\sigma_1^2 + (\mu_1 - \mu_2)^2}{2 \sigma_2^2} - \frac 1 2 ,$$
#
# and with independent dimensions the divergences of the dimensions add up. The function below
# computes each dimension's; summing is left to you.

# %% source="divergence.kl_divergence"

# %%
zero, one = torch.zeros(1), torch.ones(1)
print("KL(N(0, 1) || N(0, 1)) =", kl_divergence(zero, zero, zero, zero).item())
print("KL(N(1, 1) || N(0, 1)) =", kl_divergence(one, zero, zero, zero).item())
print("KL(N(0, e^2) || N(0, 1)) =", round(kl_divergence(zero, one, zero, zero).item(), 3))
print("KL(N(0, 1) || N(0, e^2)) =", round(kl_divergence(zero, zero, zero, one).item(), 3))

# %% [markdown]
# ### 4.3 Log standard deviations and the reparameterisation trick
#
# **A network's output may be any number, a standard deviation must be positive.** So the
# encoder predicts $\log \sigma$, natural logarithm, and $\sigma = e^{\log \sigma}$. Its
# output has `2 * nz` columns: the first `nz` are the means, the last `nz` the *log standard
# deviations* (not variances, and not their logarithms).
#
# **Drawing at random has no gradient.** But every draw from $\mathcal N(\mu, \sigma^2)$ can be
# had from one that does not depend on the network:
#
# $$z = \mu + \sigma \odot \epsilon, \qquad \epsilon \sim \mathcal N(0, I).$$
#
# Now gradients reach $\mu$ and $\sigma$ through a sum and a product, and the randomness waits
# beside the road. Every image, every dimension and every call gets its own $\epsilon$.
#
# ### 4.4 The VAE
#
# Fill in the class: the two networks, the forward pass, the loss and the reconstruction. It has
# to work for every `nz`, every `beta` and every batch size, whatever this notebook's variables
# hold; so read nothing but the arguments and what you store in `self`. Store the networks as
# `self.encoder` and `self.decoder`, and the factor as `self.beta`.
#
# `reconstruct` shows what the model makes of an image at its best guess. It decodes the mean
# of $q(z \mid x)$ and draws nothing at random.

# %% solution="vae-solution" source="models.VAE"

# %% test="vae-forward" points=4
check("vae-forward")

# %% test="vae-loss" points=2
check("vae-loss")

# %% test="vae-reconstruct" points=1
check("vae-reconstruct")

# %% [markdown]
# ### 4.5 Training
#
# As for the auto-encoder, but minimising the total that `model.loss` returns. Keep both parts of
# the loss for every step; we want to see how they compete.

# %% solution="vae-training-solution" source="training.train_vae"

# %% test="vae-training" points=4
check("vae-training")

# %% [markdown]
# ## 5. What beta does
#
# You train the VAE three times. Each run is kept under its name, so that all of them can be
# looked at side by side.

# %%
vae_models = {}
vae_losses = {}


def train_run(beta: float, epochs: int) -> None:
    """Trains a VAE with this beta and keeps it, and its losses, beside the others."""
    name = f"beta = {beta:g}"
    vae_models[name] = VAE(nz, beta).to(device)
    loader = Progress(train_loader, epochs, name)
    vae_losses[name] = train_vae(vae_models[name], loader, epochs, learning_rate, device)


def show_runs() -> None:
    """Shows losses, reconstructions and samples of all runs so far, one column a run."""
    show_losses(vae_losses)
    show_reconstructions(vae_models, test_images)
    samples = {name: sample_images(model.eval(), 36, nz) for name, model in vae_models.items()}
    show_digits(samples, columns=6)
    plt.show()


# %% [markdown]
# ### 5.1 beta = 0
#
# Do not be alarmed if `kl_loss` jumps to absurd values in the first few hundred steps of this
# run. (Why can it?)

# %%
train_run(beta=0.0, epochs=5)

# %%
show_runs()

# %% [markdown]
# **Question (3 points, at most 150 words).** What do you see in the curves, the
# reconstructions and the samples with $\beta = 0$? Explain it from the loss.

# %% [markdown] answer="beta-zero-answer" points=3
# The reconstructions are sharp, hardly different from the auto-encoder's; the samples are not
# digits. With beta = 0 the total is the reconstruction error alone, so nothing pulls q towards
# the prior. Noise in z only hurts the reconstruction: the encoder makes its standard deviations
# tiny and spreads its means far apart, so that the noise no longer matters. The curves show
# it: the reconstruction error falls and the KL divergence, which nobody asks to be small, is
# in the hundreds of nats. In effect the model has become an ordinary auto-encoder again,
# and it fails at sampling for the same reason: draws from N(0, I) hardly ever land where images
# are encoded.
#
# **Marking scheme**
#
# - 1 point: good reconstructions, samples that are no digits, a KL divergence that grows large.
# - 1 point: without the KL term nothing keeps q near the prior; the noise in z only hurts, so
#   sigma shrinks and the means spread.
# - 1 point: hence an ordinary auto-encoder in effect, with the same fault when sampling.
#
# A student whose figures show something else (a wrong loss, say) gets the first point for
# describing them faithfully, and the others if the reasons fit the loss as it is stated.

# %% [markdown]
# ### 5.2 beta = 10

# %%
train_run(beta=10.0, epochs=5)

# %%
show_runs()

# %% [markdown]
# **Question (3 points, at most 200 words).** And with $\beta = 10$? What has become of
# $q(z \mid x)$, and what does the decoder do with it?

# %% [markdown] answer="beta-ten-answer" points=3
# Every reconstruction and every sample is the same grey blur, roughly the average of all
# training digits. The KL divergence falls to almost zero, the reconstruction error stays at
# about 0.067, which is the variance of the pixels, that is, the error of the best constant
# image. This is posterior collapse. The reconstruction error is a mean over 784 pixels and
# can save 0.07 at the very most, while a single nat of information in z costs 10. So the
# cheapest solution is to encode nothing: the encoder answers with mean 0 and log standard
# deviation 0 whatever it sees, q(z | x) is the prior for every image, and z is pure noise to
# the decoder. A decoder whose input says nothing about the image does best to ignore it and to
# draw the mean image, which minimises the squared error. Sampling from the prior is now exactly
# what happens in training, so samples and reconstructions agree: they are equally useless.
#
# **Marking scheme**
#
# - 1 point: all reconstructions and samples are the same blur; the KL divergence is near zero.
# - 1 point: q(z | x) has become the prior for every image (posterior collapse), because at this
#   beta information costs more than it can save.
# - 1 point: z tells the decoder nothing, so that it ignores z and draws the mean image.
#
# The words "posterior collapse" are not required. "The reconstruction is bad because beta is
# large" alone earns half a point in the place of the second.

# %% [markdown]
# ### 5.3 A beta between the two
#
# Before you search for a good value: what are you looking for?
#
# **Question (3 points, at most 200 words).** For a well tuned $\beta$, (1) what do good
# reconstructions look like, and (2) what do good samples look like? Say how each of them would
# tell you that $\beta$ is too small or too large.

# %% [markdown] answer="well-tuned-answer" points=3
# (1) Good reconstructions show the digit that went in: its class, slant, width and style
# can be recognised, the background is black and the strokes are closed. They are a little
# smoother than the input and than those of beta = 0, since some detail is given up to the
# KL term. If they become blurred, or turn into another or an average digit, beta is too large.
#
# (2) Good samples look like the data: nearly all of them are one digit that can be read, with
# strokes of ordinary thickness, and all ten classes and many styles appear. If many of them are
# fragments or mixtures of digits, while reconstructions are sharp, the codes do not fill the
# prior and beta is too small. If samples all look alike or are grey and blurred, so that
# one cannot tell them from one another, z carries too little information and beta is too large.
#
# So the two pull in opposite directions: one takes the largest beta at which reconstructions
# are still faithful, and checks that the samples are then credible digits.
#
# **Marking scheme**
#
# - 1 point: good reconstructions keep the digit and its style, if a little smoother.
# - 1 point: good samples are legible, single digits, varied in class and style.
# - 1 point: says how each shows that beta is too small (sharp reconstructions, samples that are no
#   digits) and too large (blurred reconstructions, samples all alike); half for one direction.

# %% [markdown]
# Now find it. Choose `TUNED_BETA` such that a VAE trained for 20 epochs reconstructs *and*
# samples well.
#
# **Hint.** Search by powers of ten, from 10 downwards, and then more finely, with short
# trainings: `train_run(beta=..., epochs=2)` and `show_runs()` in a cell of your own tell
# you much. Consider the sizes of the two terms: one is a mean over pixels, the other a sum over
# latent dimensions.

# %% solution="beta-tuning-solution" source="training.TUNED_BETA"

# %% test="beta-tuning" points=5
check("beta-tuning")

# %%
train_run(beta=TUNED_BETA, epochs=20)

# %%
show_runs()

# %% [markdown]
# Save the weights of that VAE and hand in the file beside this notebook, if you like. The check
# then tells how good its reconstructions and samples are, and need not train it again.

# %%
from safetensors.torch import save_file

tuned_vae = vae_models[f"beta = {TUNED_BETA:g}"]
weights = {name: value.cpu().contiguous() for name, value in tuned_vae.state_dict().items()}
save_file(weights, "vae.safetensors", {"nz": str(nz)})

# %% [markdown]
# ## 6. Interpolation
#
# Take two images, encode them, walk in a straight line from one code to the other and decode
# the points on the way. (For the VAE, the code is the mean of $q(z \mid x)$.)

# %% source="models.interpolate"

# %%
pairs = [(digit_images[start], digit_images[end]) for start, end in [(0, 6), (4, 9), (2, 7)]]
show_interpolations({"auto-encoder": ae_model, "VAE": tuned_vae}, pairs)

# %% [markdown]
# **Question (3 points, at most 300 words).** Compare the interpolations of the auto-encoder
# with those of the VAE. How do they differ and why? What does that mean for tasks further
# down the line that would use the latents as a representation of the images?

# %% [markdown] answer="interpolation-answer" points=3
# At both ends the two models agree, and the auto-encoder may even be a little sharper. They
# differ in between. The auto-encoder tends to cross-fade: strokes of the first digit become
# weaker while those of the second appear, and half-way images are smudged, broken, or two digits
# laid over one another. The VAE more often bends one digit into the other: a loop closes,
# a stroke tilts, and most images on the way could have been written by somebody.
#
# The reason is what training says about the points between codes. The auto-encoder is only
# ever asked to decode the codes themselves, isolated points; on a line between two of them
# the decoder extrapolates. The VAE decodes noisy points around every mean, so neighbourhoods of
# codes must decode to similar images, and the KL term draws all these neighbourhoods
# together around the origin until they overlap. A straight line between two codes then mostly
# stays where the decoder has been trained.
#
# For tasks downstream this means that distances and directions in the VAE's latent space
# say something about images: near latents are similar images, averages are sensible, and a
# small error in z makes a small error in x. That helps classifiers trained on few labels,
# clustering, nearest-neighbour search, generating or editing images, and planning or
# optimising in latent space. Dimensions that are not needed fall back to the prior and can be
# left out. The price is detail: what the KL term suppresses is lost to every later
# task, so where exact reconstruction matters more than a smooth space, as in compression or
# the detection of small defects, the plain auto-encoder, or a smaller beta, may serve better.
#
# **Marking scheme**
#
# - 1 point: describes the difference: the auto-encoder cross-fades or breaks half-way, the VAE
#   passes through plausible digits.
# - 1 point: why: noise in training and the KL term fill the space between codes, whereas an
#   auto-encoder is trained at isolated codes.
# - 1 point: a consequence for later tasks with a reason (near codes are similar images, so
#   few-label classifiers, search, clustering or editing profit; or detail is lost).
#
# If the student's own figures show little difference, saying so with a sound reason earns the
# first point in full.

# %% [markdown]
# ## 7. What to hand in
#
# 1. **This notebook**, `vae.ipynb`, run from top to bottom (*Kernel, Restart and run all*).
# 2. **A PDF**, `problem_1_solution.pdf`, that holds
#    - samples of the auto-encoder;
#    - for $\beta = 0$, for $\beta = 10$ and for your tuned $\beta$, which you name: the
#      training curves, the reconstructions and the samples;
#    - three pairs of interpolations, auto-encoder and VAE;
#    - your five answers.
