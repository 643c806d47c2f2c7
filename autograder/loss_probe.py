"""Calling the student's `VAE.loss` on drawn outputs, in the layout that the class uses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autograder.draws import Draws
from autograder.losses import Case
from autograder.outcomes import Wrong
from autograder.submission import Session
from autograder.vae import Habits, Model, Reading, Sizes, number
from autograder.worker.wire import Graph, Handle, Ref

PROMISED = Habits(Sizes(), Reading("mean-first", "exp", "normal"))


def call_loss(
    session: Session, model: Model, habits: Habits, x: Tensor, rec: Tensor, q: Tensor
) -> tuple[Handle, tuple[float, float, float], Any]:
    """Total, rec_loss and kl_loss as numbers, the call's handle and result; raises `Wrong`."""
    outputs = habits.outputs(q, rec)
    method = session.handle(model.handle, "loss")
    handle, result = session.keep_call(method, x, outputs)
    return handle, _terms(result), result


def _terms(result: Any) -> tuple[float, float, float]:
    if not isinstance(result, tuple | list) or len(result) != 2:
        seen = "one value" if not isinstance(result, tuple | list) else f"{len(result)} values"
        raise Wrong(
            f"`loss` should return the total and a dict of its terms, not {seen}.", "wrong-return"
        )
    total, terms = result
    if not isinstance(terms, dict) or not {"rec_loss", "kl_loss"} <= set(terms):
        text = "The second item of `loss` should be a dict with 'rec_loss' and 'kl_loss'."
        raise Wrong(text, "wrong-return")
    found = (number(total), number(terms["rec_loss"]), number(terms["kl_loss"]))
    for name, value, raw in zip(
        ("The total", "'rec_loss'", "'kl_loss'"),
        found,
        (total, terms["rec_loss"], terms["kl_loss"]),
        strict=True,
    ):
        if value is None:
            shape = f" of shape {tuple(raw.shape)}" if isinstance(raw, Tensor) else ""
            slug = "kl-reduction" if name == "'kl_loss'" and shape else "wrong-return"
            slug = "rec-reduction" if name == "'rec_loss'" and shape else slug
            raise Wrong(f"{name} should be a scalar, not a {type(raw).__name__}{shape}.", slug)
    first, second, third = found
    assert first is not None and second is not None and third is not None
    return first, second, third


def collect(
    session: Session,
    draws: Draws,
    habits: Habits,
    sizes: Sizes,
    count: int = 4,
    spread: float = 1.5,
) -> list[Case]:
    """Draws of the loss with the student's answers; q in the layout of `habits`."""
    cases = []
    for _ in range(count):
        nz, batch = sizes.draw_nz(draws), sizes.draw_batch(draws)
        beta = draws.real(0.3, 4.0)
        model = Model(session, nz, beta)
        q = torch.cat([2 * draws.normal(batch, nz), spread * draws.normal(batch, nz)], 1)
        x, rec = draws.images(batch), draws.images(batch)
        _, values, _ = call_loss(session, model, habits, x, rec, q)
        mu, s = habits.reading.halves(q)
        cases.append(Case(mu, s, x, rec, beta, values))
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
    leaves = session.ask("leaves", [q, rec])
    outputs = {
        "rec": Ref(leaves, (1,)),
        "q": Ref(leaves, (0,)),
    }
    method = session.handle(model.handle, "loss")
    handle, result = session.keep_call(method, x, outputs)
    values = _terms(result)
    grads = session.ask("gradient", Ref(handle, (0,)), [Ref(leaves, (0,)), Ref(leaves, (1,))])
    mu, s = habits.reading.halves(q)
    told = grads if isinstance(grads, list) and len(grads) == 2 else [None, None]
    has_graph = isinstance(result[0], Graph)
    return Case(mu, s, x, rec, beta, values), told[0], told[1], has_graph
