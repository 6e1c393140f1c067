"""What a late gradient counts."""

from __future__ import annotations

import pytest

from gradserve import specs
from gradserve_service.core.staleness import weight


def test_without_a_rule_every_gradient_counts_in_full() -> None:
    """However late it is."""
    assert [weight(specs.NoStaleness(), tau) for tau in (0, 1, 1000)] == [1.0, 1.0, 1.0]


def test_inverse_is_one_over_one_plus_staleness() -> None:
    """A fresh gradient counts in full, one version late a half."""
    assert [weight(specs.Inverse(), tau) for tau in (0, 1, 3)] == [1.0, 0.5, 0.25]


@pytest.mark.parametrize(
    ("spec", "weights"),
    [
        (specs.DivideStaleness(), {0: 1.0, 1: 1.0, 2: 0.5, 5: 0.2}),
        (specs.PolynomialStaleness(), {0: 1.0, 3: 0.5, 8: 1 / 3}),
        (specs.PolynomialStaleness(a=2.0), {0: 1.0, 1: 0.25, 3: 1 / 16}),
        (specs.PolynomialStaleness(a=0.0), {7: 1.0}),
        (specs.HingeStaleness(), {0: 1.0, 4: 1.0, 5: 1 / 11, 6: 1 / 21}),
        (specs.HingeStaleness(a=0.5, b=0), {0: 1.0, 2: 0.5}),
        (specs.ExponentialStaleness(a=0.5), {0: 1.0, 2: 0.36787944117144233, 10**6: 0.0}),
    ],
    ids=repr,
)
def test_the_other_rules_are_their_formulas(spec: specs.StalenessSpec, weights: dict[int, float]) -> None:
    """By hand, at a few delays."""
    assert {tau: weight(spec, tau) for tau in weights} == pytest.approx(weights, rel=1e-15)


@pytest.mark.parametrize("declared", specs.STALENESS.built.values(), ids=lambda declared: declared.__name__)
def test_the_later_the_less(declared: type[specs.StalenessSpec]) -> None:
    """A fresh gradient counts in full, and none counts more than a fresher one."""
    found = [weight(declared(), tau) for tau in range(200)]
    assert found[0] == 1.0
    assert found == sorted(found, reverse=True)
    assert found[-1] >= 0.0


def test_the_limit_is_the_machines_business() -> None:
    """max_staleness refuses; it does not change the weight."""
    assert weight(specs.Inverse(max_staleness=2), 9) == 0.1
