"""`sample_images(model, num_samples, nz)`: images from latents drawn from the prior."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autograder import noise
from autograder.checks import check
from autograder.compare import described
from autograder.draws import Draws
from autograder.outcomes import NotAttempted, Raised, Stopped, Unchecked, Wrong
from autograder.reads import USUAL_BATCH, USUAL_NZ, numbers_read, sizes_written
from autograder.run import Run
from autograder.submission import Session
from autograder.test_vae_forward import raise_noise
from autograder.vae import LARGE, decoded, follows, observe
from autograder.worker.wire import Handle

MOST = 1000  # images of one call; the checks ask for fewer


@dataclass
class Call:
    """One call: the images, the latents that the stand-in's decoder saw, and whose they were."""

    images: Any
    latents: list[Tensor]
    handed: bool  # the stand-in was the model handed in, not put in the notebook's variables
    encoded: bool  # its encoder was used, too

    def matching(self, nz: int) -> Tensor | None:
        """The latents of the images, decoded at once or one after the other."""
        count = len(self.images) if isinstance(self.images, Tensor) and self.images.dim() else 0
        if count > MOST:
            return None
        whole = decoded(self.latents, self.images, nz, count)
        flat = [z for z in self.latents if z.dim() == 2 and z.shape[1] == nz]
        if whole is not None or not flat:
            return whole
        return decoded([torch.cat(flat)], self.images, nz, count)


def _sample(session: Session, count: int, nz: int) -> Call:
    """Call `sample_images`; where it ignores its model, put ours in the notebook's variables."""
    model, first, error = session.make("Pair", nz), None, None
    try:
        first = _call(session, model, model, count, nz, handed=True)
    except Raised as raised:
        error = raised
    if first is not None and first.latents:
        return first
    for name in _models(session):
        session.set_global(name, model)
        try:
            second = _call(session, session.make("Pair", nz), model, count, nz, handed=False)
        except Raised:
            continue
        if second.latents:
            return second
    if error is not None:
        raise error
    assert first is not None
    return first


def _call(
    session: Session, handed_in: Handle, watched: Handle, count: int, nz: int, handed: bool
) -> Call:
    decoder, encoder = session.handle(watched, "decoder"), session.handle(watched, "encoder")
    function = session.read("sample_images")
    try:
        observed = observe(session, function, "", [handed_in, count, nz], [decoder, encoder])
    except Raised as error:
        if error.text.startswith("Encoder expects"):
            error.misconception = "wrong-latent"
            error.message += " Latents go to the decoder alone."
        raise
    latents, encoded = observed.seen
    return Call(observed.result, latents, handed, bool(encoded))


def _models(session: Session) -> list[str]:
    """The notebook's variables that `sample_images` reads and that hold models, or nothing."""
    reads = session.reads("sample_images").items()
    return [name for name, kind in reads if kind in ("module", "undefined")]


@check("ae-sampling", "sizes", 0.5)
def test_sizes(session: Session, draws: Draws) -> None:
    """Gives `num_samples` images from latents of `nz` numbers."""
    some = (draws.integer(2, 20), draws.integer(2, 50))
    for count, nz in (some, (1, some[1]), (some[0], 1)):
        try:
            _check_sizes(session, count, nz)
        except (NotAttempted, Stopped):
            raise
        except Wrong as error:
            raise _explain_sizes(session, count, nz, error) from error


def _check_sizes(session: Session, count: int, nz: int) -> None:
    call = _sample(session, count, nz)
    seen = tuple(call.images.shape) if isinstance(call.images, Tensor) else None
    if seen is None:
        text = f"`sample_images` should return a tensor, not {described(call.images)}."
        raise Wrong(text, "wrong-return")
    if seen != (count, 1, 28, 28):
        raise Wrong(f"Expected images of {(count, 1, 28, 28)}, got {seen}.", "wrong-shape")
    if not call.latents or any(z.dim() != 2 or z.shape[1] != nz for z in call.latents):
        raise Wrong(f"Latents of {nz} numbers were asked for.", "wrong-shape")


