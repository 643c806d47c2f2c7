"""The operations of one call, as a list that the host can run again: a claim, not evidence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

OPERATION_LIMIT = 2_000
CONSTANT_LIMIT = 1_000_000  # numbers in a tensor that is neither input, weight nor result


class Tape(TorchDispatchMode):
    """Records every operation below autograd, whatever the style of the code above it.

    Tensors are numbered as they appear: the input is 0, then parameters, buffers, results.
    """

    def __init__(self, module: Any, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[dict[str, Any]] = []
        self.numbers: dict[int, int] = {}
        self.alive: list[Tensor] = []  # keeps ids from being used twice
        self.values: dict[int, Tensor] = {}
        self.names: dict[int, str] = {}
        self._number(image)
        if isinstance(module, nn.Module):
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
                number = self._number(tensor)
                self.names[number] = name
                self.values[number] = tensor.detach().clone()

    def _number(self, tensor: Tensor) -> int:
        if id(tensor) not in self.numbers:
            self.numbers[id(tensor)] = len(self.alive)
            self.alive.append(tensor)
        return self.numbers[id(tensor)]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        described = [self._describe(a, value=True) for a in args]
        named = {k: self._describe(v, value=True) for k, v in (kwargs or {}).items()}
        result = func(*args, **(kwargs or {}))
        if len(self.operations) < OPERATION_LIMIT:
            self.operations.append(
                {
                    "op": str(func),
                    "args": described,
                    "kwargs": named,
                    "out": self._describe(result, value=False),
                }
            )
        return result

    def _describe(self, item: Any, value: bool) -> Any:
        if isinstance(item, Tensor):
            known = id(item) in self.numbers
            number = self._number(item)
            if value and not known and item.numel() <= CONSTANT_LIMIT:
                self.values[number] = item.detach().clone()
            return {"tensor": number, "shape": list(item.shape)}
        if isinstance(item, list | tuple):
            return [self._describe(part, value) for part in item]
        if item is None or isinstance(item, bool | int | float | str):
            return item
        return {"symbol": str(item)}


@contextlib.contextmanager
def without_dropout() -> Iterator[None]:
    """Let no dropout do anything in the block, whatever the mode."""
    kept = [
        (home, name, getattr(home, name))
        for home in (torch, nn.functional)
        for name in dir(home)
        if "dropout" in name and not name.startswith("_")
    ]
    for home, name, _ in kept:
        setattr(home, name, lambda input, *_, **__: input)
    try:
        yield
    finally:
        for home, name, before in kept:
            setattr(home, name, before)


def trace(module: Any, image: Tensor) -> dict[str, Any]:
    """Call `module(image)` and tell its operations, weights and result."""
    tape = Tape(module, image)
    error, result = None, None
    try:
        with tape:
            result = module(image)
    except Exception as raised:
        error = raised
    named = dict(module.named_parameters()) if isinstance(module, nn.Module) else {}
    trained = {name for name, parameter in named.items() if parameter.requires_grad}
    return {
        "operations": tape.operations,
        "values": [[k, v] for k, v in tape.values.items()],
        "names": [[k, v] for k, v in tape.names.items()],
        "trained": [k for k, v in tape.names.items() if v in trained],
        "frozen": [k for k, v in tape.names.items() if v in named and v not in trained],
        "result": tape.numbers.get(id(result), -1) if isinstance(result, Tensor) else -1,
        "output": result,
        "error": error,
    }
