"""Frames between host and worker: a JSON header, then the raw bytes of its tensors.

Nothing is unpickled or evaluated. Sizes are checked before memory is taken, and whatever breaks
the form raises `WireError`. Both sides use this module; only the host has reason to distrust.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import torch

HEADER_LIMIT = 8 << 20  # bytes of JSON in a frame
BODY_LIMIT = (
    128 << 20
)  # bytes of all tensors of a frame; the host computes with copies of 8 times that
NODE_LIMIT = 400_000  # values in one message
DEPTH_LIMIT = 24  # containers within containers
TEXT_LIMIT = 4_000  # characters of a string that student code made

_CHUNK = 1 << 20  # bytes that are read at once, before more memory is taken
_LENGTHS = struct.Struct("!IQ")
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.bool,
    )
}
_PLAIN = frozenset((type(None), bool, int, float))
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class WireError(Exception):
    """A frame that is too large, cut short or not of the agreed form."""


@dataclass(frozen=True)
class Handle:
    """An object that stays in the worker: its number, and what the worker says that it is."""

    number: int
    kind: str = "object"


@dataclass(frozen=True)
class Ref:
    """A part of an object that stays in the worker, such as `outputs["rec"]`."""

    handle: Handle
    path: tuple[str | int, ...] = ()


@dataclass(frozen=True)
class Number:
    """What student code returned where `float()` works, but which is no Python number."""

    value: float


class Graph(torch.Tensor):
    """A tensor that arrived with `requires_grad` set in the worker."""


def write_frame(stream: IO[bytes], header: dict[str, Any], tensors: list[torch.Tensor]) -> None:
    """Write one message; tensors are on the CPU and contiguous."""
    described = [{"dtype": _dtype_name(t), "shape": list(t.shape)} for t in tensors]
    text = json.dumps({**header, "tensors": described}).encode()
    bodies = [_to_bytes(t) for t in tensors]
    stream.write(_LENGTHS.pack(len(text), sum(map(len, bodies))))
    stream.write(text)
    for body in bodies:
        stream.write(body)
    stream.flush()


def read_frame(
    stream: IO[bytes], header_limit: int = HEADER_LIMIT
) -> tuple[dict[str, Any], list[torch.Tensor]]:
    """Read one message; raises `EOFError` at the end, `WireError` where the form is broken."""
    header_size, body_size = _LENGTHS.unpack(_read_exactly(stream, _LENGTHS.size))
    if header_size > header_limit or body_size > BODY_LIMIT:
        raise WireError(f"a frame of {header_size} + {body_size} bytes is too large")
    try:
        text = _read_exactly(stream, header_size).decode()
        header = (_CAREFUL if _MANY_DIGITS.search(text) else _PLAIN_JSON).decode(text)
    except (ValueError, RecursionError) as error:
        raise WireError("a header is not JSON") from error
    if not isinstance(header, dict):
        raise WireError("a header is not a JSON object")
    body = _read_exactly(stream, body_size)
    return header, _split(header.get("tensors"), body)


def _integer(text: str) -> int:
    """A whole number of at most 64 bits: what is larger overflows where it is computed with."""
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError("a whole number is too large")
    return value


_PLAIN_JSON, _CAREFUL = json.JSONDecoder(), json.JSONDecoder(parse_int=_integer)
_MANY_DIGITS = re.compile("[0-9]{19}")  # at least, of a number that is too large


def _read_exactly(stream: IO[bytes], size: int) -> bytearray:
    data = bytearray(stream.read(min(size, _CHUNK)) if size else b"")
    while len(data) < size:
        chunk = stream.read(min(size - len(data), _CHUNK))
        if not chunk:
            raise EOFError
        data += chunk
    return data


def _split(described: object, body: bytearray) -> list[torch.Tensor]:
    if not isinstance(described, list) or len(described) > NODE_LIMIT:
        raise WireError("a frame does not list its tensors")
    tensors, start = [], 0
    for item in described:
        dtype, shape = _described(item)
        size = math.prod(shape) * dtype.itemsize
        if start + size > len(body):
            raise WireError("a tensor is longer than its frame")
        if size == 0:
            tensors.append(torch.empty(shape, dtype=dtype))
        else:
            part = torch.frombuffer(body, dtype=torch.uint8, count=size, offset=start)
            tensors.append(_from_bytes(part, dtype).reshape(shape))
        start += size
    if start != len(body):
        raise WireError("a frame is longer than its tensors")
    return tensors


def _described(item: object) -> tuple[torch.dtype, list[int]]:
    if not isinstance(item, dict):
        raise WireError("a tensor is not described")
    name, shape = item.get("dtype"), item.get("shape")
    if not isinstance(name, str) or name not in _DTYPES:
        raise WireError("a tensor has a dtype that is not exchanged")
    if not isinstance(shape, list) or len(shape) > 8:
        raise WireError("a tensor has no shape")
    for size in shape:
        if type(size) is not int or not 0 <= size <= BODY_LIMIT:
            raise WireError("a tensor has an impossible shape")
    if math.prod(max(size, 1) for size in shape) > BODY_LIMIT:
        raise WireError("a tensor has an impossible shape")
    return _DTYPES[name], shape


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _to_bytes(tensor: torch.Tensor) -> bytes:
    if tensor.numel() == 0:
        return b""
    flat = tensor.contiguous().reshape(-1)
    if flat.stride(0) != 1:  # a single number may have any stride, but has no bytes to view then
        flat = flat.new_empty(flat.shape).copy_(flat)
    raw: bytes = flat.view(torch.uint8).numpy().tobytes()
    return raw


def _from_bytes(raw: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if dtype is torch.bool:  # any byte but 0 and 1 would be undefined behaviour
        return raw != 0
    return raw.clone().view(dtype)  # the clone is aligned


def encode(
    value: Any, tensors: list[torch.Tensor], keep: Callable[[Any], Handle], depth: int = 0
) -> Any:
    """Turn a value into JSON; tensors go to the list `tensors`, other objects through `keep`."""
    kind = type(value)
    rule = _WAYS.get(kind)
    if rule is not None:
        return rule(value)
    if kind is Handle:
        return {"h": value.number, "k": value.kind}
    inner = depth + 1
    if isinstance(value, list | tuple) and depth < DEPTH_LIMIT:
        tag = "l" if isinstance(value, list) else "u"
        return {tag: [encode(item, tensors, keep, inner) for item in value]}
    if isinstance(value, dict) and depth < DEPTH_LIMIT:
        pairs = [
            [encode(k, tensors, keep, inner), encode(v, tensors, keep, inner)]
            for k, v in value.items()
        ]
        return {"d": pairs}
    if isinstance(value, torch.Tensor):
        return _encode_tensor(value, tensors, keep)
    if isinstance(value, Ref):
        return {"r": value.handle.number, "p": list(value.path)}
    if isinstance(value, int):
        return _whole(int(value))
    if isinstance(value, float):
        return _real(float(value))
    if isinstance(value, Number):
        return {"n": _real(value.value)}
    other = _plain(value)
    if other is not None:
        return encode(other, tensors, keep, inner)
    handle = keep(value)
    return {"h": handle.number, "k": handle.kind}


def _whole(value: int) -> Any:
    return value if abs(value) < 2**63 else {"f": "inf" if value > 0 else "-inf"}


def _real(value: float) -> Any:
    return value if math.isfinite(value) else {"f": str(value)}


# of classes that need no search, and are most of a message
_WAYS: dict[type, Callable[[Any], Any]] = {
    type(None): lambda value: None,
    bool: lambda value: value,
    int: _whole,
    float: _real,
    str: lambda value: value[:TEXT_LIMIT],
}


def _plain(value: Any) -> Number | torch.Tensor | None:
    """What numpy and its kind hold, as a number or a tensor; None for any other object."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", 0) > 0:
        try:
            return torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            return None
    if not hasattr(type(value), "__float__"):
        return None
    try:
        return Number(float(value))
    except (TypeError, ValueError, OverflowError):
        return None


