"""Where the training on digits runs: on the CPU, or on a GPU that CUDA reaches.

Exact checks stay on the CPU, whatever is asked: they take milliseconds there, and a process that
has used CUDA cannot fork. A GPU is given to a worker of its own, and can only spare a student
time: what does not pass there is run on the CPU, whose verdict counts.
"""

from __future__ import annotations

CHOICES = ("auto", "cpu", "cuda")


class NoDevice(Exception):
    """The device asked for cannot be had; the message says why."""


def chosen(asked: str) -> str:
    """`cpu` or `cuda`, for one of `CHOICES`; raises `NoDevice`."""
    if asked == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if asked == "auto":
        return "cpu"
    reason = "torch finds no GPU that CUDA reaches"
    if torch.version.cuda is None:
        reason = f"torch {torch.__version__} is built without CUDA"
    raise NoDevice(f"{reason}; --device cpu does without")
