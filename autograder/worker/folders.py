"""Folders of the machine where a notebook was written, not of this one: made as they are needed.

In a box alone, where they are in memory, and gone with it. Files that are read are not made up.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def make_as_needed() -> None:
    """Let files be written, and weights saved, into folders that there are none of."""
    builtins.open = io.open = _making(builtins.open)
    torch.save = _saving(torch.save)


def _making(opens: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(opens)
    def opening(file: Any, mode: Any = "r", *args: Any, **kwargs: Any) -> Any:
        try:
            return opens(file, mode, *args, **kwargs)
        except FileNotFoundError:
            if not set(mode) & set("wax"):
                raise
            _make_parent(file)
            return opens(file, mode, *args, **kwargs)

    return opening


def _saving(saves: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(saves)
    def saving(content: Any, f: Any, *args: Any, **kwargs: Any) -> Any:
        _make_parent(f)
        return saves(content, f, *args, **kwargs)

    return saving


def _make_parent(file: Any) -> None:
    if isinstance(file, str | os.PathLike):
        with contextlib.suppress(OSError, ValueError, TypeError):
            Path(os.fspath(file)).parent.mkdir(parents=True, exist_ok=True)
