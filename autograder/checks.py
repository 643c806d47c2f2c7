"""How a check is written: a pytest function with a task, a name and points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

F = TypeVar("F", bound=Callable[..., Any])


def check(task: str, id: str, points: float) -> Callable[[F], F]:
    """Mark a test as the check `id` of a task; its docstring says what is promised."""
    return pytest.mark.check(task, id, points)
