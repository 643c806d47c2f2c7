"""Comparing tensors that came from a worker: any shape, dtype or value gives an answer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autograder.worker.wire import Handle, Number


def close(seen: Any, expected: Tensor, tolerance: float = 1e-4) -> bool:
    """Whether `seen` is a tensor of the expected shape, within tolerance of the largest value."""
    if not isinstance(seen, Tensor) or seen.shape != expected.shape:
        return False
    ours, theirs = expected.detach().double(), plain(seen)
    scale = max(float(ours.abs().max()), 1.0) if ours.numel() else 1.0
    return bool(((ours - theirs).abs() <= tolerance * scale).all())


def plain(seen: Tensor) -> Tensor:
    """A tensor in double precision, without its graph."""
    return seen.detach().as_subclass(torch.Tensor).double()


def described(value: Any) -> str:
    """What a value is, in a student's words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Handle):
        return f"an object of class {value.kind.removeprefix('module ')}"
    if isinstance(value, Number):
        return "a number"
    return "nothing" if value is None else f"a {type(value).__name__}"


def number(value: Any) -> float | None:
    """What `float()` would make of a value: None where it would not."""
    if isinstance(value, Number):
        return value.value
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value.detach().double())
    if isinstance(value, int | float):
        return float(value)
    return None
