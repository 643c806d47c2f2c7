"""The two networks that the homework specifies, layer by layer."""

from autograder.architecture import Architecture
from autograder.specs import Spec

ENCODER = Architecture(
    "Encoder",
    [
        Spec("conv", 32, 4, 14, activation="LeakyReLU"),
        Spec("conv", 64, 4, 7, norm=True, activation="LeakyReLU"),
        Spec("conv", 128, 3, 3, norm=True, activation="LeakyReLU"),
        Spec("conv", 256, 3, 1, norm=True, activation="LeakyReLU"),
        Spec("linear", 0),
    ],
    inputs=lambda draws, nz, batch: draws.images(batch),
    others=lambda draws, nz, batch: draws.digits(batch),
    shape=lambda nz, batch: (batch, nz),
)
DECODER = Architecture(
    "Decoder",
    [
        Spec("linear", 256, norm=True, activation="LeakyReLU"),
        Spec("transposed", 128, 3, 3, norm=True, activation="LeakyReLU"),
        Spec("transposed", 64, 3, 7, norm=True, activation="LeakyReLU"),
        Spec("transposed", 32, 4, 14, norm=True, activation="LeakyReLU"),
        Spec("transposed", 1, 4, 28, activation="sigmoid"),
    ],
    inputs=lambda draws, nz, batch: draws.normal(batch, nz),
    others=lambda draws, nz, batch: 4 * draws.normal(batch, nz),
    shape=lambda nz, batch: (batch, 1, 28, 28),
)
