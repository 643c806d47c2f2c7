"""`Decoder(nz)`: latents (B, nz) to images (B, 1, 28, 28) in [0, 1]."""

from autograder.architecture import Architecture
from autograder.checks import check
from autograder.draws import Draws
from autograder.networks import Spec
from autograder.submission import Session

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
    shape=lambda nz, batch: (batch, 1, 28, 28),
)


@check("decoder", "image-shape", 1)
def test_image_shape(session: Session, draws: Draws) -> None:
    """Gives (B, 1, 28, 28) for any nz and any batch, in both modes."""
    DECODER.check_shape(session, draws)


@check("decoder", "convolutions", 1)
def test_convolutions(session: Session, draws: Draws) -> None:
    """Has the specified transposed convolutions, in order: channels, kernel, resolution, bias."""
    DECODER.check_weights(session, draws)


@check("decoder", "normalisation", 1)
def test_normalisation(session: Session, draws: Draws) -> None:
    """Has the specified batch norms and activations, the sigmoid, and nothing else."""
    DECODER.check_rest(session, draws)
