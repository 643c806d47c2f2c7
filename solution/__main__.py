"""The homework at full length: `python -m solution [--data DIR] [--out DIR]`.

Trains the auto-encoder and three VAEs, on a GPU all together, and writes the homework's figures
and a table of what each model reaches (results.md, results.json).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import TensorDataset

from solution import figures
from solution.data import SAMPLE, load_digits, make_data_loader
from solution.models import VAE, AutoEncoder, sample_images
from solution.together import train_together
from solution.training import TUNED_BETA, Progress, train_autoencoder, train_vae

NZ, BATCH_SIZE, LEARNING_RATE = 64, 64, 1e-3
AE_EPOCHS = 10
BETAS = {0.0: 5, 10.0: 5}  # epochs for each beta that fails
TUNED_EPOCHS = 20

Model = AutoEncoder | VAE
Losses = Mapping[str, list[float]]


@dataclass(frozen=True)
class Result:
    """What one trained model reaches: mean squared errors a pixel, KL in nats an image."""

    model: str
    epochs: int
    logged_mse: float  # mean of the last 100 training steps, as the loop returns them
    train_mse: float
    test_mse: float
    test_kl: float | None
    seconds: float  # of its training; of all trainings, where they ran together


def evaluate(model: Model, images: Tensor, device: str) -> tuple[float, float | None]:
    """Mean squared error of model.reconstruct on images (N, 1, 28, 28), and mean KL in nats."""
    model.eval()
    error, divergence = 0.0, 0.0
    with torch.no_grad():
        for chunk in images.split(1000):
            x = chunk.to(device)
            error += F.mse_loss(model.reconstruct(x), x).item() * len(x)
            if isinstance(model, VAE):
                divergence += model.loss(x, model(x))[1]["kl_loss"].item() * len(x)
    kl = divergence / len(images) if isinstance(model, VAE) else None
    return error / len(images), kl


def train(
    model: Model, digits: TensorDataset, epochs: int, device: str, label: str
) -> tuple[Losses, float]:
    """Trains with the homework's settings; returns the losses of all steps, and the seconds."""
    loader = Progress(make_data_loader(digits, BATCH_SIZE), epochs, label)
    start = time.perf_counter()
    if isinstance(model, VAE):
        losses: Losses = train_vae(model, loader, epochs, LEARNING_RATE, device)
    else:
        losses = {"rec_loss": train_autoencoder(model, loader, epochs, LEARNING_RATE, device)}
    return losses, time.perf_counter() - start


def run(
    train_digits: TensorDataset,
    test_digits: TensorDataset,
    device: str,
    seed: int,
    tuned_beta: float = TUNED_BETA,
    epochs_scale: float = 1.0,
) -> tuple[dict[str, Model], dict[str, Losses], list[Result]]:
    """Trains every model of the homework; returns models, losses and results by name."""
    plan: list[tuple[str, float | None, int]] = [("auto-encoder", None, AE_EPOCHS)]
    betas = BETAS | {tuned_beta: TUNED_EPOCHS}
    plan += [(f"VAE, beta = {beta:g}", beta, epochs) for beta, epochs in betas.items()]
    models: dict[str, Model] = {}
    losses: dict[str, Losses] = {}
    seconds: dict[str, float] = {}
    epochs = {name: max(1, round(full * epochs_scale)) for name, _, full in plan}
    for name, beta, _ in plan:
        torch.manual_seed(seed)
        models[name] = (AutoEncoder(NZ) if beta is None else VAE(NZ, beta)).to(device)
        if device == "cpu":
            losses[name], seconds[name] = train(
                models[name], train_digits, epochs[name], device, name
            )
    if device != "cpu":
        start = time.perf_counter()
        images = train_digits.tensors[0].to(device)
        histories = train_together(
            list(models.values()), list(epochs.values()), images, BATCH_SIZE, LEARNING_RATE
        )
        losses |= zip(models, histories, strict=True)
        seconds = dict.fromkeys(models, time.perf_counter() - start)
    results = []
    for name, model in models.items():
        last = losses[name]["rec_loss"][-100:]
        train_mse, _ = evaluate(model, train_digits.tensors[0], device)
        test_mse, test_kl = evaluate(model, test_digits.tensors[0], device)
        mean = sum(last) / len(last)
        numbers = (mean, train_mse, test_mse, test_kl, seconds[name])
        results.append(Result(name, epochs[name], *numbers))
    return models, losses, results


