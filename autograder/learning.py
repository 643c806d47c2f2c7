"""Does the whole learn? The student's model, trained by the student's loop on real digits.

The training runs in the worker. Its networks are then rebuilt on the host from their traced
operations and trained weights, held against the specification, and judged there on test digits
that never leave the host: encoder and decoder meet in nz numbers, to which noise is added, so
that no picture can pass beside the latent.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autograder import layers, networks, referee, specs
from autograder.architecture import Architecture
from autograder.digit_files import digits
from autograder.draws import Draws
from autograder.interface import Interface
from autograder.networks import Unconfirmed
from autograder.outcomes import Wrong
from autograder.specification import DECODER, ENCODER
from autograder.submission import Session
from autograder.worker.wire import Handle

HERE = Path(__file__).resolve().parent
CALIBRATION = HERE / "learning.json"  # made by tools/calibrate.py
SECONDS = 240.0  # for a training, and for all but the last; 3 s of one core where calibrated
NZ, BETA = 32, 1e-4
BATCH, STEPS, RATE = 16, 200, 2e-3
ATTEMPTS = 3
JUDGED = 300  # test digits
CHUNK = 100  # test digits at once
NOISE = 1e-3  # added to each latent number


@functools.cache
def limit(kind: str) -> float:
    """The largest error on test digits that counts as learnt; kind: `ae` or `vae`."""
    return float(json.loads(CALIBRATION.read_text(encoding="utf-8"))[kind]["limit"])


def training_digits(draws: Draws) -> Tensor:
    """What one run trains on; (BATCH * STEPS, 1, 28, 28)."""
    return _drawn(draws, digits("train"), BATCH * STEPS)


def test_digits(draws: Draws) -> Tensor:
    """What one run is judged on; (JUDGED, 1, 28, 28)."""
    return _drawn(draws, digits("t10k"), JUDGED)


test_digits.__test__ = False  # type: ignore[attr-defined]  # not one of pytest's


def _drawn(draws: Draws, images: Tensor, count: int) -> Tensor:
    return images[torch.randperm(len(images), generator=draws.torch)[:count]]


def error(encoder: Any, decoder: Any, digits: Tensor, draws: Draws, nz: int = NZ) -> float:
    """The mean squared error of decoding the first nz numbers of each code, with noise on them.

    encoder: (CHUNK, 1, 28, 28) to (CHUNK, nz) or (CHUNK, 2 nz); decoder: (CHUNK, nz) to images.
    """
    errors = []
    with torch.no_grad():
        for x in digits.split(CHUNK):
            code = encoder(x)
            if tuple(code.shape) not in ((len(x), nz), (len(x), 2 * nz)):
                raise Wrong("The codes of a trained encoder should be (B, nz).", "wrong-shape")
            z = code[:, :nz] + NOISE * draws.normal(len(x), nz)
            images = decoder(z)
            if images.shape != x.shape:
                raise Wrong(
                    "The images of a trained decoder should be (B, 1, 28, 28).", "wrong-shape"
                )
            errors.append((images - x).double().square().mean())
    return float(torch.stack(errors).mean())


@dataclass(frozen=True)
class LearningRun:
    """A training of the student's on digits; kind: `ae` or `vae`; trainer: the function's name.

    wrong: the tasks of parts that were charged: stand-ins that learn take their places.
    interface: of a stand-in for the VAE.
    """

    kind: str
    trainer: str
    wrong: frozenset[str] = frozenset()
    interface: Interface = field(default_factory=Interface)

    @property
    def task(self) -> str:
        """The task that it belongs to."""
        return f"{self.kind}-training"

    def check(self, session: Session, draws: Draws, device: str = "cpu") -> None:
        """Train on a device and judge; raises `Wrong`, does-not-learn where the error is too large.

        A training that misses may have been unlucky: it is judged by the best of `ATTEMPTS`.
        """
        ends = time.monotonic() + SECONDS
        for _ in range(ATTEMPTS):
            reached = self._reach(session, draws, device)
            if math.isfinite(reached) and reached <= limit(self.kind):
                return
            if time.monotonic() > ends:
                break
        whose, hint = "your model", "Look at the first losses and at the initial weights."
        if self.wrong:
            parts = ", ".join(sorted(self.wrong))
            whose = f"a model with right parts in the place of what was wrong ({parts})"
            hint = "Does your loop treat large models, or some of their layers, otherwise?"
        raise Wrong(
            f"Trained on {STEPS} batches of digits, {whose} reaches a squared error of "
            f"{reached:.3f} on new ones; at most {limit(self.kind):.3f} was expected. {hint}",
            "does-not-learn",
        )

    def _reach(self, session: Session, draws: Draws, device: str) -> float:
        """The error of one training; the model is judged on the CPU, wherever it was trained."""
        model = self._model(session)
        if device != "cpu":
            session.ask("move", model, device)
        self._train(session, model, draws, device)
        if device != "cpu":
            session.ask("move", model, "cpu")
        encoder, decoder = (
            running(session, model, draws, part, as_specified=part[0] not in self.wrong)
            for part in (("encoder", ENCODER), ("decoder", DECODER))
        )
        return error(encoder, decoder, test_digits(draws), draws)

    def _model(self, session: Session) -> Handle:
        """The student's own networks, in the student's own class where the task has one.

        Stand-ins take the places of wrong ones, and of the class with any of them.
        """
        if self.kind == "vae" and not self.wrong:
            made = session.call(session.read("VAE"), NZ, BETA)
        elif self.kind == "vae":
            rest = (BETA, *self.interface.arguments)
            made = session.make("Substitute", *self._parts(session, 2 * NZ), NZ, *rest)
        else:
            made = session.make("Composed", *self._parts(session, NZ))
        if not isinstance(made, Handle):
            raise Wrong("`VAE(nz, beta)` should give an `nn.Module`.", "wrong-return")
        session.ask("mode", made, True)
        return made

    def _parts(self, session: Session, width: int) -> list[Any]:
        """Encoder and decoder, each the student's own unless it was charged."""
        return [
            session.make(f"learning {name.lower()}", size)
            if name.lower() in self.wrong
            else session.call(session.read(name), size)
            for name, size in (("Encoder", width), ("Decoder", NZ))
        ]

    def _train(self, session: Session, model: Handle, draws: Draws, device: str) -> None:
        loader = session.make("loader", training_digits(draws), BATCH)
        told = session.make("device", device) if self.interface.device_object else device
        arguments = [model, loader, 1, RATE, told]
        session.ask("call", session.read(self.trainer), arguments, {}, seconds=SECONDS)


