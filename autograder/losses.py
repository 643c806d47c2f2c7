"""The terms of the VAE's loss, right and wrong, as tables of formulas in double precision.

mu and s stand for mean and log standard deviation, (B, nz); KL is in nats. Right: Kingma and
Welling, Auto-Encoding Variational Bayes (2014), appendix B.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Formula = Callable[[Tensor, Tensor], Tensor]


def _right(mu: Tensor, s: Tensor) -> Tensor:
    return (mu.square() + torch.exp(2 * s) - 1) / 2 - s


def _between(m1: Tensor, s1: Tensor, m2: Tensor, s2: Tensor) -> Tensor:
    return s2 - s1 + (torch.exp(2 * s1) + (m1 - m2).square()) / (2 * torch.exp(2 * s2)) - 0.5


def _reversed(mu: Tensor, s: Tensor) -> Tensor:
    return s + (1 + mu.square()) / (2 * torch.exp(2 * s)) - 0.5


# each formula gives one number a latent; the promised one first
FORMULAS: dict[str, tuple[str, Formula]] = {
    "kl": ("", _right),
    "reversed": ("kl-order", _reversed),
    "arguments in another order": ("kl-order", lambda m, s: _between(m, s * 0, s, s * 0)),
    "minus kl": ("kl-sign", lambda m, s: -_right(m, s)),
    "minus reversed": ("kl-sign", lambda m, s: -_reversed(m, s)),
    "no half": ("kl-formula", lambda m, s: 2 * _right(m, s)),
    "quarter": ("kl-formula", lambda m, s: _right(m, s) / 2),
    "absolute mean": ("kl-formula", lambda m, s: (m.abs() + torch.exp(2 * s) - 1) / 2 - s),
    "plain mean": ("kl-formula", lambda m, s: (m + torch.exp(2 * s) - 1) / 2 - s),
    "no mean": ("kl-formula", lambda m, s: (torch.exp(2 * s) - 1) / 2 - s),
    "no log": ("kl-formula", lambda m, s: (m.square() + torch.exp(2 * s) - 1) / 2),
    "log added": ("kl-formula", lambda m, s: (m.square() + torch.exp(2 * s) - 1) / 2 + s),
    "half of log": ("kl-formula", lambda m, s: (m.square() + torch.exp(2 * s) - 1 - s) / 2),
    "no one": ("kl-formula", lambda m, s: (m.square() + torch.exp(2 * s)) / 2 - s),
    "one added": ("kl-formula", lambda m, s: (m.square() + torch.exp(2 * s) + 1) / 2 - s),
    "no variance": ("kl-formula", lambda m, s: (m.square() - 1) / 2 - s),
    "variance subtracted": ("kl-formula", lambda m, s: (m.square() - torch.exp(2 * s) - 1) / 2 - s),
    "mean subtracted": ("kl-formula", lambda m, s: (torch.exp(2 * s) - m.square() - 1) / 2 - s),
    "sigma for variance": ("kl-formula", lambda m, s: (m.square() + torch.exp(s) - 1) / 2 - s),
    "half missing on mean": (
        "kl-formula",
        lambda m, s: m.square() + (torch.exp(2 * s) - 1) / 2 - s,
    ),
    "squared log": ("kl-formula", lambda m, s: (m.square() + s.square() - 1) / 2 - s),
    "log twice": ("kl-formula", lambda m, s: (m.square() + torch.exp(2 * s) - 1) / 2 - 2 * s),
    "to log sigma of one": ("kl-log-sigma", lambda m, s: _between(m, s, 0 * m, 0 * s + 1)),
    "reversed from log sigma of one": ("kl-order", lambda m, s: _between(0 * m, 0 * s + 1, m, s)),
    "to a mean of one": ("kl-formula", lambda m, s: _between(m, s, 0 * m + 1, 0 * s)),
    "mean alone": ("kl-formula", lambda m, s: m.square() / 2),
}
# what may be passed where the log standard deviation belongs
TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "log_sigma": lambda s: s,
    "sigma": torch.exp,
    "variance": lambda s: torch.exp(2 * s),
    "log-variance": lambda s: 2 * s,
    "half of log_sigma": lambda s: s / 2,
    "minus log_sigma": lambda s: -s,
    "the logarithm of log_sigma": lambda s: s.abs().log(),
    "the mean": lambda s: s,  # see candidates: both arguments are the mean
}


@dataclass(frozen=True)
class Cause:
    """Why a term is as it is: a factor that is the same on every draw, and a misconception."""

    misconception: str | None = None
    words: str = ""
    factor: str = "1"
    formula: str = "kl"
    transform: str = "log_sigma"

    @property
    def right(self) -> bool:
        """Whether the term is as promised."""
        return self.misconception is None


@dataclass(frozen=True)
class Case:
    """One draw of the loss: inputs and what the student's loss gave for them."""

    mu: Tensor  # (B, nz), as the student is to read q
    s: Tensor
    x: Tensor
    rec: Tensor
    beta: float
    values: tuple[float, float, float]  # total, rec_loss, kl_loss

    @property
    def batch(self) -> int:
        """B."""
        return self.mu.shape[0]

    @property
    def nz(self) -> int:
        """The number of latents."""
        return self.mu.shape[1]


