"""Aggregation: the order of the gradients does not matter, and a few wrong ones do not matter much."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradserve_service.core import aggregation as rules

Rule = Callable[[np.ndarray], np.ndarray]
ROBUST: dict[str, Rule] = {
    "median": rules.median,
    "trimmed_mean": rules.trimmed_mean,
    "krum": lambda rows: rules.krum(rows, 2),
    "multi_krum": lambda rows: rules.krum(rows, 2, 3),
    "bulyan": lambda rows: rules.bulyan(rows, 2),
    "geometric_median": lambda rows: rules.geometric_median(rows, 20),
}
ALL: dict[str, Rule] = {
    **ROBUST,
    "mean": rules.mean,
    "norm_bound": rules.norm_bound,
    "majority_vote": rules.majority_vote,
    "centered_clip": lambda rows: rules.centered_clip(rows, np.zeros(rows.shape[1]), 2.0),
}


def gradients(seed: int, n: int = 11, size: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, size))


@pytest.mark.parametrize("rule", ALL.values(), ids=ALL)
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_the_order_of_the_gradients_does_not_matter(rule: Rule, seed: int) -> None:
    """Up to the rounding of sums."""
    rows = gradients(seed)
    shuffled = np.random.default_rng(seed + 1).permutation(rows)
    assert rule(shuffled) == pytest.approx(rule(rows), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("rule", ROBUST.values(), ids=ROBUST)
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), size=st.sampled_from([1e3, 1e6, -1e6]))
def test_two_wild_gradients_of_eleven_move_the_result_by_the_spread_of_the_others_at_most(
    rule: Rule, seed: int, size: float
) -> None:
    """By coordinate it stays where the honest ones are (the geometric median: within their distance of each other)."""
    rows = gradients(seed)
    honest = rows[2:].copy()
    rows[:2] = size
    slack = np.ptp(honest, axis=0).max() if rule is ROBUST["geometric_median"] else 1e-12
    assert np.all(rule(rows) >= honest.min(axis=0) - slack)
    assert np.all(rule(rows) <= honest.max(axis=0) + slack)


def test_the_mean_is_that_of_all_samples() -> None:
    """Mean gradients of 1 and 3 samples."""
    rows = np.array([[1.0, 2.0], [5.0, -2.0]], np.float32)
    assert rules.mean(rows, [1, 3]).tolist() == [4.0, -1.0]
    assert rules.mean(rows).dtype == np.float32


@pytest.mark.parametrize(("n", "middle"), [(1, 5.0), (2, 4.0), (3, 5.0), (4, 4.5)])
def test_the_median_of_few(n: int, middle: float) -> None:
    """Of an even number, half way between the two in the middle."""
    assert rules.median(np.array([[5.0], [3.0], [9.0], [4.0]])[:n]).tolist() == [middle]


def test_trimming_takes_the_ends_of_each_coordinate() -> None:
    """floor(0.2 · 5) = 1 of each end."""
    assert rules.trimmed_mean(np.array([[9.0], [1.0], [2.0], [3.0], [-9.0]])).tolist() == [2.0]
    assert rules.trimmed_mean(np.array([[1.0], [2.0]])).tolist() == [1.5]


def test_krum_is_one_of_the_gradients_and_counts_a_twin_as_another() -> None:
    """Two equal outliers are at distance 0 of each other; each still has to stand the nearest three of the rest."""
    rows = np.array([[0.0], [2.0], [3.0], [4.5], [9.0], [50.0], [50.0]])
    assert rules.krum(rows, 2).tolist() == [2.0]  # 1 + 4 + 6.25 from 2; 1 + 2.25 + 9 from 3
    assert rules.krum(rows, 2, 3).tolist() == pytest.approx([9.5 / 3])


def test_the_geometric_median_of_three_points_of_a_line_is_the_middle_one() -> None:
    """The mean is not."""
    rows = np.array([[0.0, 0.0], [1.0, 1.0], [10.0, 10.0]])
    assert rules.geometric_median(rows, 200) == pytest.approx([1.0, 1.0], abs=1e-3)


def test_norms_are_bounded_by_their_median() -> None:
    """Norms 1, 2 and 100: the last counts with 2."""
    rows = np.array([[1.0, 0.0], [0.0, 2.0], [100.0, 0.0]])
    assert rules.norm_bound(rows) == pytest.approx([1.0, 2 / 3])


def test_a_centre_moves_by_tau_at_most() -> None:
    """One near, one far: the ways 1 and 3 instead of 100."""
    rows, before = np.array([[11.0], [110.0]]), np.array([10.0])
    assert rules.centered_clip(rows, before, 3.0) == pytest.approx([12.0])
    assert rules.centered_clip(rows, rows[0], 1e9) == pytest.approx([60.5])


def test_signs_are_voted_on() -> None:
    """A tie is nothing."""
    assert rules.majority_vote(np.array([[1.0, -9.0, 2.0], [5.0, -1.0, -2.0]])).tolist() == [1.0, -1.0, 0.0]


@pytest.mark.parametrize(
    "short", [lambda r: rules.krum(r, 2), lambda r: rules.bulyan(r, 1), lambda r: rules.trimmed_mean(r, 0.5)]
)
def test_too_few_gradients_are_refused(short: Rule) -> None:
    """The promise needs a number of honest ones."""
    with pytest.raises(ValueError, match="expected at least"):
        short(gradients(1, 6))


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coordinates are independent, so their results are those of one block."""
    rows = gradients(3, 11, 100)
    whole = {name: rule(rows) for name, rule in ALL.items() if name in ("mean", "median", "trimmed_mean")}
    monkeypatch.setattr(rules, "BLOCK", 9)
    for name, expected in whole.items():
        assert ALL[name](rows).tobytes() == expected.tobytes()
    assert math.isfinite(float(rules.geometric_median(rows).sum()))
