"""`Decoder(nz)`: latents (B, nz) to images (B, 1, 28, 28) in [0, 1]."""

from autograder.checks import check
from autograder.draws import Draws
from autograder.specification import DECODER
from autograder.submission import Session


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