def first_of_each_class(digits: TensorDataset) -> Tensor:
    """The first image of every class, (10, 1, 28, 28)."""
    images, labels = digits.tensors
    return torch.stack([images[(labels == label).nonzero()[0, 0]] for label in range(10)])


def draw(
    out: Path, models: dict[str, Model], losses: dict[str, Losses], digits: dict[str, TensorDataset]
) -> None:
    """Writes every figure of the homework to out, as PNG."""
    tests = first_of_each_class(digits["test"])
    samples = {}
    for name, model in models.items():
        model.eval()
        torch.manual_seed(0)  # the same latents for every model
        samples[name] = sample_images(model, 36, NZ)
    auto_encoder = {"auto-encoder": models["auto-encoder"]}
    vaes = {name: model for name, model in models.items() if isinstance(model, VAE)}
    tuned = list(vaes)[-1]
    pairs = [(tests[a], tests[b]) for a, b in [(0, 6), (4, 9), (2, 7)]]
    tuned_pair = {"auto-encoder": models["auto-encoder"], tuned: models[tuned]}

    def save(name: str) -> None:
        plt.savefig(out / f"{name}.png", dpi=80)
        plt.close()

    figures.show_digits({"training": digits["train"].tensors[0][:64]})
    save("training-samples")
    figures.show_losses({name: losses[name] for name in auto_encoder})
    save("ae-loss")
    figures.show_reconstructions(auto_encoder, tests)
    save("ae-reconstructions")
    figures.show_digits({name: samples[name] for name in auto_encoder}, 6)
    save("ae-samples")
    figures.show_losses({name: losses[name] for name in vaes})
    save("vae-losses")
    figures.show_reconstructions(vaes, tests)
    save("vae-reconstructions")
    figures.show_digits({name: samples[name] for name in vaes}, 6)
    save("vae-samples")
    figures.show_interpolations(tuned_pair, pairs)
    save("interpolations")


def table(results: list[Result]) -> str:
    """The results as a markdown table."""
    lines = [
        "| model | epochs | MSE, last 100 steps | MSE, training | MSE, test | KL, test (nats) "
        "| seconds |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    for result in results:
        kl = "" if result.test_kl is None else f"{result.test_kl:.3g}"
        errors = (result.logged_mse, result.train_mse, result.test_mse)
        cells = [result.model, f"{result.epochs}", *(f"{error:.4f}" for error in errors), kl]
        lines.append(f"| {' | '.join(cells)} | {result.seconds:.0f} |")
    return "\n".join(lines) + "\n"


def arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="python -m solution", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="MNIST's folder, filled if empty"
    )
    parser.add_argument(
        "--sample", action="store_true", help="use the bundled 5,000 digits; needs no network"
    )
    parser.add_argument("--out", type=Path, default=Path("results"), help="default: %(default)s")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--beta", type=float, default=TUNED_BETA, help="the tuned beta, default: %(default)s"
    )
    parser.add_argument(
        "--epochs-scale", type=float, default=1.0, help="0.1 trains a tenth as long, for a look"
    )
    return parser.parse_args()


def main() -> None:
    """Runs the homework and writes its figures and its table."""
    options = arguments()
    plt.switch_backend("agg")  # draws to files, needs no display
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = SAMPLE if options.sample else options.data
    digits = {name: load_digits(folder, name == "train") for name in ("train", "test")}
    models, losses, results = run(
        digits["train"], digits["test"], device, options.seed, options.beta, options.epochs_scale
    )
    options.out.mkdir(parents=True, exist_ok=True)
    draw(options.out, models, losses, digits)
    report = {
        "digits": {name: len(dataset) for name, dataset in digits.items()},
        "device": device,
        "torch": torch.__version__,
        "seed": options.seed,
        "results": [asdict(result) for result in results],
    }
    (options.out / "results.json").write_text(json.dumps(report, indent=2) + "\n")
    (options.out / "results.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
