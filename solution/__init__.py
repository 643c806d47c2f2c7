"""The reference solution: auto-encoders and variational auto-encoders on MNIST.

The homework's notebook is built from the source of these modules, so each
solution exists once; `### BEGIN SOLUTION` and `### END SOLUTION` bound what
students write themselves.
"""

from solution.data import load_digits, make_data_loader
from solution.divergence import kl_divergence
from solution.models import VAE, AutoEncoder, interpolate, sample_images
from solution.networks import Decoder, Encoder
from solution.training import TUNED_BETA, train_autoencoder, train_vae

__all__ = [
    "TUNED_BETA",
    "VAE",
    "AutoEncoder",
    "Decoder",
    "Encoder",
    "interpolate",
    "kl_divergence",
    "load_digits",
    "make_data_loader",
    "sample_images",
    "train_autoencoder",
    "train_vae",
]
