"""Sweep beta: `python -m tools.beta_sweep [--data DIR]`.

Trains the reference on MNIST at every beta of the plan, and keeps the weights in .sweep/: a
sweep that is stopped goes on where it was. Then judges reconstructions and samples on the test
digits, and writes autograder/beta.json and the table and figure of docs/beta-sweep.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from autograder import quality
from solution.__main__ import BATCH_SIZE, LEARNING_RATE, NZ, evaluate
from solution.data import load_digits, make_data_loader
from solution.models import VAE, AutoEncoder, sample_images
from solution.training import Progress, train_autoencoder, train_vae

WEIGHTS = Path(__file__).resolve().parents[1] / ".sweep"
SHORT, LONG = 5, 20  # epochs
BETAS = (0.0, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 10.0)
NEAR_THE_BEST = (1e-4, 3e-4, 1e-3, 3e-5)  # these are trained for LONG, in this order
AUTO_ENCODER = "auto-encoder"
# What counts as good, against beta = 0: so many times its error, such a part of its distance.
ERROR_TIMES = {"good": 4, "near": 8}
DISTANCE_PARTS = {"good": 2, "near": 1.5}
ENTROPY_MARGIN = 0.1  # nats below the least diverse samples of a good beta
DOCS = WEIGHTS.parent / "docs"
BETA = WEIGHTS.parent / "autograder" / "beta.json"
BEGIN, END = "<!-- measured -->", "<!-- end -->"


def weights_file(name: str, epochs: int) -> Path:
    """Where the weights of a model are kept after so many epochs."""
    return WEIGHTS / f"{name}-{epochs}.safetensors"


def vae_name(beta: float) -> str:
    """What a VAE of this beta is called."""
    return f"vae-{beta:g}"


class Snapshots(Progress):
    """A loader that keeps the model's weights after SHORT and after all epochs."""

    def __init__(
        self, loader: DataLoader[Any], epochs: int, name: str, model: AutoEncoder | VAE
    ) -> None:
        super().__init__(loader, epochs, name)
        self.epochs, self.name, self.model, self.passes = epochs, name, model, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from super().__iter__()
        self.passes += 1
        if self.passes in (SHORT, self.epochs):
            weights = {key: value.contiguous() for key, value in self.model.state_dict().items()}
            partial = WEIGHTS / f"{self.name}.partial"
            save_file(weights, partial)
            partial.rename(weights_file(self.name, self.passes))


def train(name: str, model: AutoEncoder | VAE, digits: TensorDataset, epochs: int) -> None:
    """Train for epochs, with the homework's settings, unless that was done before."""
    if weights_file(name, epochs).exists():
        return
    loader = Snapshots(make_data_loader(digits, BATCH_SIZE), epochs, name, model)
    if isinstance(model, VAE):
        train_vae(model, loader, epochs, LEARNING_RATE, "cpu")
    else:
        train_autoencoder(model, loader, epochs, LEARNING_RATE, "cpu")


@dataclass(frozen=True)
class Point:
    """One trained model on the test digits; see `Judgement` for the figures."""

    beta: float | None  # None: the auto-encoder
    epochs: int
    error: float
    kl: float | None
    distance: float
    entropy: float


