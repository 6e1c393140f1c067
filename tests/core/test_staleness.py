"""What a late gradient counts."""

from __future__ import annotations

from gradserve import specs
from gradserve_service.core.staleness import weight


def test_without_a_rule_every_gradient_counts_in_full() -> None:
    """However late it is."""
    assert [weight(specs.NoStaleness(), tau) for tau in (0, 1, 1000)] == [1.0, 1.0, 1.0]


def test_inverse_is_one_over_one_plus_staleness() -> None:
    """A fresh gradient counts in full, one version late a half."""
    assert [weight(specs.Inverse(), tau) for tau in (0, 1, 3)] == [1.0, 0.5, 0.25]


def test_the_limit_is_the_machines_business() -> None:
    """max_staleness refuses; it does not change the weight."""
    assert weight(specs.Inverse(max_staleness=2), 9) == 0.1
