"""`Encoder(nz)`: images (B, 1, 28, 28) to latents (B, nz)."""

from autograder.checks import check
from autograder.draws import Draws
from autograder.specification import ENCODER
from autograder.submission import Session


@check("encoder", "latent-shape", 1)
def test_latent_shape(session: Session, draws: Draws) -> None:
    """Gives (B, nz) for any nz and any batch, in both modes."""
    ENCODER.check_shape(session, draws)


@check("encoder", "convolutions", 1)
def test_convolutions(session: Session, draws: Draws) -> None:
    """Has the specified convolutions, in order: channels, kernel, resolution, bias."""
    ENCODER.check_weights(session, draws)


@check("encoder", "normalisation", 1)
def test_normalisation(session: Session, draws: Draws) -> None:
    """Has the specified batch norms and activations, and nothing else; gradients flow."""
    ENCODER.check_rest(session, draws)
