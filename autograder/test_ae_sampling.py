"""`sample_images(model, num_samples, nz)`: images from latents drawn from the prior."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autograder import noise
from autograder.architecture import USUAL_BATCH, USUAL_NZ, numbers_read
from autograder.checks import check
from autograder.draws import Draws
from autograder.outcomes import NotAttempted, Raised, Stopped, Unchecked, Wrong
from autograder.submission import Session
from autograder.test_vae_forward import raise_noise
from autograder.vae import decoded
from autograder.worker.wire import Handle


def _sample(
    session: Session, model: Handle, count: int, nz: int
) -> tuple[Any, list[Tensor]]:
    """The images, and the latents that the model's decoder was given for them."""
    decoder = session.handle(model, "decoder")
    before = len(_latents(session, decoder))
    images = session.call(session.read("sample_images"), model, count, nz)
    return images, _latents(session, decoder)[before:]


def _latents(session: Session, decoder: Handle) -> list[Tensor]:
    found = session.attribute(decoder, "latents")
    return [z for z in found if isinstance(z, Tensor)] if isinstance(found, list) else []


def _check(session: Session, count: int, nz: int) -> None:
    model = session.make("Pair", nz)
    images, latents = _sample(session, model, count, nz)
    if not latents:
        text = "`sample_images` should decode with the decoder of the model it is handed."
        raise Wrong(text, "uses-global-model")
    expected = (count, 1, 28, 28)
    if not isinstance(images, Tensor) or tuple(images.shape) != expected:
        seen = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise Wrong(f"Expected images of {expected}, got {seen}.", "wrong-shape")
    if _matching(images, latents, nz) is None:
        text = "The images should be what the decoder makes of the latents, unchanged."
        raise Wrong(text, "wrong-return")


def _matching(images: Tensor, latents: list[Tensor], nz: int) -> Tensor | None:
    """The latents of these images, decoded at once or one after the other."""
    whole = decoded(latents, images.float(), nz)
    if whole is not None:
        return whole
    flat = [z for z in latents if z.dim() == 2]
    if flat and all(z.shape[1] == nz for z in flat):
        return decoded([torch.cat(flat)], images.float(), nz)
    return None


@check("ae-sampling", "decodes", 1)
def test_decodes(session: Session, draws: Draws) -> None:
    """Decodes `num_samples` latents of `nz` numbers with the model that it is handed."""
    for _ in range(3):
        count, nz = draws.integer(1, 20), draws.integer(1, 50)
        try:
            _check(session, count, nz)
        except (NotAttempted, Stopped):
            raise
        except Wrong as error:
            raise _explain(session, draws, count, nz, error) from error


def _explain(session: Session, draws: Draws, count: int, nz: int, error: Wrong) -> Wrong:
    if error.misconception == "uses-global-model":
        return error
    if isinstance(error, Raised) and _reads_a_model(session):
        text = "`sample_images` uses a model of the notebook, not the one that it is handed."
        return Wrong(f"{text} {error.message}", "uses-global-model")
    for name in numbers_read(session, "sample_images"):
        before = session.read(name)
        for value, other in ((nz, count), (count, nz)):
            session.set_global(name, value)
            fine = _works(session, count, nz)
            session.set_global(name, before)
            if fine:
                text = f"`sample_images` reads the notebook's `{name}`; use the arguments."
                return Wrong(text, "hidden-global")
    if _works(session, count, USUAL_NZ):
        return Wrong(f"`sample_images` works for nz = {USUAL_NZ} only.", "hard-coded-nz")
    if _works(session, USUAL_BATCH, nz) or _works(session, USUAL_BATCH, USUAL_NZ):
        text = f"`sample_images` gives {USUAL_BATCH} images whatever `num_samples` is."
        return Wrong(text, "hard-coded-batch")
    return error


def _works(session: Session, count: int, nz: int) -> bool:
    try:
        _check(session, count, nz)
    except Stopped:
        raise
    except Wrong:
        return False
    return True


def _reads_a_model(session: Session) -> bool:
    told = session.ask("reads", session.read("sample_images"))
    return isinstance(told, dict) and "module" in told.values()


@check("ae-sampling", "noise", 1)
def test_noise(session: Session, draws: Draws) -> None:
    """The latents come from N(0, I), afresh at every call, for every row and dimension."""
    count, nz = _sizes(session, draws)
    model = session.make("Pair", nz)
    calls = []
    for _ in range(6):
        images, latents = _sample(session, model, count, nz)
        z = _matching(images, latents, nz) if isinstance(images, Tensor) else None
        if z is None:
            z = latents[-1] if latents and latents[-1].dim() == 2 else None
        if z is None:
            text = "No latents reach the decoder of the model that `sample_images` is handed."
            raise Unchecked(text, "uses-global-model")
        calls.append(z)
    raise_noise(*noise.kind(calls))


def _sizes(session: Session, draws: Draws) -> tuple[int, int]:
    """Sizes at which it runs: any, if it keeps its promise."""
    first: Unchecked | None = None
    sizes = [
        (draws.integer(48, 63), draws.integer(24, 48)),
        (draws.integer(48, 63), USUAL_NZ),
        (USUAL_BATCH, draws.integer(24, 48)),
        (USUAL_BATCH, USUAL_NZ),
    ]
    for count, nz in sizes:
        try:
            _, latents = _sample(session, session.make("Pair", nz), count, nz)
            if latents:
                return count, nz
        except (NotAttempted, Stopped):
            raise
        except Unchecked as error:
            first = first or error
    if first is not None:
        raise first
    text = "No latents reach the decoder of the model that `sample_images` is handed."
    raise Unchecked(text, "uses-global-model")
