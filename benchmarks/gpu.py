"""Measure on a GPU: `python -m benchmarks.gpu --data MNIST [--out FILE]`.

The homework's 40 epochs as `python -m solution` trains them, against the notebook's own loop; and
a grading that trains on the GPU.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from benchmarks.__main__ import grade_command, seconds_of
from solution import VAE, AutoEncoder, load_digits, make_data_loader, train_autoencoder, train_vae
from solution.__main__ import AE_EPOCHS, BATCH_SIZE, BETAS, LEARNING_RATE, NZ, TUNED_EPOCHS
from solution.data import unpack_digits
from solution.together import train_together
from solution.training import TUNED_BETA, Progress
from tests.mutants import REFERENCE

VAE_EPOCHS = BETAS | {TUNED_BETA: TUNED_EPOCHS}
EPOCHS = AE_EPOCHS + sum(VAE_EPOCHS.values())


def on_gpu(work: Callable[[], object]) -> float:
    """Seconds until the GPU is done, too."""

    def all_of_it() -> None:
        work()
        torch.cuda.synchronize()

    torch.cuda.synchronize()
    return seconds_of(all_of_it)


def own_loop(folder: Path) -> float:
    """Seconds of the notebook's loops for all epochs, from one of the AE and one of the VAE.

    Loader, transform and progress bar are the notebook's. A short training comes first, for what
    comes once.
    """
    from torchvision import datasets, transforms

    mnist = datasets.MNIST(str(folder), train=True, transform=transforms.ToTensor())
    loader: DataLoader[object] = make_data_loader(mnist, BATCH_SIZE)
    few = [(torch.rand(BATCH_SIZE, 1, 28, 28), torch.zeros(BATCH_SIZE))] * 20
    ae, vae = AutoEncoder(NZ).cuda(), VAE(NZ, TUNED_BETA).cuda()
    train_autoencoder(ae, few, 1, LEARNING_RATE, "cuda")
    train_vae(vae, few, 1, LEARNING_RATE, "cuda")
    bar = Progress(loader, 2)
    one = on_gpu(lambda: train_autoencoder(ae, bar, 1, LEARNING_RATE, "cuda"))
    other = on_gpu(lambda: train_vae(vae, bar, 1, LEARNING_RATE, "cuda"))
    return AE_EPOCHS * one + sum(VAE_EPOCHS.values()) * other


def together(folder: Path) -> float:
    """Seconds of all epochs of all models, from the digits in host memory to the losses."""
    digits = load_digits(folder, train=True).tensors[0]

    def train() -> None:
        models: list[AutoEncoder | VAE] = [AutoEncoder(NZ)]
        models += [VAE(NZ, beta) for beta in VAE_EPOCHS]
        for model in models:
            model.cuda()
        epochs = [AE_EPOCHS, *VAE_EPOCHS.values()]
        train_together(models, epochs, digits.cuda(), BATCH_SIZE, LEARNING_RATE)

    return on_gpu(train)


def peak_of(work: Callable[[], object]) -> int:
    """Bytes of GPU memory that are taken at most while something runs, beyond those before."""
    done = threading.Event()
    before = lowest = torch.cuda.mem_get_info()[0]

    def watch() -> None:
        nonlocal lowest
        while not done.wait(0.05):
            lowest = min(lowest, torch.cuda.mem_get_info()[0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return before - lowest


def report(folder: Path) -> str:
    """What was measured, as a page."""
    loops = [own_loop(folder)]
    all_models = together(folder)
    loops.append(own_loop(folder))
    loop = sum(loops) / 2
    with tempfile.TemporaryDirectory() as beside:
        notebook = Path(beside) / "vae.ipynb"
        notebook.write_bytes(REFERENCE.read_bytes())
        on_cpu = seconds_of(lambda: grade_command(notebook, "--device", "cpu"))
        taken: list[float] = []
        peak = peak_of(
            lambda: taken.append(seconds_of(lambda: grade_command(notebook, "--device", "cuda")))
        )
    rows = [
        (f"the {EPOCHS} epochs of `python -m solution`", f"{all_models:.1f} s", "under a minute"),
        (
            f"the notebook's own loop, its loader and `ToTensor`, for {EPOCHS} epochs",
            f"{loop:.0f} s ({loops[0]:.0f} before, {loops[1]:.0f} after; from one epoch of each)",
            "",
        ),
        ("the second against the first", f"{loop / all_models:.1f}", "at least 20"),
        ("`autograder grade --device cuda`", f"{taken[0]:.1f} s", ""),
        ("`autograder grade --device cpu` beside it", f"{on_cpu:.1f} s", ""),
        ("GPU memory that grading took at most", f"{peak / 2**20:.0f} MiB", "at most 8 GiB"),
    ]
    lines = [
        "# How fast it is on a GPU",
        "",
        f"Written by `python -m benchmarks.gpu` on one {torch.cuda.get_device_name()} beside "
        f"{os.cpu_count()} {platform.machine()} cores,",
        f"torch {torch.__version__}.",
        "",
        "| what | measured | goal |",
        "| --- | --: | --: |",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder with MNIST's four files")
    parser.add_argument("--out", type=Path, help="where the page is written to, too")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("torch finds no GPU that CUDA reaches")
    with tempfile.TemporaryDirectory() as folder:
        unpack_digits(options.data, folder)
        page = report(Path(folder))
    if options.out:
        options.out.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
