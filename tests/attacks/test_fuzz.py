"""What students hand in, spoilt at random, is read or refused as promised; see `tools.fuzz`."""

from __future__ import annotations

import json
import random

import pytest

from tools import fuzz


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_spoilt_input_is_read_or_refused(target: str) -> None:
    assert fuzz.findings(target, 0, 2000) == []


def test_what_is_neither_read_nor_refused_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(text: str) -> object:
        return json.loads(text)["ready"]

    def spoil(rng: random.Random) -> None:
        careless(fuzz.spoilt_json('{"ready": {}}', rng))

    monkeypatch.setitem(fuzz.TARGETS, "careless", spoil)
    found = fuzz.findings("careless", 0, 200)
    assert any("JSONDecodeError" in text for text in found)
    assert any("KeyError" in text for text in found)
