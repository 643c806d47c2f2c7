"""The figures of the homework; each function leaves its figure as pyplot's current one."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from solution.models import VAE, AutoEncoder, interpolate


def draw_digits(axes: Axes, images: Tensor, columns: int) -> None:
    """Draws images (N, 1, 28, 28) in [0, 1] in rows of `columns`, two pixels apart."""
    rows = -(-len(images) // columns)
    canvas = np.ones((rows * 30 - 2, columns * 30 - 2))
    for index, image in enumerate(images.detach().cpu().numpy()):
        top, left = 30 * (index // columns), 30 * (index % columns)
        canvas[top : top + 28, left : left + 28] = image[0]
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=1)
    axes.axis("off")


def show_digits(panels: Mapping[str, Tensor], columns: int = 8) -> None:
    """One panel of digits, (N, 1, 28, 28) in [0, 1], for every title, side by side."""
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 4.4), squeeze=False)
    for panel, (title, images) in zip(axes[0], panels.items(), strict=True):
        draw_digits(panel, images, columns)
        panel.set_title(title, fontsize=10)
    figure.tight_layout()


def show_rows(rows: Sequence[tuple[str, Tensor]]) -> None:
    """One row of digits, (N, 1, 28, 28) in [0, 1], below the other, each with its label."""
    figure, axes = plt.subplots(len(rows), 1, figsize=(10, 0.85 * len(rows)), squeeze=False)
    for row, (label, images) in zip(axes[:, 0], rows, strict=True):
        draw_digits(row, images, len(images))
        row.text(-0.02, 0.5, label, ha="right", va="center", transform=row.transAxes)
    figure.subplots_adjust(left=0.2, right=0.99, bottom=0.01, top=0.99, hspace=0.08)


def show_reconstructions(models: Mapping[str, "AutoEncoder | VAE"], images: Tensor) -> None:
    """The images, (N, 1, 28, 28), in one row, and below it each model's reconstructions."""
    rows = [("input", images)]
    for name, model in models.items():
        model.eval()  # batch normalisation then uses the averages of the training
        with torch.no_grad():
            on_device = images.to(next(model.parameters()).device)
            rows.append((name, model.reconstruct(on_device)))
    show_rows(rows)


def show_losses(runs: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """For every run, side by side, its losses step by step, faint, and their running mean."""
    names = list(next(iter(runs.values())))
    size = (4 * len(runs), 2.6 * len(names))
    figure, axes = plt.subplots(len(names), len(runs), figsize=size, squeeze=False, sharex="col")
    for column, (title, losses) in enumerate(runs.items()):
        for row, name in enumerate(names):
            values = np.asarray(losses[name])
            width = min(50, len(values) // 10 + 1)
            means = np.convolve(values, np.ones(width) / width, mode="valid")
            panel = axes[row, column]
            panel.plot(values, color="C0", alpha=0.25, linewidth=0.5)
            panel.plot(np.arange(len(means)) + (width - 1) / 2, means, color="C0")
            panel.set_yscale("log")
            panel.set_title(f"{title}: {name}", fontsize=10)
        axes[-1, column].set_xlabel("step")
    figure.tight_layout()


def show_interpolations(
    models: Mapping[str, "AutoEncoder | VAE"],
    pairs: Sequence[tuple[Tensor, Tensor]],
    num_steps: int = 10,
) -> None:
    """For every pair of images (1, 28, 28) one row a model: from the one digit to the other."""
    for model in models.values():
        model.eval()
    show_rows(
        [
            (name, interpolate(model, start, end, num_steps))
            for start, end in pairs
            for name, model in models.items()
        ]
    )