def kl(case: Case, formula: str = "kl", transform: str = "log_sigma") -> Tensor:
    """The KL term in the contract's reduction, by a formula of the table."""
    mu, s = case.mu.double(), case.s.double()
    changed = mu if transform == "the mean" else TRANSFORMS[transform](s)
    return FORMULAS[formula][1](mu, changed).sum(1).mean()


def rec(case: Case) -> Tensor:
    """The mean squared error over all pixels."""
    return (case.x.double() - case.rec.double()).square().mean()


def factor(name: str, case: Case) -> float:
    """A recognised scale, for the sizes of a draw: products of nz, the batch size and 784."""
    value = 1.0
    for part in name.split():
        base, _, power = part.partition("^")
        number = {"nz": case.nz, "batch": case.batch, "784": 784, "beta": case.beta}.get(base)
        value *= (float(base) if number is None else number) ** int(power or 1)
    return value


_KL_FACTORS = [
    " ".join(p for p in parts if p) or "1"
    for parts in itertools.product(
        ("", "nz^-1", "nz"), ("", "batch", "batch^-1"), ("", "784^-1", "784")
    )
] + ["beta", "beta nz^-1", "beta^-1", "batch 64^-1", "nz 64^-1", "nz^-1 64", "64^-1"]
_REC_FACTORS = [
    "1", "784", "784 batch", "batch", "batch^-1", "784^-1", "nz", "nz^-1", "0.5", "2", "0.5 784",
    "0.5 784 batch",
]  # fmt: skip
_REC_FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean absolute error": lambda x, r: (x - r).abs(),
    "binary cross-entropy": lambda x, r: (
        -(x * r.clamp(1e-12, 1).log() + (1 - x) * (1 - r).clamp(1e-12, 1).log())
    ),
    "smooth L1": lambda x, r: torch.nn.functional.smooth_l1_loss(r, x, reduction="none"),
    "squared error of swapped signs": lambda x, r: -(x - r).square(),
    "fourth power": lambda x, r: (x - r).pow(4),
    "plain difference": lambda x, r: x - r,
}


# of the divergences (B, nz) of single latents; no factor of the promised term
_KL_REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "that of the first example": lambda k: k[0].sum(),
    "that of the last example": lambda k: k[-1].sum(),
    "its sum over one example less": lambda k: k.sum() / (len(k) - 1),
    "that of all latents but the last": lambda k: k[:, :-1].sum(1).mean(),
    "that of all latents but the first": lambda k: k[:, 1:].sum(1).mean(),
    "that of the first latent": lambda k: k[:, 0].mean(),
    "the mean over the first example": lambda k: k[0].mean(),
    "the sum over the first latent": lambda k: k[:, 0].sum(),
    "that of a single latent": lambda k: k[0, 0],
    "the largest": lambda k: k.max(),
    "the largest of the examples": lambda k: k.sum(1).max(),
    "the largest latent of each example": lambda k: k.max(1).values.mean(),
    "the median": lambda k: k.sum(1).median(),
    "its norm": lambda k: k.norm(),
    "its sum over the width of q": lambda k: k.sum() / (2 * k.shape[1]),
    "its mean over the width of q": lambda k: k.mean() / 2,
    "its mean over all numbers of q": lambda k: k.mean() / (2 * k.numel()),
    "the root of its sum": lambda k: k.sum().sqrt(),
    "the logarithm of its sum": lambda k: k.sum().log(),
}


