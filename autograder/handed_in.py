"""The trained VAE that a student may hand in: `vae.safetensors`, beside the notebook.

The weights are put into the student's own class in the worker; its networks are rebuilt on the
host, where reconstructions of test digits and samples are judged.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from autograder import learning, quality
from autograder.digit_files import digits
from autograder.draws import Draws
from autograder.outcomes import Stopped, Unchecked, Wrong
from autograder.reads import USUAL_NZ
from autograder.run import Run
from autograder.specification import DECODER, ENCODER
from autograder.submission import Session
from autograder.weights_file import BYTES, NAME

HEADER = 50_000  # bytes that name the tensors, below a thousand; the homework's take 4,000
SAMPLES = 2000  # drawn from the prior
REAL = 1000  # test digits: all of the bundled ones
NZ_LIMIT = 1024


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and the nz that the file says it was made with; 64 where it says none."""

    tensors: dict[str, Tensor]
    nz: int


@dataclass(frozen=True)
class Judgement:
    """What a handed-in VAE reaches.

    error: mean squared error of reconstructed test digits. kl: nats an image. distance: of
    samples to test digits (see `quality`). entropy: of the classes of samples, in nats.
    """

    error: float
    kl: float
    distance: float
    entropy: float


def judged(session: Session, draws: Draws, run: Run) -> Judgement | None:
    """The judgement of what was handed in, made once in a run; None where nothing counts.

    `run.findings` then holds, under the file's name, the judgement or the `Wrong` that says why
    there is none.
    """
    if run.weights is None:
        return None
    if NAME not in run.findings:
        try:
            run.findings[NAME] = judge(session, draws, parse(run.weights))
        except Stopped:
            raise
        except Wrong as fault:
            run.findings[NAME] = fault
        except Exception as error:  # what is in the file may be any nonsense
            text = f"The weights in `{NAME}` could not be judged ({type(error).__name__})"
            run.findings[NAME] = Wrong(f"{text}; save them again by the notebook's cell.")
    found = run.findings[NAME]
    return found if isinstance(found, Judgement) else None


def parse(data: bytes) -> Weights:
    """The weights in a file; raises `Wrong` with the remedy."""
    again = "save it again by the notebook's cell."
    if not data:
        text = f"`{NAME}` is no file that can be read: empty, a folder, a link, or larger than"
        raise Wrong(f"{text} {BYTES >> 20} MB; {again}")
    length = int.from_bytes(data[:8], "little")
    if HEADER < length < len(data):
        raise Wrong(f"`{NAME}` holds other things than the weights of a VAE; {again}")
    try:
        tensors = safetensors.torch.load(data)
        told = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    except (SafetensorError, ValueError, RecursionError, KeyError) as error:
        raise Wrong(f"`{NAME}` is not a file of weights; {again}") from error
    try:
        nz = int(told.get("nz", USUAL_NZ))
    except (TypeError, ValueError):
        nz = 0
    if not 0 < nz <= NZ_LIMIT:
        text = f"`{NAME}` should give its `nz` as a whole number from 1 to {NZ_LIMIT}, not"
        raise Wrong(f"{text} {str(told['nz'])[:40]!r}; {again}")
    if not all(t.isfinite().all() for t in tensors.values() if t.is_floating_point()):
        raise Wrong(f"Some weights in `{NAME}` are not finite; train again, and {again}")
    for wrapper in ("module.", "_orig_mod."):  # of `DataParallel`, and of `torch.compile`
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    return Weights(tensors, nz)


def judge(session: Session, draws: Draws, weights: Weights) -> Judgement:
    """What the student's class reaches with these weights; raises `Wrong`."""
    model = session.call(session.read("VAE"), weights.nz, 1.0)
    try:
        session.ask("load", model, weights.tensors)
    except Stopped:
        raise
    except Unchecked as error:
        text = f"The weights in `{NAME}` do not fit your `VAE({weights.nz})`; save it again."
        raise Wrong(text) from error
    session.ask("mode", model, False)
    encoder, decoder = (
        learning.running(session, model, draws, part, weights.nz)
        for part in (("encoder", ENCODER), ("decoder", DECODER))
    )
    real = digits("t10k")[:REAL]
    with torch.no_grad():
        codes = torch.cat([encoder(x) for x in real.split(learning.CHUNK)])
        mean, log_sigma = codes.double().chunk(2, 1)
        latents = draws.normal(SAMPLES, weights.nz).split(learning.CHUNK)
        samples = torch.cat([decoder(z) for z in latents])
    found = quality.quality(samples, quality.moments(real))
    kl = ((mean.square() + (2 * log_sigma).exp() - 1) / 2 - log_sigma).sum(1).mean()
    reached = learning.error(encoder, decoder, real, draws, weights.nz)
    return Judgement(reached, float(kl), found.distance, found.entropy)
