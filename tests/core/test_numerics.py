"""The golden updates that every server does at its start."""

from __future__ import annotations

import numpy as np
import pytest

from gradserve_service.core import numerics
from gradserve_service.core.optimizers import RULES

EVERYWHERE = [name for name, rule in RULES.items() if rule.every_machine]


def test_every_optimizer_has_its_golden_digest_and_gives_it_here():
    """A new optimizer gets a line in `GOLDEN`, with what `golden_digest` of its name answers.

    Not one with matrix products: its bits are those of one type of machine."""
    assert {name: numerics.golden_digest(name) for name in EVERYWHERE} == dict(numerics.GOLDEN)
    assert numerics.complaints() == []


@pytest.mark.parametrize("name", EVERYWHERE)
def test_a_single_bit_shows(name, monkeypatch):
    """One unit in the last place of one weight after the last update changes the digest, and names the optimizer."""
    straight = numerics.apply_update

    def bent(rule, clip, *, next_weights, step, **rest):
        statistics = straight(rule, clip, next_weights=next_weights, step=step, **rest)
        if step == numerics.UPDATES:
            next_weights[5] = np.nextafter(next_weights[5], np.float32(9))
        return statistics

    monkeypatch.setattr(numerics, "apply_update", bent)
    assert any(name in complaint for complaint in numerics.complaints())


def test_flushed_denormals_are_complained_of(monkeypatch):
    monkeypatch.setattr(numerics, "flushes_denormals", lambda: True)
    assert any("-ffast-math" in complaint for complaint in numerics.complaints())
