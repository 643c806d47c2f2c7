"""The layers of the student's own network, called one by one where a stand-in is the whole.

A VAE may run its encoder in stages, `self.encoder.fc(self.encoder.features(x))`. The layers are
the student's, and run. But the last one answers as the stand-in does for what the first was given,
as long as it is handed what the network itself would hand it; any other use of a layer keeps the
layer's own answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Read = Callable[[Tensor], Tensor]  # a layer's answer, read off the network's
KEPT = 8  # inputs that are remembered


def connect(network: nn.Module, whole: Read, example: Tensor) -> None:
    """Let the last layers of a network answer as `whole` does.

    network: the student's own. whole: the stand-in. example: three inputs of both.
    """
    _disturb_norms(network)
    calls, answer = _traced(network, example)
    given: deque[_Given] = deque(maxlen=KEPT)
    asking: list[bool] = []  # not empty while the network itself is asked

    def remember(_: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor) and not asking:
            rows = args[0].numel() // example[0].numel()
            if rows * example[0].numel() == args[0].numel():
                given.append(_Given(args[0].reshape(rows, *example.shape[1:])))

    def answers(read: Read) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], own: Tensor) -> Tensor | None:
            if asking or not args:
                return None
            asking.append(True)
            try:
                found = next((g for g in reversed(given) if g.leads_to(network, layer, args)), None)
            finally:
                asking.pop()
            return None if found is None else read(found.answer(whole)).reshape(own.shape)

        return hook

    reads = {layer: read for layer in calls if (read := _reading(calls[layer], answer))}
    for layer, passes in calls.items():
        if any(_same(entered, example) for entered, _ in passes):
            layer.register_forward_pre_hook(remember)
        if layer in reads and not any(m in reads for m in layer.modules() if m is not layer):
            layer.register_forward_hook(answers(reads[layer]))


def _disturb_norms(network: nn.Module) -> None:
    """Give norms that have seen nothing yet an effect, so that it shows where one is left out."""
    draws = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_var is not None:
            drawn = torch.rand(layer.num_features, generator=draws) + 0.5
            layer.running_var.copy_(drawn)


class _Given:
    """What a first layer was given, and the stand-in's answer to it."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self._calls: dict[nn.Module, list[tuple[Tensor, Tensor]]] | None = None
        self._answer: Tensor | None = None

    def leads_to(self, network: nn.Module, layer: nn.Module, args: tuple[Any, ...]) -> bool:
        """Whether the network itself, given this, would hand this to the layer."""
        if self._calls is None:
            self._calls, _ = _traced(network, self.x)
        return any(_same(entered, args[0]) for entered, _ in self._calls.get(layer, []))

    def answer(self, whole: Read) -> Tensor:
        """The stand-in is asked once, however many layers make up the answer."""
        if self._answer is None:
            self._answer = whole(self.x)
        return self._answer


def _traced(
    network: nn.Module, x: Tensor
) -> tuple[dict[nn.Module, list[tuple[Tensor, Tensor]]], Tensor]:
    """What went in and out of every layer while a network was given x, and what it answered."""
    calls: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}
    entered: dict[nn.Module, Tensor] = {}  # copies, since an activation may write in place

    def before(layer: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            entered[layer] = args[0].clone()

    def after(layer: nn.Module, _: Any, made: Any) -> None:
        if layer in entered and isinstance(made, Tensor):
            calls.setdefault(layer, []).append((entered.pop(layer), made.clone()))

    layers = [layer for layer in network.modules() if layer is not network]
    hooks = [layer.register_forward_pre_hook(before) for layer in layers]
    hooks += [layer.register_forward_hook(after) for layer in layers]
    try:
        with torch.no_grad():
            return calls, network(x)
    finally:
        for hook in hooks:
            hook.remove()


def _same(a: Any, b: Any) -> bool:
    """Whether two tensors hold the same numbers, in whatever shape."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or a.numel() != b.numel():
        return False
    return torch.allclose(a.detach().flatten(), b.detach().flatten(), atol=1e-6, equal_nan=True)


def _reading(calls: list[tuple[Tensor, Tensor]], answer: Tensor) -> Read | None:
    """How a layer's answer is read off the network's, if it is one of the last."""
    made = calls[-1][1]
    if len(made) != len(answer):
        return None
    if _same(made, answer):
        return lambda whole: whole
    if _same(made.sigmoid(), answer):
        return torch.logit
    flat, columns = answer.flatten(1), made.flatten(1)
    width = columns.shape[1]
    if not 0 < width < flat.shape[1]:
        return None
    # of a part, such as one of two heads
    starts = (
        torch.isclose(flat[0, : flat.shape[1] - width + 1], columns[0, 0])
        .nonzero()
        .flatten()
        .tolist()
    )
    start = next((i for i in starts if _same(flat[:, i : i + width], columns)), None)
    return None if start is None else lambda whole: whole.flatten(1)[:, start : start + width]
