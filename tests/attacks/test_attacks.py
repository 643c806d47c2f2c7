"""Every attack fails: no undeserved point, no lost honest one, no fault, no trace, in time."""

from __future__ import annotations

import pytest

from tests.attacks import claims, endings, forgeries, patches, tensors
from tests.attacks.attack import Attack, assert_holds

ATTACKS = [attack for module in (endings, forgeries, patches, tensors, claims) for attack in module.ATTACKS]


@pytest.mark.usefixtures("box")
@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_attack(attack: Attack) -> None:
    assert_holds(attack)
