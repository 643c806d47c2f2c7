"""Programs of the system that some tests need: without one they are skipped, in CI they fail."""

from __future__ import annotations

import os

import pytest

REQUIRED = "AUTOGRADER_REQUIRE_ALL"


def need(thing: str, lack: str | None) -> None:
    """Skip the test at hand if something is lacking; fail it where CI says that nothing may be."""
    if lack is None:
        return
    if os.environ.get(REQUIRED):
        pytest.fail(f"{REQUIRED} is set, and this test needs {thing}: {lack}")
    pytest.skip(f"needs {thing}: {lack}")
