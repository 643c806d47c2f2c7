"""Train the classifier that judges samples: `python -m tools.train_classifier [--data DIR]`.

Writes autograder/classifier.safetensors.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import track
from safetensors.torch import save_file

from autograder.quality import WEIGHTS, Classifier
from solution.data import load_digits, make_data_loader

EPOCHS, BATCH_SIZE, RATE, DECAY = 8, 128, 2e-3, 1e-3


def main() -> None:
    """Train on the training digits, report the accuracy on the test digits, and save."""
    parser = argparse.ArgumentParser(prog="python -m tools.train_classifier", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="MNIST's folder")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Classifier()
    loader = make_data_loader(load_digits(options.data, train=True), BATCH_SIZE)
    steps = EPOCHS * len(loader)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2 * RATE, total_steps=steps)
    for _ in track(range(EPOCHS), "epochs"):
        for images, labels in loader:
            shift = torch.randint(-2, 3, (2,)).tolist()
            logits = model(images.roll(shift, (2, 3)))
            optimizer.zero_grad()
            F.cross_entropy(logits, labels, label_smoothing=0.05).backward()
            optimizer.step()
            schedule.step()
    images, labels = load_digits(options.data, train=False).tensors
    with torch.no_grad():
        accuracy = (model.eval()(images).argmax(1) == labels).double().mean()
    save_file(model.state_dict(), WEIGHTS)
    print(f"{accuracy:.2%} of {len(labels)} test digits right; {WEIGHTS.stat().st_size} bytes")


if __name__ == "__main__":
    main()
