"""Draws the bundled sample of real digits: `python -m solution.sample FOLDER`.

FOLDER holds the four files of the whole MNIST, gzipped or as torchvision unpacks them.
The sample's training digits come from MNIST's training digits, its test digits from
MNIST's test digits, the same number of every class, in an order that a seed decides.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import numpy as np

from solution.data import SAMPLE, load_digits

PER_CLASS = {"train": 400, "t10k": 100}


def choose(labels: np.ndarray, per_class: int, generator: np.random.Generator) -> np.ndarray:
    """Indices of per_class items of every class, in random order."""
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    chosen = [generator.choice(members, per_class, replace=False) for members in classes]
    return generator.permutation(np.concatenate(chosen))


def write_idx(path: Path, values: np.ndarray) -> None:
    """Writes bytes as a gzipped idx file, the same bytes on every run."""
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    content = header + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content, compresslevel=9, mtime=0))


def make_sample(folder: Path, out: Path, seed: int) -> None:
    """Writes the sample's four files, drawn from the whole MNIST in folder, to out."""
    out.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for name, per_class in PER_CLASS.items():
        images, labels = (part.numpy() for part in load_digits(folder, name == "train").tensors)
        chosen = choose(labels, per_class, generator)
        pixels = np.rint(images[chosen, 0] * 255)
        write_idx(out / f"{name}-images-idx3-ubyte.gz", pixels)
        write_idx(out / f"{name}-labels-idx1-ubyte.gz", labels[chosen])


def main() -> None:
    """Parses the command line and writes the sample."""
    parser = argparse.ArgumentParser(prog="python -m solution.sample", description=__doc__)
    parser.add_argument("folder", type=Path, help="the whole MNIST")
    parser.add_argument("--out", type=Path, default=SAMPLE, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    arguments = parser.parse_args()
    make_sample(arguments.folder, arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
