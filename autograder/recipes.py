"""How a training may be: a `Recipe`, the promise by default, and what may stand in its fields.

Every misconception is a recipe that differs from the promised one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

NOTED = "as noted"
EXCHANGED = "each for all passes before the next"
OWN = "batches of its own"
CUT = "those before a pass ends early"
TOLD = "the optimiser that it names"


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; the defaults are the promise."""

    optimiser: str = "Adam"
    renewed: str = "never"  # when the optimiser is made again
    rate: float = 1.0  # times the rate asked for
    part: float = 1.0  # times the rate of the rest, in the decoder
    decay: str = ""  # of the rate
    share: str = ""  # by whose number the rate is divided
    criterion: str = "promised"
    scale: float = 1.0  # times the criterion
    per_row: float = 0.0  # times the criterion and the number of rows in the batch; 0: not at all
    over: str = ""  # by what the criterion is divided beside, or in place of, its number of rows
    clip: str = ""  # how gradients are cut: value or norm, and the largest one
    warm: str = ""  # by what the weight of the KL term grows from pass to pass
    rows: str = "all"  # of every batch
    inputs: str = "batch"  # what the model is run on
    target: str = "input"
    frozen: str = ""  # the parts and weights of the model that do not move, with commas between
    mode: str = "train"
    clears: str = "batch"
    steps: str = "batch"
    batches: str = "each"
    epochs: str = "asked"

    def deviations(self) -> list[str]:
        """The fields in which it is not as promised."""
        return [f.name for f in fields(self) if getattr(self, f.name) != f.default]


OPTIMISERS: dict[str, dict[str, Any]] = {
    "AdamW": {},
    "SGD": {},
    "SGD with momentum": {"momentum": 0.9},
    "RMSprop": {},
    "Adagrad": {},
    "Adamax": {},
    "NAdam": {},
    "RAdam": {},
    "Adadelta": {},
    "Rprop": {},
    "Adam with weight_decay=1e-2": {"weight_decay": 1e-2},
    "Adam with weight_decay=1e-3": {"weight_decay": 1e-3},
    "Adam with weight_decay=1e-4": {"weight_decay": 1e-4},
    "Adam with weight_decay=1e-5": {"weight_decay": 1e-5},
    "Adam with betas=(0.5, 0.999)": {"betas": (0.5, 0.999)},
    "Adam with betas=(0.9, 0.99)": {"betas": (0.9, 0.99)},
    "Adam with betas=(0.9, 0.9)": {"betas": (0.9, 0.9)},
    "Adam with betas=(0, 0.999)": {"betas": (0.0, 0.999)},
    "Adam with eps=1e-7": {"eps": 1e-7},
    "Adam with eps=1e-6": {"eps": 1e-6},
    "Adam with eps=1e-4": {"eps": 1e-4},
    "Adam with eps=1e-3": {"eps": 1e-3},
    "Adam with amsgrad": {"amsgrad": True},
    "Adam that maximises": {"maximize": True},
}
KINDS = {"Adam", *(name.split()[0] for name in OPTIMISERS)}
OPTIONS = ("lr", "betas", "eps", "weight_decay", "momentum", "dampening", "nesterov", "amsgrad",
           "alpha", "centered", "rho", "lr_decay")  # fmt: skip


def _kl(outputs: dict[str, Tensor]) -> Tensor:
    mu, s = outputs["q"].chunk(2, 1)
    return (mu.square() + torch.exp(2 * s) - 1) / 2 - s


