"""Calling the student's `VAE.loss` on drawn outputs, in the layout that the class uses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autograder.compare import described, number, plain
from autograder.draws import Draws
from autograder.losses import Case
from autograder.outcomes import Unchecked, Wrong
from autograder.sizes import Sizes
from autograder.submission import Session
from autograder.vae import Forward, Habits, Model, Reading
from autograder.worker import standins
from autograder.worker.wire import Graph, Ref

PROMISED = Habits(Sizes(), Reading("mean-first", "exp", "normal"))


TOTAL, REC, KL = 0, 1, 2
TERMS = ("The total", "'rec_loss'", "'kl_loss'")


@dataclass(frozen=True)
class Answer:
    """One call of the loss: the q and images it was told of, total, rec_loss and kl_loss.

    halves: those of the three that are in half precision.
    """

    q: Tensor
    rec: Tensor
    values: tuple[float, float, float]
    halves: frozenset[int]


def call_loss(model: Model, used: Habits, x: Tensor, rec: Tensor, q: Tensor, term: int) -> Answer:
    """Call the loss with q and rec; raises `Wrong` where the asked term is no scalar.

    A class that returns its outputs in a way of its own is handed those for q instead, with
    images of its own.
    """
    if not used.own:
        result = model.call("loss", x, {"q": q, "rec": rec})
        return Answer(q, rec, read_terms(result, term), _halves(result))
    call = model.forward(q)
    model.forward(q.roll(1))  # what the class keeps of its last call is of no use
    result = model.call("loss", x, Ref(call.handle))
    return Answer(call.q, _images(call), read_terms(result, term), _halves(result))


def _images(call: Forward) -> Tensor:
    if call.keeps_image and call.z is not None:
        image: Tensor = standins.Decoder(call.z.shape[1])(call.z.float()).detach()
        return image
    if isinstance(call.rec, Tensor) and call.rec.numel() == call.x.numel():
        return plain(call.rec).reshape(call.x.shape)
    raise Unchecked("`forward` returns no images that the loss could look at.", "wrong-return")


def _raw_terms(result: Any) -> tuple[tuple[Any, Any, Any], dict[Any, Any]]:
    """The total and its terms as they came, None for one that is missing, and the dict of terms."""
    pair = isinstance(result, tuple | list) and len(result) == 2
    total = result[0] if isinstance(result, tuple | list) and result else result
    terms = result[1] if pair and isinstance(result[1], dict) else {}
    return (total, terms.get("rec_loss"), terms.get("kl_loss")), terms


def _halves(result: Any) -> frozenset[int]:
    half = (torch.float16, torch.bfloat16)
    raw, _ = _raw_terms(result)
    return frozenset(i for i, v in enumerate(raw) if isinstance(v, Tensor) and v.dtype in half)


def read_terms(result: Any, term: int) -> tuple[float, float, float]:
    """The three scalars, NaN for one that is missing; the asked one must be there."""
    raw, terms = _raw_terms(result)
    if term != TOTAL and raw[term] is None:
        seen = f"{len(result)} values" if isinstance(result, tuple | list) else described(result)
        seen = f"a dict with {sorted(map(str, terms))}" if terms else seen
        raise Wrong(
            f"`loss` should return the total and a dict with 'rec_loss' and 'kl_loss', not {seen}.",
            "wrong-return",
        )
    values = [number(value) for value in raw]
    name, value = TERMS[term], raw[term]
    if values[term] is None:
        if isinstance(value, Tensor):
            text = f"{name} should be a scalar, not a tensor of shape {tuple(value.shape)}."
            raise Wrong(text, "wrong-shape")
        raise Wrong(f"{name} should be a scalar, not {described(value)}.", "wrong-return")
    first, second, third = (math.nan if v is None else v for v in values)
    return first, second, third


def collect(
    session: Session,
    draws: Draws,
    used: Habits,
    sizes: Sizes,
    term: int,
    count: int = 4,
    spread: float = 0.7,
    far: float = 2.0,
    beta: float | None = None,
    training: bool = True,
    apart: float | None = None,
) -> list[Case]:
    """Draws of the loss with the student's answers; q is read as by `used`.

    term: the one of the three scalars that must be there. spread: of log_sigma. far: of the
    means. beta: the same in all draws, where it is given. training: whether the model is in train
    mode. apart: how far rec is from x; otherwise the one has nothing to do with the other.
    """
    cases = []
    betas = (3.0, 0.03, 0.5, 0.3)
    for index in range(count):
        nz, batch = sizes.draw_nz(draws), sizes.draw_batch(draws)
        drawn = betas[index % len(betas)] * draws.real(0.7, 1.4)
        weight = drawn if beta is None else beta
        model = Model(session, nz, weight)
        model.mode(training)
        q = torch.cat([far * draws.normal(batch, nz), spread * draws.normal(batch, nz)], 1)
        x = draws.digits(batch) if index % 2 else draws.images(batch)
        rec = draws.images(batch)
        if apart is not None:
            rec = (1 - apart) * x + apart * rec
        answer = call_loss(model, used, x, rec, q, term)
        mu, s = used.reading.halves(answer.q)
        cases.append(Case(mu, s, x, answer.rec, weight, answer.values))
    return cases


def total_gradient(
    session: Session, draws: Draws, habits: Habits, sizes: Sizes
) -> tuple[Case, Any, Any, bool]:
    """One draw with the gradients of the total with respect to q and rec."""
    nz, batch = sizes.draw_nz(draws), sizes.draw_batch(draws)
    beta = draws.real(0.3, 4.0)
    model = Model(session, nz, beta)
    q = torch.cat([draws.normal(batch, nz), 0.7 * draws.normal(batch, nz)], 1)
    x, rec = draws.images(batch), draws.images(batch)
    leaves = session.hold("leaves", [q, rec])
    outputs = {"q": Ref(leaves, (0,)), "rec": Ref(leaves, (1,))}
    method = session.handle(model.handle, "loss")
    handle, result = session.keep_call(method, x, outputs)
    values = read_terms(result, TOTAL)
    total = Ref(handle, (0,) if isinstance(result, tuple | list) else ())
    by_q, by_rec = session.gradients(total, [Ref(leaves, (0,)), Ref(leaves, (1,))])
    mu, s = habits.reading.halves(q)
    has_graph = isinstance(result[0] if isinstance(result, tuple | list) else result, Graph)
    return Case(mu, s, x, rec, beta, values), by_q, by_rec, has_graph


def own_gradient(session: Session, model: Model, q: Tensor) -> tuple[Forward, Tensor | None]:
    """The gradient of the total of the class's own outputs with respect to the encoder's code."""
    call = model.forward(q)
    method = session.handle(model.handle, "loss")
    handle, result = session.keep_call(method, call.x, Ref(call.handle))
    total = Ref(handle, (0,) if isinstance(result, tuple | list) else ())
    leaves = [Ref(call.codes, (i,)) for i in range(*call.coded)]
    told = session.gradients(total, leaves)
    found = [plain(g) for g in told if g is not None and g.shape == q.shape]
    return call, torch.stack(found).sum(0) if found else None
