"""MNIST, from the network, a folder or the bundled sample, and batches of it."""

import gzip
import importlib
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

SAMPLE = Path(__file__).resolve().parents[1] / "autograder" / "digits"
_operators: list[torch.library.Library] = []  # what they define goes when they are collected


def import_datasets() -> ModuleType:
    """Imports torchvision.datasets, also where a CUDA torchvision meets a CPU torch.

    Raises ImportError where there is no torchvision.
    """
    try:
        return importlib.import_module("torchvision.datasets")
    except RuntimeError:  # "operator torchvision::nms does not exist"
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _operators.append(library)
        return importlib.import_module("torchvision.datasets")


def unpack_digits(source: str | Path, root: str | Path) -> None:
    """Unpacks the gzipped idx files of source to where torchvision.datasets.MNIST(root) looks."""
    raw = Path(root) / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    packed_files = sorted(Path(source).glob("*-ubyte.gz"))
    if len(packed_files) != 4:
        raise FileNotFoundError(f"{source} should hold four files *-ubyte.gz of digits")
    for packed in packed_files:
        (raw / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))


def read_idx(path: Path) -> Tensor:
    """Reads an idx file of bytes: (N, 28, 28) pixels or (N,) labels, uint8."""
    content = path.read_bytes()
    axes = content[3]  # two zeros, the type (8: unsigned byte), the number of axes
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an idx file of bytes")
    shape = np.frombuffer(content, ">u4", count=axes, offset=4)
    pixels = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    return torch.from_numpy(pixels.reshape([int(side) for side in shape]).copy())


def load_digits(folder: str | Path, train: bool) -> TensorDataset:
    """Loads the training or test digits: (N, 1, 28, 28) floats in [0, 1], (N,) labels.

    folder holds MNIST's four files as torchvision lays them out (MNIST/raw/) or gzipped;
    if it holds neither, torchvision downloads them into it.
    """
    if any(Path(folder).glob("*-ubyte.gz")):
        with tempfile.TemporaryDirectory() as root:
            unpack_digits(folder, root)
            return load_digits(root, train)
    raw = Path(folder) / "MNIST" / "raw"
    name = "train" if train else "t10k"
    try:
        datasets = import_datasets()
    except ImportError:
        if not raw.is_dir():
            raise FileNotFoundError(
                f"no MNIST in {folder}, and torchvision, which would download it, is not installed"
            ) from None
        images = read_idx(raw / f"{name}-images-idx3-ubyte")
        labels = read_idx(raw / f"{name}-labels-idx1-ubyte")
    else:
        mnist = datasets.MNIST(folder, train=train, download=not raw.is_dir())
        images, labels = mnist.data, mnist.targets
    return TensorDataset(images.unsqueeze(1) / 255, labels.long())


def make_data_loader(
    dataset: Dataset[Any], batch_size: int, num_workers: int = 0
) -> DataLoader[Any]:
    """A loader over the whole dataset, in batches of batch_size, reshuffled every epoch."""
    ### BEGIN SOLUTION
    return DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=num_workers)
    ### END SOLUTION