def _explain_sizes(session: Session, count: int, nz: int, error: Wrong) -> Wrong:
    if error.misconception == "wrong-return":
        return error
    if isinstance(error, Raised) and error.text.startswith(f"Decoder expects (B, {nz}), not"):
        seen = error.text.removeprefix(f"Decoder expects (B, {nz}), not ")
        error = Unchecked(f"The decoder got latents of {seen}, not {(count, nz)}.", "wrong-shape")
    if session.misreads_arguments("sample_images"):
        text = "`sample_images` should take model, num_samples, nz, in this order."
        return Wrong(text, "wrong-signature")
    for name in numbers_read(session, "sample_images"):
        before = session.read(name)
        for value in (nz, count):
            session.set_global(name, value)
            fine = _works(session, count, nz)
            session.set_global(name, before)
            if fine:
                text = f"`sample_images` reads the notebook's `{name}`; use the arguments."
                return Wrong(text, "hidden-global")
    if _works(session, 37, 37):
        return error  # where a size is one, or so
    if _works(session, count, USUAL_NZ):
        return Wrong(f"`sample_images` works for nz = {USUAL_NZ} only.", "hard-coded-nz")
    for number in sizes_written(session, "sample_images"):
        if _works(session, number, nz):
            text = f"`sample_images` gives {number} images whatever `num_samples` is."
            return Wrong(text, "hard-coded-batch")
    if _works(session, USUAL_BATCH, USUAL_NZ):
        text = f"`sample_images` always decodes {USUAL_BATCH} latents of {USUAL_NZ} numbers."
        return Wrong(text, "hard-coded-nz")
    return error


def _works(session: Session, count: int, nz: int) -> bool:
    try:
        _check_sizes(session, count, nz)
    except Stopped:
        raise
    except Wrong:
        return False
    return True


@check("ae-sampling", "noise", 1)
def test_noise(session: Session, draws: Draws) -> None:
    """The latents come from N(0, I), afresh at every call, for every row and dimension."""
    count, nz = _sizes(session, draws)
    calls = []
    for number in range(6):
        with session.without_gradients() if number % 2 else contextlib.nullcontext():
            call = _sample(session, count, nz)
        latents = [z for z in call.latents if z.dim() == 2 and z.shape[1] == nz]
        if not latents:
            raise Unchecked("No latents reach the decoder of any model.", "uses-global-model")
        whole = call.matching(nz)
        if whole is None and not follows(call.images, torch.cat(latents)):
            text = "The images have nothing to do with the latents that were decoded."
            raise Unchecked(text, "wrong-return")
        calls.append(torch.cat(latents) if whole is None else whole)
    kind, shared = noise.kind(calls)
    if kind != "normal" and call.encoded:  # that the encoder ran names a fault, and is none
        raise Wrong("The latents come from the encoder, not from the prior.", "wrong-latent")
    raise_noise(kind, shared)


@check("ae-sampling", "model", 0.5)
def test_model(session: Session, draws: Draws, run: Run) -> None:
    """Decodes with the model that it is handed, and returns what the decoder gave."""
    count, nz = _sizes(session, draws)
    call = _sample(session, count, nz)
    if not call.handed or not call.latents:
        text = "`sample_images` should decode with the decoder of the model it is handed."
        raise Wrong(text, "uses-global-model")
    if call.matching(nz) is None:
        kind = "" if isinstance(call.images, Tensor) else f", not {described(call.images)}"
        raise Wrong(f"The images should be what the decoder gave, unchanged{kind}.", "wrong-return")
    if not run.charged("ae-sampling"):
        _check_device(session, count, nz)


def _check_device(session: Session, count: int, nz: int) -> None:
    """The latents are drawn where the model is; the notebook's own `device` is there, too."""
    model = session.make("Pair", nz)
    session.ask("leave", model)
    try:
        session.call(session.read("sample_images"), model, count, nz)
    except Stopped:
        raise
    except Unchecked as error:  # a device without memory refuses much else
        if isinstance(error, Raised) and error.mismatch:
            text = "The latents should be on the device of the model that is handed in."
            raise Wrong(text, "hard-coded-device") from error


def _sizes(session: Session, draws: Draws) -> tuple[int, int]:
    """Sizes at which it runs and decodes something: any, if it keeps its promise."""
    count, nz = draws.integer(66, 130), draws.integer(*LARGE)
    first: Unchecked | None = None
    for sizes in (
        (count, nz),
        (count, USUAL_NZ),
        (USUAL_BATCH, nz),
        (USUAL_BATCH, USUAL_NZ),
    ):
        try:
            if _sample(session, *sizes).latents:
                return sizes
        except (NotAttempted, Stopped):
            raise
        except Unchecked as error:
            first = first or error
    if first is None:
        text = "`sample_images` should decode with the decoder of the model it is handed."
        raise Wrong(text, "uses-global-model")
    raise first
