"""What the tests share: whether there is a sandbox, and whether there must be one."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

from autograder import sandbox

torch.set_num_threads(1)  # tests run side by side
settings.register_profile("tests", deadline=None, database=None)  # no verdict by the clock
settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole-corpus", action="store_true", help="grade all of the student work")


@pytest.fixture
def box() -> None:
    """Skips a test of the sandbox where there is none; fails where CI says there must be."""
    reason = sandbox.missing()
    if reason is None:
        return
    if os.environ.get("AUTOGRADER_REQUIRE_SANDBOX"):
        pytest.fail(f"A sandbox is required here, but {reason}.")
    pytest.skip(f"needs the sandbox: {reason}")