# what may be minimised in place of the mean squared error; r: the output, x: the target
AE_CRITERIA: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "promised": lambda r, x: (r - x).square().mean(),
    "sum of squares": lambda r, x: (r - x).square().sum(),
    "squares summed over pixels": lambda r, x: (r - x).square().sum() / len(x),
    "half of the squares": lambda r, x: (r - x).square().mean() / 2,
    "absolute error": lambda r, x: (r - x).abs().mean(),
    "sum of absolute errors": lambda r, x: (r - x).abs().sum(),
    "smooth L1": lambda r, x: F.smooth_l1_loss(r, x),
    "binary cross-entropy": lambda r, x: F.binary_cross_entropy(r, x.clamp(0, 1)),
    "sum of cross-entropies": lambda r, x: F.binary_cross_entropy(
        r, x.clamp(0, 1), reduction="sum"
    ),
    "norm of the difference": lambda r, x: (r - x).norm(),
    "root of the mean square": lambda r, x: (r - x).square().mean().sqrt(),
    "minus the mean square": lambda r, x: -(r - x).square().mean(),
    "square of the mean difference of the batch": lambda r, x: (r - x).mean(0).square().mean(),
    "mean square over the number of batches": lambda r, x: (r - x).square().mean() / len(x),
}
# likewise for a VAE, from the terms a and b of model.loss
VAE_CRITERIA: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "promised": lambda a, b, beta: a + beta * b,
    "rec_loss alone": lambda a, b, beta: a,
    "kl_loss alone": lambda a, b, beta: b,
    "rec_loss + kl_loss": lambda a, b, beta: a + b,
    "rec_loss - beta * kl_loss": lambda a, b, beta: a - beta * b,
    "the total plus beta * kl_loss": lambda a, b, beta: a + 2 * beta * b,
    "the total plus rec_loss": lambda a, b, beta: 2 * a + beta * b,
    "the total plus kl_loss": lambda a, b, beta: a + beta * b + b,
    "the total plus both terms": lambda a, b, beta: 2 * a + (1 + beta) * b,
    "beta * kl_loss": lambda a, b, beta: beta * b,
    "minus the total": lambda a, b, beta: -a - beta * b,
}
# likewise, where the reconstruction error is of its own, of outputs o and the target x, with the
# KL of q, or with k, that of model.loss
_OWN_ERRORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    name: AE_CRITERIA[criterion]
    for name, criterion in (
        ("squared error", "promised"),
        ("sum of squares", "sum of squares"),
        ("squares summed over pixels", "squares summed over pixels"),
        ("cross-entropy", "binary cross-entropy"),
        ("sum of cross-entropies", "sum of cross-entropies"),
    )
}
_OWN_KLS: dict[str, Callable[[dict[str, Tensor], Tensor, float], Tensor | float]] = {
    "": lambda o, k, beta: 0.0,
    " and KL": lambda o, k, beta: beta * _kl(o).sum(1).mean(),
    " and mean KL": lambda o, k, beta: beta * _kl(o).mean(),
    " and KL without beta": lambda o, k, beta: _kl(o).sum(1).mean(),
    " and sum of KLs": lambda o, k, beta: beta * _kl(o).sum(),
    " and sum of KLs without beta": lambda o, k, beta: _kl(o).sum(),
    " and beta * kl_loss": lambda o, k, beta: beta * k,
    " and kl_loss": lambda o, k, beta: k,
}


def _own_criterion(
    error: str, kl: str, o: dict[str, Tensor], x: Tensor, k: Tensor, beta: float
) -> Tensor:
    return _OWN_ERRORS[error](o["rec"], x) + _OWN_KLS[kl](o, k, beta)


