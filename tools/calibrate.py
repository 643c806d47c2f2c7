"""Calibrate the learning runs: `python -m tools.calibrate [--seeds N] [--jobs N]`.

Trains the reference as the learning runs train a student's model, from many seeds and in the
spellings that the contract leaves free (slopes of LeakyReLU, initial weights), or with stand-ins
for parts that are wrong, and writes what it reached, with the limits and the false-alarm rates
that follow, to autograder/learning.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import torch
from rich.progress import track
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from autograder import learning
from autograder.digit_files import digits
from autograder.draws import Draws
from autograder.worker import standins
from solution import VAE, AutoEncoder, Decoder, Encoder, train_autoencoder, train_vae


def slope(value: float, model: nn.Module) -> None:
    """Set the slope of every LeakyReLU."""
    for layer in model.modules():
        if isinstance(layer, nn.LeakyReLU):
            layer.negative_slope = value


def initial(rule: Callable[[torch.Tensor], Any], model: nn.Module) -> None:
    """Draw all weights by a rule, with biases at zero."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            rule(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


SPELLINGS: dict[str, Callable[[nn.Module], None]] = {
    "as it stands": lambda model: None,
    "slope 0.01": partial(slope, 0.01),
    "slope 0.5": partial(slope, 0.5),
    "slope 0.9": partial(slope, 0.9),
    "normal, 0.02": partial(initial, partial(nn.init.normal_, std=0.02)),
    "Xavier": partial(initial, nn.init.xavier_normal_),
    "Kaiming": partial(initial, nn.init.kaiming_normal_),
    "orthogonal": partial(initial, nn.init.orthogonal_),
}


STOOD_IN = {
    "stand-in encoder": ("encoder",),
    "stand-in decoder": ("decoder",),
    "stand-ins": ("encoder", "decoder"),
    "stand-in class": (),
}


def model_of(kind: str, spelling: str) -> Any:
    """An untrained model, with what stands in for its parts."""
    if spelling not in STOOD_IN:
        model = AutoEncoder(learning.NZ) if kind == "ae" else VAE(learning.NZ, learning.BETA)
        SPELLINGS[spelling](model)
        return model
    wrong, width = STOOD_IN[spelling], learning.NZ * (1 if kind == "ae" else 2)
    encoder: Any = standins.learning_encoder if "encoder" in wrong else Encoder
    decoder: Any = standins.learning_decoder if "decoder" in wrong else Decoder
    parts = encoder(width), decoder(learning.NZ)
    if kind == "ae":
        return standins.Composed(*parts)
    return standins.Substitute(*parts, learning.NZ, learning.BETA)


def reach(kind: str, spelling: str, seed: int) -> float:
    """The error on test digits after one run of the reference."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    draws = Draws(seed, f"calibration/{kind}")
    model = model_of(kind, spelling)
    images = learning.training_digits(draws)
    loader = DataLoader(TensorDataset(images, torch.zeros(len(images))), learning.BATCH)
    train: Any = train_autoencoder if kind == "ae" else train_vae
    train(model, loader, 1, learning.RATE, "cpu")
    model.eval()
    return learning.error(model.encoder, model.decoder, learning.test_digits(draws), draws)


def false_alarms(deviations: float) -> float:
    """The probability that all attempts miss a limit that is so many deviations away."""
    return float((math.erfc(deviations / math.sqrt(2)) / 2) ** learning.ATTEMPTS)


def summary(reached: dict[str, list[float]], mean_image: float) -> dict[str, Any]:
    """The limit half-way, by ratio, from the worst run to the error of the mean image.

    The false-alarm rates are those of a normal distribution of log errors, for all attempts.
    """
    worst = max(error for errors in reached.values() for error in errors)
    limit = math.sqrt(worst * mean_image)
    rates = {}
    for spelling, errors in reached.items():
        logs = [math.log(error) for error in errors]
        deviations = (math.log(limit) - statistics.mean(logs)) / statistics.stdev(logs)
        rates[spelling] = {
            "largest": round(max(errors), 5),
            "mean": round(statistics.mean(errors), 5),
            "deviations_to_limit": round(deviations, 1),
            "false_alarms": float(f"{false_alarms(deviations):.1e}"),
        }
    return {"limit": round(limit, 4), "mean_image": round(mean_image, 5), "spellings": rates}


def main() -> None:
    """Run all seeds and write the file."""
    parser = argparse.ArgumentParser(prog="python -m tools.calibrate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=24, help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=2, help="default: %(default)s")
    arguments = parser.parse_args()
    spellings = [(k, s) for k in ("ae", "vae") for s in (*SPELLINGS, *STOOD_IN)]
    spellings.remove(("ae", "stand-in class"))
    runs = [(*spelling, seed) for spelling in spellings for seed in range(arguments.seeds)]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        errors = list(track(pool.map(reach, *zip(*runs, strict=True)), total=len(runs)))
    test, train = digits("t10k"), digits("train")
    mean_image = float((test - train.mean(0)).double().square().mean())
    found: dict[str, Any] = {"made_by": "python -m tools.calibrate", "seeds": arguments.seeds}
    for kind in ("ae", "vae"):
        reached: dict[str, list[float]] = {}
        for (which, spelling, _), error in zip(runs, errors, strict=True):
            if which == kind:
                reached.setdefault(spelling, []).append(error)
        found[kind] = summary(reached, mean_image)
    learning.CALIBRATION.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
