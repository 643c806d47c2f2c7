"""Answers of a worker, changed at random: what a student could make the host read."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from random import Random
from typing import Any
from unittest import mock

import torch

from autograder.submission import Submission
from autograder.worker.wire import Graph, Handle, Number

_SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 64, 784, 2**31, 2**63 - 1, -(2**63)),
    *(
        0.0,
        -0.0,
        0.5,
        1e-300,
        1e300,
        math.nan,
        math.inf,
        -math.inf,
        "",
        "text",
        "q",
        "aten.add.Tensor",
    ),
    *(
        Number(1.0),
        Number(math.nan),
        Number(math.inf),
        Handle(0),
        Handle(3, "module"),
        Handle(10**9),
    ),
    *([], (), {}, [None], (1, 2), {"q": 1}, {1: 2, None: 3}, [[[[1]]]], [0.5] * 1000),
)
_DTYPES = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool)


def changed(value: Any, random: Random) -> Any:
    """Another value: unlike this one, or like it but for a part."""
    if random.random() < 0.25:
        return _anything(random)
    if isinstance(value, torch.Tensor):
        return _changed_tensor(value, random)
    if isinstance(value, dict) and value:
        return _changed_entries(value, random)
    if isinstance(value, list | tuple) and value:
        return type(value)(_changed_items(list(value), random))
    if isinstance(value, int | float) and random.random() < 0.7:
        return random.choice((-value, value + 1, 2 * value, value * 10**6, value // 2))
    return _anything(random)


def _anything(random: Random) -> Any:
    if random.random() < 0.6:
        return random.choice(_SCALARS)
    shape = [random.choice((0, 1, 1, 2, 3, 7, 28, 64)) for _ in range(random.randrange(5))]
    return _changed_tensor(torch.rand(shape) if math.prod(shape) < 10**6 else torch.rand(1), random)


def _changed_tensor(value: torch.Tensor, random: Random) -> Any:
    value = value.clone()
    kind = random.randrange(14)
    if kind == 0:
        return value.to(random.choice(_DTYPES))
    if kind == 1:
        return value.unsqueeze(random.randrange(value.dim() + 1))
    if kind == 2:
        return value.flatten()
    if kind == 3:
        return value[:0] if value.dim() else value
    if kind == 4 and value.dim():
        return value[: random.randrange(len(value) + 1)]
    if kind == 5 and value.dim():
        return torch.cat([value, value])
    if kind == 6 and value.dim() > 1:
        return value.transpose(0, random.randrange(1, value.dim()))
    if kind in (7, 8) and value.is_floating_point():
        return torch.full_like(value, random.choice((math.nan, math.inf, -math.inf, 1e38, 0.0)))
    if kind == 9 and value.is_floating_point() and value.numel():
        value.flatten()[random.randrange(value.numel())] = random.choice((math.nan, math.inf, 1e30))
        return value
    if kind == 10:
        return value.as_subclass(Graph)
    if kind == 11:
        return value * random.choice((0, -1, 2, 100))
    if kind == 12 and value.numel():
        return value.flatten()[0]
    return torch.rand(value.shape)


def _changed_entries(value: dict[Any, Any], random: Random) -> Any:
    made = dict(value)
    key = random.choice(list(made))
    kind = random.randrange(5)
    if kind == 0:
        del made[key]
    elif kind == 1:
        made[random.choice((1, None, "extra", ""))] = _anything(random)
    elif kind == 2:
        return list(made.items())
    else:
        made[key] = changed(made[key], random)
    return made


def _changed_items(items: list[Any], random: Random) -> list[Any]:
    place, kind = random.randrange(len(items)), random.randrange(8)
    if kind == 0:
        del items[place]
    elif kind == 1:
        items.insert(place, items[random.randrange(len(items))])
    elif kind == 2:
        items = items[::-1]
    elif kind == 3:
        items = items[:place]
    else:
        items[place] = changed(items[place], random)
    return items


@contextlib.contextmanager
def forging(seed: int, rate: float) -> Iterator[list[str]]:
    """Change a part of all answers, chosen by the seed; tells the operations that were answered."""
    random, ask, told = Random(seed), Submission.ask, list[str]()

    def forged(self: Submission, op: str, args: list[Any], seconds: float | None = None) -> Any:
        value = ask(self, op, args, seconds)
        if random.random() < rate:
            told.append(op)
            return changed(value, random)
        return value

    with mock.patch.object(Submission, "ask", forged):
        yield told