OWN_VAE_CRITERIA: dict[str, Callable[[dict[str, Tensor], Tensor, Tensor, float], Tensor]] = {
    f"{error} of its own{kl}": functools.partial(_own_criterion, error, kl)
    for error in _OWN_ERRORS
    for kl in _OWN_KLS
}
# times the criterion, of the rows of a batch, those asked for, and all images
OVER: dict[str, Callable[[int, int, int], float]] = {
    "the loader's batch size, even where a batch is smaller": lambda rows, size, images: (
        rows / size
    ),
    "the number of images in the dataset": lambda rows, size, images: rows / images,
    "the number of batches": lambda rows, size, images: 1 / -(-images // size),
}
TARGETS: dict[str, Callable[[Tensor, list[Tensor], int], Tensor]] = {
    "input": lambda x, all, i: x,
    "own output": lambda x, all, i: x,  # see _loss
    "zeros": lambda x, all, i: torch.zeros_like(x),
    "ones": lambda x, all, i: torch.ones_like(x),
    "inverted input": lambda x, all, i: 1 - x,
    "rescaled input": lambda x, all, i: 2 * x - 1,
    "rounded input": lambda x, all, i: (x > 0.5).float(),
    "normalised input": lambda x, all, i: (x - 0.1307) / 0.3081,  # by MNIST's mean and deviation
    "mean of the input": lambda x, all, i: x.mean().expand_as(x),
    "mean image": lambda x, all, i: x.mean(0, keepdim=True).expand_as(x),
    "another order of the input": lambda x, all, i: x.flip(0),
    "rolled input": lambda x, all, i: x.roll(1, 0),
    "mirrored input": lambda x, all, i: x.flip(-1),
    "transposed input": lambda x, all, i: x.transpose(-1, -2),
    "first image": lambda x, all, i: x[:1].expand_as(x),
    "last image": lambda x, all, i: x[-1:].expand_as(x),
    "first batch": lambda x, all, i: all[0][: len(x)],
    "labels": lambda x, all, i: (
        (torch.arange(sum(map(len, all[:i])), sum(map(len, all[: i + 1]))) % 10.0)
        .view(-1, 1, 1, 1)
        .expand_as(x)
    ),
}
# of these, what the model may be run on, too; a course that notes what was given knows others
INPUTS = ("inverted input", "rescaled input", "rounded input", "normalised input")


def _fixed(count: int, asked: int) -> int:
    return count


EPOCHS: dict[str, Callable[[int], int]] = {
    "asked": lambda n: n,
    "one less": lambda n: max(n - 1, 0),
    "one more": lambda n: n + 1,
    "one": lambda n: 1,
    "none": lambda n: 0,
    "twice": lambda n: 2 * n,
    "ten times": lambda n: 10 * n,
    "as many steps": lambda n: n,
    "at most two": lambda n: min(n, 2),
    **{str(k): functools.partial(_fixed, k) for k in (2, 3, 5, 10, 20)},
}
# by pass number, from 0, and the number of passes
WARM: dict[str, Callable[[int, int], float]] = {
    "": lambda e, n: 1.0,
    "the pass over all passes": lambda e, n: e / n,
    "the pass, from 1, over all passes": lambda e, n: (e + 1) / n,
    "the pass over the passes before the last": lambda e, n: e / max(n - 1, 1),
    "nothing in the first pass": lambda e, n: float(e > 0),
    "nothing after the first pass": lambda e, n: float(e == 0),
    "a tenth of the pass": lambda e, n: min(1.0, e / 10),
    "a tenth of the pass, from 1": lambda e, n: min(1.0, (e + 1) / 10),
}


def first_rows(count: int, x: Tensor) -> Tensor:
    """The first rows of a batch, at most `count`."""
    return x[:count]


ROWS: dict[str, Callable[[Tensor], Tensor]] = {
    "all": lambda x: x,
    "the first half": lambda x: x[: len(x) // 2],
    "the first half, rounded up": lambda x: x[: (len(x) + 1) // 2],
    "the second half": lambda x: x[len(x) // 2 :],
    "every second row": lambda x: x[::2],
    "all but the first row": lambda x: x[1:],
    "all but the last row": lambda x: x[:-1],
    **{f"the first {k} rows": functools.partial(first_rows, k) for k in (2, 3, 4, 5)},
}
AT_STEPS = ("after a step", "after a step of means")  # the steps that are noted, and no others
PART_MODES = ("eval in the encoder", "eval in the decoder")
PARTS_CLEARED = ("the encoder's alone", "the decoder's alone")
CHOICES: dict[str, list[str]] = {
    "optimiser": list(OPTIMISERS),
    "target": [name for name in TARGETS if name != "input"],
    "renewed": ["epoch", "batch"],
    "share": ["batches", "epochs"],
    "over": list(OVER),
    "decay": [NOTED],
    "warm": [*[name for name in WARM if name], NOTED],
    "mode": ["eval", NOTED, *PART_MODES],
    "clears": ["never", "epoch", "once", *PARTS_CLEARED, *AT_STEPS, NOTED],
    "steps": [
        "never",
        "epoch",
        "end",
        "delayed",
        "twice",
        "last batch left out",
        "every other",
        NOTED,
    ],
    "batches": [
        "first",
        "last",
        "first of each pass",
        "all but the last",
        "all but the first",
        "whole ones",
        "each twice",
        EXCHANGED,
    ],
    "epochs": [name for name in EPOCHS if name != "asked"],
}