def near(seen: float, expected: float) -> bool:
    """Equal up to the rounding of single precision."""
    if not math.isfinite(expected) or not math.isfinite(seen):
        return seen == expected or (math.isnan(seen) and math.isnan(expected))
    return abs(seen - expected) <= 2e-4 * abs(expected) + 1e-6


def explain_kl(cases: list[Case]) -> Cause:
    """Which formula and scale gives the student's KL on every draw."""
    for transform in TRANSFORMS:
        for formula, (slug, _) in FORMULAS.items():
            values = [float(kl(case, formula, transform)) for case in cases]
            if all(near(v, 0.0) for v in values):
                continue  # nothing but nothing is explained by it
            for name in _KL_FACTORS:
                if all(
                    near(c.values[2], v * factor(name, c))
                    for c, v in zip(cases, values, strict=True)
                ):
                    return _kl_cause(slug, formula, transform, name)
    for words, reduce in _KL_REDUCTIONS.items():
        values = [float(reduce(FORMULAS["kl"][1](c.mu.double(), c.s.double()))) for c in cases]
        if all(near(c.values[2], v) for c, v in zip(cases, values, strict=True)):
            return Cause("kl-reduction", f"it is {words}", words)
    ratio = _constant_ratio([c.values[2] for c in cases], [float(kl(c)) for c in cases])
    if ratio is not None:
        return Cause("kl-formula", f"it is {ratio:.4g} times as large", f"{ratio:.6g}")
    return Cause("", "the KL term fits no known formula")


def _constant_ratio(seen: list[float], expected: list[float]) -> float | None:
    """The factor that takes the expected values to the seen ones on every draw."""
    ratio = seen[0] / expected[0] if expected[0] else math.nan
    fits = all(near(v, ratio * e) for v, e in zip(seen, expected, strict=True))
    return ratio if fits and math.isfinite(ratio) and ratio != 0 else None


def _kl_cause(slug: str, formula: str, transform: str, name: str) -> Cause:
    if not slug and transform == "log_sigma" and name == "1":
        return Cause()
    if slug:
        return Cause(slug, formula, name, formula, transform)
    if transform != "log_sigma":
        return Cause("kl-log-sigma", f"{transform} stands for log_sigma", name, formula, transform)
    if "64" in name.replace("784", ""):
        slug = "hard-coded-batch" if "nz" not in name else "hard-coded-nz"
        return Cause(slug, f"it is scaled by {name}", name)
    if "beta" in name:
        return Cause("", f"it is scaled by {name}", name)
    return Cause("kl-reduction", f"it is scaled by {name}", name)


def explain_rec(cases: list[Case]) -> Cause:
    """Which formula and scale gives the student's reconstruction loss on every draw."""
    for name in _REC_FACTORS:
        if all(near(c.values[1], float(rec(c)) * factor(name, c)) for c in cases):
            return Cause() if name == "1" else Cause("rec-reduction", f"scaled by {name}", name)
    for words, formula in _REC_FORMULAS.items():
        for name in _REC_FACTORS:
            means = [formula(c.x.double(), c.rec.double()).mean() for c in cases]
            if all(
                near(c.values[1], float(m) * factor(name, c))
                for c, m in zip(cases, means, strict=True)
            ):
                return Cause("wrong-criterion", f"it is the {words}", name)
    for words, changed in _REC_TARGETS.items():
        means = [(changed(c.x.double()) - c.rec.double()).square().mean() for c in cases]
        if all(near(c.values[1], float(m)) for c, m in zip(cases, means, strict=True)):
            return Cause("wrong-target", f"it compares with {words}")
    if all(near(c.values[1], _broadcast(c)) for c in cases):
        text = "it compares every image with every other, since the shapes differ and broadcast"
        return Cause("wrong-target", text)
    if all(near(c.values[1], float(rec(c)) ** 0.5) for c in cases):
        return Cause("wrong-criterion", "it is the root of it")
    if all(near(c.values[1], 0.0) for c in cases):
        return Cause("wrong-target", "it is 0: something is compared with itself")
    ratio = _constant_ratio([c.values[1] for c in cases], [float(rec(c)) for c in cases])
    if ratio is not None:
        return Cause("rec-reduction", f"scaled by {ratio:.4g}", f"{ratio:.6g}")
    return Cause("wrong-criterion", "it fits no known formula")


def _broadcast(case: Case) -> float:
    """The mean square of (B, 1, 28, 28) minus (B, 28, 28)."""
    x, rec = case.x.double(), case.rec.double()
    return float((x - rec.transpose(0, 1)).square().mean())