def _encode_tensor(
    value: torch.Tensor, tensors: list[torch.Tensor], keep: Callable[[Any], Handle]
) -> Any:
    grad = bool(value.requires_grad)
    plain = value.detach().as_subclass(torch.Tensor)
    if plain.layout is not torch.strided or _dtype_name(plain) not in _DTYPES:
        handle = keep(value)
        return {"h": handle.number, "k": f"tensor of {plain.dtype}"}
    tensors.append(plain.cpu().contiguous())
    return {"t": len(tensors) - 1, "g": grad}


class Decoder:
    """Turns the JSON of one message back into values; raises `WireError` on any other form."""

    def __init__(
        self, tensors: list[torch.Tensor], resolve: Callable[[Handle], Any] | None = None
    ) -> None:
        """resolve: turns a handle into its object; without it handles stay, and have no parts."""
        self.tensors, self.resolve, self.nodes = tensors, resolve, 0
        self.taken: set[int] = set()  # a tensor that came many times would be more than its frame

    def __call__(self, node: Any, depth: int = 0) -> Any:
        """Decode one node."""
        try:
            return self._decoded(node, depth)
        except WireError:
            raise
        except Exception as error:  # what one rule forgets is no fault of the reader's
            raise WireError("a value has an unknown form") from error

    def _decoded(self, node: Any, depth: int) -> Any:
        self.nodes += 1
        if self.nodes > NODE_LIMIT or depth > DEPTH_LIMIT + 1:
            raise WireError("a message has too many values")
        kind = type(node)  # what JSON holds is of no other class
        if kind is str:
            return node[:TEXT_LIMIT]
        if kind in _PLAIN:
            return node
        if kind is not dict or not node:
            raise WireError("a value has an unknown form")
        tag = next(iter(node))
        rule = _RULES.get(tag)
        if rule is None:
            raise WireError("a value has an unknown form")
        return rule(self, node, depth)

    def items(self, node: Any, depth: int) -> list[Any]:
        """The decoded items of a JSON list."""
        if not isinstance(node, list):
            raise WireError("a container holds no list")
        return [self(item, depth + 1) for item in node]

    def pairs(self, node: Any, depth: int) -> dict[Any, Any]:
        """The decoded entries of a JSON list of pairs."""
        result: dict[Any, Any] = {}
        for pair in self.items([{"l": p} for p in node] if isinstance(node, list) else 0, depth):
            if len(pair) != 2:
                raise WireError("an entry is not a pair")
            key = pair[0]
            if not isinstance(key, str | int | float | bool | None):
                key = f"<key {len(result)}>"  # a tensor or an object as key: kept, but not by value
            result[key] = pair[1]
        return result

    def tensor(self, node: dict[str, Any], depth: int) -> torch.Tensor:
        """The tensor that a node points at."""
        index = node["t"]
        if type(index) is not int or not 0 <= index < len(self.tensors):
            raise WireError("a tensor is missing")
        if index in self.taken:
            raise WireError("a tensor comes twice")
        self.taken.add(index)
        found = self.tensors[index]
        return found.as_subclass(Graph) if node.get("g") is True else found

    def handle(self, node: dict[str, Any], depth: int) -> Any:
        """The object that a node points at."""
        number, kind = node["h"], node.get("k", "object")
        if type(number) is not int or not isinstance(kind, str):
            raise WireError("a handle has no number")
        found = Handle(number, kind[:80])
        return found if self.resolve is None else self.resolve(found)

    def ref(self, node: dict[str, Any], depth: int) -> Any:
        """The part of an object that a node points at."""
        if self.resolve is None or type(node["r"]) is not int or type(node.get("p")) is not list:
            raise WireError("a reference has no path")
        found = self.resolve(Handle(node["r"]))
        for step in node["p"]:
            found = found[step]
        return found

    def number(self, node: dict[str, Any], depth: int) -> Number:
        """A number-like value."""
        value = self(node["n"], depth + 1)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WireError("a number is no number")
        return Number(float(value))

    def non_finite(self, node: dict[str, Any], depth: int) -> float:
        """NaN or an infinity, which JSON lacks."""
        value = _NON_FINITE.get(node["f"]) if isinstance(node["f"], str) else None
        if value is None:
            raise WireError("a float is no float")
        return value


_RULES: dict[str, Callable[[Decoder, dict[str, Any], int], Any]] = {
    "t": Decoder.tensor,
    "h": Decoder.handle,
    "r": Decoder.ref,
    "n": Decoder.number,
    "f": Decoder.non_finite,
    "l": lambda decoder, node, depth: decoder.items(node["l"], depth),
    "u": lambda decoder, node, depth: tuple(decoder.items(node["u"], depth)),
    "d": lambda decoder, node, depth: decoder.pairs(node["d"], depth),
}