def points(test: Tensor, seed: int) -> list[Point]:
    """Every model that was trained, judged on the test digits (N, 1, 28, 28)."""
    real, found = quality.moments(test), []
    for beta in (None, *BETAS):
        name = AUTO_ENCODER if beta is None else vae_name(beta)
        for epochs in (SHORT, LONG):
            if not weights_file(name, epochs).exists():
                continue
            model: AutoEncoder | VAE = AutoEncoder(NZ) if beta is None else VAE(NZ, beta)
            model.load_state_dict(load_file(weights_file(name, epochs)))
            error, kl = evaluate(model, test, "cpu")
            torch.manual_seed(seed)
            samples = torch.cat([sample_images(model, 1000, NZ) for _ in range(len(test) // 1000)])
            judged = quality.quality(samples, real)
            found.append(Point(beta, epochs, error, kl, judged.distance, judged.entropy))
    return found


def bounds(curve: list[Point], error: float, distance: float) -> list[float]:
    """The smallest and largest beta at which both are good, between points by powers."""
    good = []
    for left, right in itertools.pairwise(p for p in curve if p.beta):
        for share in torch.linspace(0, 1, 101).tolist():
            between = [
                math.exp((1 - share) * math.log(a) + share * math.log(b))
                for a, b in (
                    (left.beta or 1, right.beta or 1),
                    (left.error, right.error),
                    (left.distance, right.distance),
                )
            ]
            if between[1] <= error and between[2] <= distance:
                good.append(between[0])
    return [float(f"{bound:.1e}") for bound in (min(good), max(good))]


def best_known(found: list[Point]) -> list[Point]:
    """For every beta the longest training, in order."""
    latest = {p.beta: p for p in sorted(found, key=lambda p: p.epochs) if p.beta is not None}
    return [latest[beta] for beta in sorted(latest)]


def table(found: list[Point]) -> str:
    """The points as a markdown table."""
    lines = [
        "| beta | epochs | MSE, test | KL, nats | Fréchet distance | classes in samples, nats |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    for p in found:
        kl = "" if p.kl is None else f"{p.kl:.3g}"
        name = "auto-encoder" if p.beta is None else f"{p.beta:g}"
        lines.append(
            f"| {name} | {p.epochs} | {p.error:.4f} | {kl} | {p.distance:.1f} | {p.entropy:.2f} |"
        )
    return "\n".join(lines)


def draw(curve: list[Point], good: list[float], file: Path) -> None:
    """Error, KL and Fréchet distance against beta, with the good range shaded."""
    plt.switch_backend("agg")
    figure, axes = plt.subplots(3, 1, sharex=True, figsize=(7, 8), layout="constrained")
    shown = [p for p in curve if p.beta]
    labels = ("reconstruction error (MSE)", "KL (nats)", "Fréchet distance of samples")
    for axis, label, name in zip(axes, labels, ("error", "kl", "distance"), strict=True):
        for epochs, marker in ((SHORT, "o"), (LONG, "s")):
            chosen = [p for p in shown if p.epochs == epochs]
            axis.plot(
                [p.beta for p in chosen],
                [max(getattr(p, name), 1e-4) for p in chosen],
                marker,
                color="C0" if epochs == SHORT else "C1",
                label=f"{epochs} epochs",
            )
        longest = best_known(shown)
        axis.plot([p.beta for p in longest], [max(getattr(p, name), 1e-4) for p in longest], "C7-")
        axis.axvspan(*good, alpha=0.15, color="C2", label="full points")
        axis.set(ylabel=label, xscale="log", yscale="log")
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("beta")
    axes[0].legend()
    figure.savefig(file, dpi=100)
    plt.close(figure)


def write(found: list[Point], seed: int) -> None:
    """Write what the grader reads, the figure and the report."""
    curve = best_known(found)
    zero = next(p for p in curve if p.beta == 0)
    limits = {
        name: (ERROR_TIMES[name] * zero.error, zero.distance / DISTANCE_PARTS[name])
        for name in ("good", "near")
    }
    ranges = {name: bounds(curve, *limit) for name, limit in limits.items()}
    low, high = ranges["good"]
    least = min(p.entropy for p in curve if p.beta and low <= p.beta <= high)
    told: dict[str, Any] = {
        "made_by": "python -m tools.beta_sweep",
        "seed": seed,
        **ranges,
        "error": round(limits["good"][0], 4),
        "distance": round(limits["good"][1], 1),
        "entropy": round(least - ENTROPY_MARGIN, 2),
        "curve": [{"beta": p.beta, "kl": p.kl} for p in curve],
    }
    BETA.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    draw([p for p in found if p.beta], ranges["good"], DOCS / "figures" / "beta-sweep.png")
    text = (DOCS / "beta-sweep.md").read_text(encoding="utf-8")
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    rules = "\n".join(
        f"- {'Full points' if name == 'good' else 'Points for the magnitude'}: an error of at most "
        f"{limits[name][0]:.4f} and a Fréchet distance of at most {limits[name][1]:.1f}; beta "
        f"from {low:g} to {high:g}."
        for name, (low, high) in ranges.items()
    )
    made = f"{text[:begin]}\n{table(found)}\n\n{rules}\n{text[end:]}"
    (DOCS / "beta-sweep.md").write_text(made, encoding="utf-8")


def main() -> None:
    """Train whatever is missing, then judge and write."""
    parser = argparse.ArgumentParser(prog="python -m tools.beta_sweep", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="MNIST's folder")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--no-training", action="store_true", help="judge what there is")
    options = parser.parse_args()
    torch.set_num_threads(1)
    WEIGHTS.mkdir(exist_ok=True)
    if not options.no_training:
        train_all(load_digits(options.data, train=True), options.seed)
    test = load_digits(options.data, train=False).tensors[0]
    write(points(test, options.seed), options.seed)


def train_all(digits: TensorDataset, seed: int) -> None:
    """Train what was not trained before."""
    for beta in BETAS:
        if beta not in NEAR_THE_BEST:
            torch.manual_seed(seed)
            train(vae_name(beta), VAE(NZ, beta), digits, SHORT)
    for beta in NEAR_THE_BEST:
        torch.manual_seed(seed)
        train(vae_name(beta), VAE(NZ, beta), digits, LONG)
    torch.manual_seed(seed)
    train(AUTO_ENCODER, AutoEncoder(NZ), digits, SHORT)


if __name__ == "__main__":
    main()
