"""Tensors on a device that no machine has, to see on any machine what is moved and what is not."""

from __future__ import annotations

import sys
import types
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from standins import MISMATCH

# torch asks of every tensor with a dispatch of its own whether it is a DTensor, and would import
# what defines them: half a second, for a class that no notebook of this homework uses.
if "torch.distributed.tensor" not in sys.modules:
    _absent = types.ModuleType("torch.distributed.tensor")
    _absent.DTensor = type("DTensor", (), {})  # type: ignore[attr-defined]
    sys.modules["torch.distributed.tensor"] = _absent


# a tensor on a GPU may be indexed by one on the CPU
_INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)


class Elsewhere(torch.Tensor):
    """A tensor that works with its like alone, until it is moved to a device that there is."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Elsewhere:
        made: Elsewhere = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=torch.device("meta"), strides=inner.stride()
        )
        made.held = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({tuple(self.shape)})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, kinds: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        here: list[torch.Tensor] = []

        def opened(item: Any) -> Any:
            if isinstance(item, cls):
                return item.held
            if isinstance(item, torch.Tensor) and item.dim() > 0:
                here.append(item)
            return item

        device = (kwargs or {}).get("device")
        moves = device is not None and torch.device(device).type != "meta"
        args, kwargs = tree_map(opened, (args, dict(kwargs or {})))
        if func is torch.ops.aten.copy_.default:
            return func(*args, **kwargs)  # a copy moves, too
        if here and not moves and func not in _INDEXING:
            raise RuntimeError(f"{MISMATCH}, but found two")
        if device is not None:
            kwargs["device"] = torch.device("cpu")
        found = func(*args, **kwargs)
        return found if moves else tree_map(_closed, found)


class Away(torch.nn.Parameter):
    """A parameter on a device without memory, that says that it is on a GPU.

    Whoever asks it where to draw is then refused by CUDA, which is not here, or follows it to the
    device without memory; who does not ask is left with tensors on the CPU.
    """

    is_cuda = True
    device = torch.device("cuda", 0)

    def get_device(self) -> int:
        """The number of the GPU."""
        return 0


class Undrawn(TorchFunctionMode):
    """Draws nothing on a device without memory: torch imports half of its compiler to do so."""

    def __torch_function__(
        self, func: Any, kinds: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        nowhere = device is not None and torch.device(device).type == "meta"
        if nowhere and func in (torch.randn, torch.rand):
            func = torch.empty
            kwargs.pop("generator", None)
        return func(*args, **kwargs)


def _closed(item: Any) -> Any:
    return Elsewhere(item) if isinstance(item, torch.Tensor) else item
