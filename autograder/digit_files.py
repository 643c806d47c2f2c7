"""The digits that come with the checks, a sample of MNIST."""

import functools
import gzip
from pathlib import Path

import torch
from torch import Tensor

FOLDER = Path(__file__).resolve().parent / "digits"


@functools.cache
def digits(part: str) -> Tensor:
    """The bundled digits of a part, `train` or `t10k`; (N, 1, 28, 28) in [0, 1]."""
    content = gzip.decompress((FOLDER / f"{part}-images-idx3-ubyte.gz").read_bytes())
    pixels = torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=16)
    return pixels.view(-1, 1, 28, 28).float() / 255
