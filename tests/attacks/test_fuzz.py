"""What students hand in, spoilt at random, is read or refused as promised; see `tools.fuzz`."""

from __future__ import annotations

import pytest

from tools import fuzz


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_spoilt_input_is_read_or_refused(target: str) -> None:
    assert fuzz.findings(target, 0, 2000) == []
