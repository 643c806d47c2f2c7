"""How the student's VAE speaks: in what its forward and its loss give, and what the loss takes.

A tuple where a dict is promised is charged where it is returned. The model that `train_vae` is
handed then gives the same, so that a loop written for the one is not charged for it again.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from autograder.compare import close, number, plain
from autograder.outcomes import Stopped, Unchecked
from autograder.worker.standins import PROMISED_OUTPUTS, PROMISED_RETURNS
from autograder.worker.wire import Graph, Ref

Path = tuple[str | int, ...]
Form = Any  # the containers of a value, with a name in the place of each tensor or number
LONGEST = 5  # arguments that are tried in another order
LARGEST = 200  # values that are given a name, and containers, of a whole that is handed on
KEYS = {"rec": "rec_loss", "mse": "rec_loss", "kl": "kl_loss"}  # what a part of a key says


@dataclass(frozen=True)
class Interface:
    """What a model's forward gives, what its loss takes and what that gives.

    outputs, returns: see `standins.TinyVariational`. numbers: what the terms of the loss are:
    graph, detached or float. takes: the arguments of the loss: x first, outputs first, or each
    output apart. device_object: whether a training is told its device by a `torch.device`, as it
    may not take a string.
    """

    outputs: Form = None
    returns: Form = None
    numbers: str = "graph"
    takes: str = "x first"
    device_object: bool = False

    @property
    def promised(self) -> bool:
        """Whether it is the one that the contract has."""
        return (
            (self.outputs or PROMISED_OUTPUTS, self.returns or PROMISED_RETURNS)
            == (PROMISED_OUTPUTS, PROMISED_RETURNS)
            and self.numbers == "graph"
            and self.takes == "x first"
        )

    @property
    def arguments(self) -> list[Any]:
        """Those of a stand-in that speaks so."""
        return [self.numbers, self.outputs, self.returns, self.takes]


@dataclass(frozen=True)
class Call:
    """A call of forward, with an object of the worker's: x, what was returned, and what of it is q.

    x: (B, 1, 28, 28). q: (B, 2 nz). z: the latent that was decoded, (B, nz). images: the path to
    the images. beta: the model's.
    """

    x: Tensor
    handle: Any
    output: Any
    q: Tensor
    z: Tensor | None
    images: Path | None
    beta: float = 1.0

    @property
    def error(self) -> float | None:
        """The mean squared error of the images that were returned."""
        image = self.output
        for step in self.images or ():
            image = image[step]
        if self.images is None or not isinstance(image, Tensor) or image.numel() != self.x.numel():
            return None
        return float((plain(image).flatten() - plain(self.x).flatten()).square().mean())


def learn(call: Call, loss: Callable[..., Any]) -> Interface:
    """The interface of a model; loss: calls its loss, and raises `Unchecked`."""
    outputs = _outputs(call)
    try:
        told, takes = _call_loss(call, loss)
    except Unchecked:
        return Interface(outputs)
    names = _names(told, call)
    terms = ("rec_loss", "kl_loss")
    kinds = {_kind(value) for path, value in _leaves(told) if names.get(path) in terms}
    numbers = kinds.pop() if len(kinds) == 1 else "graph"
    return Interface(outputs, _returns(told, names), numbers, takes)


def _inside(value: Any) -> list[tuple[Any, Any]] | None:
    """What a container holds, with the steps that lead there; None of what is none."""
    if isinstance(value, dict):
        return [
            (k, v) for k, v in itertools.islice(value.items(), LARGEST) if type(k) in (str, int)
        ]
    if isinstance(value, tuple | list):
        return list(enumerate(value[:LARGEST]))
    return None


def _leaves(value: Any) -> list[tuple[Path, Any]]:
    """Whatever is no container, with the path that leads to it: the outer ones, if there are many.

    In the order in which they stand.
    """
    found: list[tuple[tuple[int, ...], Path, Any]] = []
    coming: deque[tuple[tuple[int, ...], Path, Any]] = deque([((), (), value)])
    for _ in range(2 * LARGEST):
        if not coming:
            break
        place, path, part = coming.popleft()
        inside = _inside(part)
        if inside is None:
            found.append((place, path, part))
            continue
        for i, (step, held) in enumerate(inside):
            coming.append(((*place, i), (*path, step), held))
    found.sort(key=lambda leaf: leaf[0])
    return [(path, part) for _, path, part in found]


def _form(value: Any, names: dict[Path, str]) -> Form:
    """The value with names in the place of what is in it; what is too much is left empty."""
    left = [LARGEST]

    def made(part: Any, path: Path) -> Form:
        inside = _inside(part)
        left[0] -= 1
        if inside is None or left[0] < 0:
            return names.get(path)
        held = {step: made(within, (*path, step)) for step, within in inside}
        return held if isinstance(part, dict) else type(part)(held.values())

    return made(value, ())


def _outputs(call: Call) -> Form:
    """What forward gives; None where a loop could not find images and q in it."""
    names: dict[Path, str] = {}
    halves = ["first", "second"]
    for path, value in _leaves(call.output):
        if path == call.images:
            names[path] = "rec"
        elif close(value, call.q):
            names[path] = "q"
        elif isinstance(value, Tensor):
            is_half = value.shape == (len(call.q), call.q.shape[1] // 2)
            is_latent = call.z is not None and close(value, call.z)
            fits = is_half and not is_latent and halves
            names[path] = halves.pop(0) if fits else "first"
            if value.shape == call.q.shape:  # such as a code that was clamped
                names[path] = "q"
    form = _form(call.output, names)
    if isinstance(form, dict):
        containers = {k: part for k, part in form.items() if isinstance(part, dict | list | tuple)}
        return {**form, **PROMISED_OUTPUTS, **containers}
    given = set(names.values())
    return form if "rec" in given and ("q" in given or {"first", "second"} <= given) else None


def _call_loss(call: Call, loss: Callable[..., Any]) -> tuple[Any, str]:
    """What the loss returns, and how it takes its arguments."""
    whole = Ref(call.handle)
    ways = [("x first", [call.x, whole]), ("outputs first", [whole, call.x])]
    parts = [Ref(call.handle, p) for p, v in _leaves(call.output) if isinstance(v, Tensor) and p]
    if 1 < len(parts) < LONGEST:
        ways += [("apart", list(order)) for order in itertools.permutations([call.x, *parts])]
    failed: Unchecked | None = None
    for takes, arguments in ways:
        try:
            return loss(*arguments), takes
        except Stopped:
            raise
        except Unchecked as error:
            failed = failed or error
    assert failed is not None
    raise failed


def _kind(value: Any) -> str:
    if isinstance(value, Graph):
        return "graph"
    return "detached" if isinstance(value, Tensor) else "float"


def _names(told: Any, call: Call) -> dict[Path, str]:
    """What each number in what a loss returned is; see `standins.TinyVariational`."""
    found = {p: v for p, value in _leaves(told) if (v := number(value)) is not None}
    names: dict[Path, str] = {}
    for path in sorted(found, key=lambda path: len(str(path[-1:]))):  # `kl` before `weighted_kl`
        if (name := _by_key(path)) is not None and name not in names.values():
            names[path] = name
    listed = Counter(path[:-1] for path in found)
    unnamed = [p for p in found if not p or (isinstance(p[-1], int) and listed[p[:-1]] <= 3)]
    names |= dict(zip(unnamed, _by_order([found[p] for p in unnamed], call), strict=False))
    known = {name: found[path] for path, name in names.items()}
    if "total" not in known:  # then it is the first that nothing is known of, or what says so
        others = [path for path in found if path not in names]
        others.sort(key=lambda path: not re.search("total|loss", str(path[-1:])))
        if others:
            known["total"] = found[others[0]]
    if "total" in known:
        known["minus total"] = -known["total"]
    if "kl_loss" in known:
        known["weighted"] = call.beta * known["kl_loss"]
    for path, value in found.items():
        same = (n for n, v in known.items() if math.isclose(value, v, rel_tol=1e-5))
        names.setdefault(path, next(same, "other"))
    totals = [path for path in found if names[path] == "total"]
    return names | dict.fromkeys(totals[1:], "total again")


def _by_key(path: Path) -> str | None:
    """What the key of a number says of it; the promised keys say it of themselves."""
    key = str(path[-1]).lower() if path and isinstance(path[-1], str) else ""
    return next((name for part, name in KEYS.items() if part in key), None)


def _by_order(values: list[float], call: Call) -> list[str]:
    """What numbers without a key are: in the usual order, but that the squared error shows."""
    error = call.error
    at = [i for i, v in enumerate(values) if error is not None and abs(v - error) <= 1e-4 * error]
    if at[:1] == [0]:
        return ["rec_loss", "kl_loss", "total"]
    if at[:1] == [2] or (at[:1] == [1] and len(values) == 2):
        return ["total", "kl_loss", "rec_loss"][-len(values) :]
    return ["total", "rec_loss", "kl_loss"]


def _returns(told: Any, names: dict[Path, str]) -> Form:
    """What the loss gives; None where a loop could not find what is to be minimised in it."""
    form = _form(told, names)
    if isinstance(form, tuple | list) and len(form) == 2 and isinstance(form[1], dict):
        return ("total", {**PROMISED_RETURNS[1], **form[1]})
    given = set(names.values())
    return form if "total" in given or {"rec_loss", "kl_loss"} <= given else None