_REC_TARGETS: dict[str, Callable[[Tensor], Tensor]] = {
    "rounded images": lambda x: (x > 0.5).double(),
    "inverted images": lambda x: 1 - x,
    "rescaled images": lambda x: 2 * x - 1,
    "zeros": torch.zeros_like,
    "images in another order": lambda x: x.flip(0),
    "transposed images": lambda x: x.transpose(-1, -2),
    "mirrored images": lambda x: x.flip(-1),
    "the mean image": lambda x: x.mean(0, keepdim=True).expand_as(x),
}
TOTALS: dict[str, tuple[str | None, Callable[[float, float, float], float]]] = {
    "rec + beta * kl": (None, lambda r, k, b: r + b * k),
    "rec - beta * kl": ("kl-sign", lambda r, k, b: r - b * k),
    "rec + kl": ("beta-ignored", lambda r, k, b: r + k),
    "rec alone": ("beta-ignored", lambda r, k, b: r),
    "kl alone": ("wrong-return", lambda r, k, b: k),
    "beta * rec + kl": ("beta-ignored", lambda r, k, b: b * r + k),
    "beta * (rec + kl)": ("beta-ignored", lambda r, k, b: b * (r + k)),
    "rec + kl / beta": ("beta-ignored", lambda r, k, b: r + k / b if b else math.inf),
    "rec + beta^2 * kl": ("beta-ignored", lambda r, k, b: r + b * b * k),
    "rec + root of beta * kl": ("beta-ignored", lambda r, k, b: r + b**0.5 * k),
    "(rec + beta) * kl": ("beta-ignored", lambda r, k, b: (r + b) * k),
    "rec + kl + beta": ("beta-ignored", lambda r, k, b: r + k + b),
    "rec - kl": ("kl-sign", lambda r, k, b: r - k),
    "-rec + beta * kl": ("kl-sign", lambda r, k, b: -r + b * k),
    "-rec - beta * kl": ("kl-sign", lambda r, k, b: -r - b * k),
    "weighted average": ("beta-ignored", lambda r, k, b: (1 - b) * r + b * k),
    "beta alone": ("wrong-return", lambda r, k, b: b * k),
}


def explain_total(cases: list[Case]) -> tuple[str | None, str]:
    """The misconception in the total, given its terms: (None, ...) where it is right."""
    for words, (slug, formula) in TOTALS.items():
        if all(_is_total(case, formula) for case in cases):
            return slug, words
    weights = [_weight(c) for c in cases]
    ratio = _constant_ratio(weights, [1.0] * len(cases))
    if ratio is not None:
        return "beta-ignored", f"rec + {ratio:.4g} * kl, whatever beta is"
    if any(near(w, c.beta) for w, c in zip(weights, cases, strict=True)):
        return "beta-ignored", "rec + beta * kl for some values of beta only"
    ratio = _constant_ratio(weights, [c.beta for c in cases])
    if ratio is not None:
        return "beta-ignored", f"rec + {ratio:.4g} * beta * kl"
    for name in _REC_FACTORS[1:]:
        if all(
            near(c.values[0], factor(name, c) * c.values[1] + c.beta * c.values[2]) for c in cases
        ):
            return "rec-reduction", f"rec scaled by {name}, and beta * kl"
    for name in _KL_FACTORS[1:]:
        if all(near(w, c.beta * factor(name, c)) for w, c in zip(weights, cases, strict=True)):
            return "kl-reduction", f"rec and beta * kl, scaled by {name}"
    return "", "no known combination of the two terms and beta"


def weighs_alike(cases: list[Case]) -> bool:
    """Whether the total is rec_loss plus the same number times kl_loss on every draw."""
    return _constant_ratio([_weight(c) for c in cases], [1.0] * len(cases)) is not None


def is_promised(case: Case) -> bool:
    """Whether the total is the promised one, whatever is told of its terms."""
    return near(case.values[0], float(rec(case)) + case.beta * float(kl(case)))


def _is_total(case: Case, formula: Callable[[float, float, float], float]) -> bool:
    total, r, k = case.values
    right_r, right_k = float(rec(case)), float(kl(case))
    return any(
        near(total, formula(a, b, case.beta))
        for a, b in ((r, k), (right_r, right_k), (r, right_k), (right_r, k))
    )


def _weight(case: Case) -> float:
    total, r, k = case.values
    return (total - r) / k if k else math.nan
