"""What the notebook's functions and classes are written with: a hint for messages, no evidence."""

from __future__ import annotations

import dis
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

import torch

import absent

_DEPTH = 3  # helper functions followed
_LARGEST = 1024
_MOST = 40  # constants told
_NESTED = 2  # containers, one in the other, that numbers are looked for in


def variables(target: Any, namespace: dict[str, Any]) -> dict[str, Any]:
    """Variables of the notebook that a function or class reads, itself or through helpers.

    Numbers by value; of other variables only what they are: module, tensor, value, undefined, or
    absent, of a package that is not here.
    """
    bases = vars(target).get("__orig_bases__", ()) if isinstance(target, type) else ()
    found: dict[str, Any] = {b.__name__: "absent" for b in bases if isinstance(b, absent.Absent)}
    for code, _ in _codes(target, namespace, set(), 0):
        for name in _global_names(code):
            kind = _kind(name, namespace)
            if kind is not None:
                found[name] = kind
    return dict(sorted(found.items()))


def _kind(name: str, namespace: dict[str, Any]) -> Any:
    if name not in namespace:
        return None if name in vars(sys.modules["builtins"]) else "undefined"
    value = namespace[name]
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, torch.nn.Module) and any(True for _ in value.parameters()):
        return "module"  # a loss or an activation is another function
    if isinstance(value, torch.Tensor):
        return "tensor"
    if isinstance(value, absent.Absent):
        return "value" if isinstance(value, absent.AbsentData) else "absent"
    return None if callable(value) or isinstance(value, types.ModuleType) else "value"


def constants(target: Any, namespace: dict[str, Any]) -> list[int | float]:
    """Numbers in the code of a function or class, or of its helpers: sizes first, and fractions.

    Those of its defaults and of the variables that it reads are among them. Without their signs:
    `losses[-100:]` names a size.
    """
    found = set[int | float]()
    for code, defaults in _codes(target, namespace, set(), 0):
        read = [namespace[name] for name in _global_names(code) if name in namespace]
        found.update(_numbers([*code.co_consts, *defaults, *read], _NESTED))
    return sorted(found, key=lambda n: (type(n) is float, n))[:_MOST]


def _numbers(values: Iterable[Any], depth: int) -> Iterator[int | float]:
    """The numbers among values and in containers among them; the sizes of tensors."""
    for value in values:
        if isinstance(value, torch.Tensor):
            value = tuple(value.shape)
        if type(value) in (int, float) and 0 < abs(value) <= _LARGEST:
            yield abs(value)
        elif depth and type(value) in (tuple, list, dict) and len(value) <= _MOST:
            yield from _numbers(value.values() if type(value) is dict else value, depth - 1)


def _codes(
    target: Any, namespace: dict[str, Any], seen: set[int], depth: int
) -> Iterator[tuple[types.CodeType, list[Any]]]:
    """The code of a function or class and of the notebook's functions that it calls.

    With the defaults of the arguments.
    """
    if id(target) in seen or depth > _DEPTH:
        return
    seen.add(id(target))
    if isinstance(target, type):
        for part in list(vars(target).values()):
            yield from _codes(part, namespace, seen, depth)
        return
    if isinstance(target, property):
        target = target.fget
    target = getattr(target, "__func__", getattr(target, "__wrapped__", target))
    code = target if isinstance(target, types.CodeType) else getattr(target, "__code__", None)
    if not isinstance(code, types.CodeType) or not code.co_filename.startswith("<cell "):
        return
    named = getattr(target, "__kwdefaults__", None) or {}
    yield code, [*(getattr(target, "__defaults__", None) or ()), *named.values()]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant, namespace, seen, depth)
    for name in _global_names(code):
        if isinstance(namespace.get(name), types.FunctionType):
            yield from _codes(namespace[name], namespace, seen, depth + 1)


def _global_names(code: types.CodeType) -> set[str]:
    return {
        i.argval
        for i in dis.get_instructions(code)
        if i.opname in ("LOAD_GLOBAL", "LOAD_NAME") and isinstance(i.argval, str)
    }
