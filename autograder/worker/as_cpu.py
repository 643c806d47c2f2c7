"""A GPU that is the CPU, to see what else is right in code that asks for a GPU by its name."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_CPU = torch.device("cpu")
_GPUS = ("cuda", "mps", "xpu", "xla")


class GpuIsCpu(TorchFunctionMode):
    """Makes on the CPU, or copies there, what is asked for on a GPU."""

    def __torch_function__(
        self, func: Any, kinds: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.cuda:
            return args[0].clone()
        moves = func is torch.Tensor.to
        asked = [kwargs.get("device"), *(args[1:2] if moves else ())]
        args = tuple(
            _CPU if _is_gpu(a, moves and place == 1) else a for place, a in enumerate(args)
        )
        if _is_gpu(kwargs.get("device"), True):
            kwargs["device"] = _CPU
        found = func(*args, **kwargs)
        moved = moves and any(_is_gpu(device, True) for device in asked)
        return found.clone() if moved and found is args[0] else found


def begin(until: contextlib.ExitStack) -> None:
    """Let there be a GPU of that kind, for as long as `until` is open."""
    until.enter_context(GpuIsCpu())
    for name in ("synchronize", "set_device"):
        setattr(torch.cuda, name, lambda *args, **kwargs: None)
    torch.cuda.current_device = lambda: 0


def _is_gpu(asked: Any, is_device: bool) -> bool:
    """Whether a device is a GPU; a number or a word is one only where a device belongs."""
    if isinstance(asked, torch.device):
        return asked.type in _GPUS
    if not is_device or isinstance(asked, bool):
        return False
    return isinstance(asked, int) or (isinstance(asked, str) and asked.startswith(_GPUS))