def running(
    session: Session,
    model: Handle,
    draws: Draws,
    part: tuple[str, Architecture],
    nz: int = NZ,
    as_specified: bool = True,
) -> Callable[[Tensor], Tensor]:
    """A trained network of a model's, rebuilt; raises `Wrong`.

    part: the attribute's name, and what it should be, if that matters still. Its batches have
    CHUNK examples.
    """
    name, architecture = part
    module = session.handle(model, name)
    x = architecture.inputs(draws, nz, CHUNK)
    told = session.ask("trace", module, x, False)
    try:
        found = networks.claimed(told)
        fresh = architecture.inputs(draws, nz, CHUNK)
        if not networks.agree(referee.run(found, fresh), session.call(module, fresh)):
            raise Unconfirmed("its operations do not repeat")
        if as_specified:
            before, blocks = layers.blocks(referee.read(found, x))
            specs.compare_weights(blocks, architecture.spec)
            specs.compare_rest(before, blocks, architecture.spec)
    except Unconfirmed as fault:
        raise Wrong(f"Once trained, the {name} could not be followed: {fault.reason}.") from fault

    def answer(batch: Tensor) -> Tensor:
        given = referee.run(found, batch)
        if not given.is_floating_point():
            raise Wrong(f"Once trained, the {name} gives {given.dtype}, not numbers of its kind.")
        return given

    return answer
