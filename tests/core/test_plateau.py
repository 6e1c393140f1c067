"""Reduce on plateau: the three styles count differently, and each is exact (golden/schedules.json has long runs)."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from gradserve import specs
from gradserve_service.core.plateau import PlateauState, after_report, rate


def rates(spec: Any, values: list[float], lr: float = 1.0) -> list[float]:
    state, found = PlateauState(), []
    for value in values:
        state = after_report(spec, state, value, lr)
        found.append(rate(spec, state, lr))
    return found


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("torch", [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]),  # the third bad report
        ("keras", [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125]),  # the second
        ("optax", [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125]),
    ],
)
def test_patience_is_borne_or_used_up(style: str, expected: list[float]) -> None:
    """patience 2: torch reduces at the (patience + 1)-th bad report, Keras and optax at the patience-th."""
    spec = specs.ReduceOnPlateau(style=style, factor=0.5, patience=2)  # type: ignore[arg-type]
    assert rates(spec, [1.0] * 7) == expected


@pytest.mark.parametrize(
    ("style", "falls_at"),
    [("torch", [2, 6, 10]), ("keras", [1, 3, 5, 7, 9, 11]), ("optax", [1, 4, 7, 10])],
)
def test_a_cooldown_counts_as_its_library_does(style: str, falls_at: list[int]) -> None:
    """patience 1, cooldown 2: whether its last report counts differs."""
    spec = specs.ReduceOnPlateau(style=style, factor=0.5, patience=1, cooldown=2)  # type: ignore[arg-type]
    found = [1.0, *rates(spec, [1.0] * 12)]
    assert [i for i in range(12) if found[i + 1] < found[i]] == falls_at


def test_an_improvement_must_pass_the_threshold() -> None:
    """Relative to the best, or absolute; larger is better in mode max; NaN never is."""
    relative = specs.ReduceOnPlateau(factor=0.5, patience=0, threshold=0.1)
    assert rates(relative, [10.0, 8.9, 8.1]) == [1.0, 1.0, 0.5]
    absolute = specs.ReduceOnPlateau(factor=0.5, patience=0, threshold=0.1, threshold_mode="abs")
    assert rates(absolute, [10.0, 9.8, 9.75]) == [1.0, 1.0, 0.5]
    rising = specs.ReduceOnPlateau(factor=0.5, patience=0, mode="max", threshold=0.1)
    assert rates(rising, [10.0, 11.5, 11.6]) == [1.0, 1.0, 0.5]
    assert rates(relative, [10.0, float("nan"), 8.0]) == [1.0, 0.5, 0.5]


def test_the_rate_stops_at_its_floor() -> None:
    """min_lr is reached and not passed; a base rate below it stays what it is."""
    spec = specs.ReduceOnPlateau(factor=0.1, patience=0, min_lr=0.05)
    assert rates(spec, [1.0] * 4) == [1.0, 0.1, 0.05, 0.05]
    assert rates(spec, [1.0] * 4, lr=0.01) == [0.01] * 4


def test_reductions_smaller_than_eps_are_left_out() -> None:
    """torch's eps: 1e-8."""
    spec = specs.ReduceOnPlateau(factor=0.5, patience=0, eps=0.2)
    assert rates(spec, [1.0] * 4) == [1.0, 0.5, 0.25, 0.25]


def test_a_changed_base_rate_keeps_the_reductions() -> None:
    """The state is a factor, not a rate."""
    spec = specs.ReduceOnPlateau(factor=0.5, patience=0)
    state = after_report(spec, after_report(spec, PlateauState(), 1.0, 1.0), 1.0, 1.0)
    assert rate(spec, state, 1.0) == 0.5
    assert rate(spec, state, 0.2) == 0.1


def test_reports_are_averaged() -> None:
    """every 2: the mean of two counts as one, as optax' accumulation_size does."""
    spec = specs.ReduceOnPlateau(style="optax", factor=0.5, patience=1, every=2)
    assert rates(spec, [3.0, 1.0, 0.0, 5.0, 1.0, 1.0]) == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]


def test_the_state_is_json() -> None:
    """It will be in control state and in images."""
    spec = specs.ReduceOnPlateau(factor=0.1, patience=1, every=2, cooldown=3)
    state = PlateauState()
    for value in (1.0, 0.3, 0.1, 0.7, 2.0):
        state = after_report(spec, state, value, 0.3)
        assert PlateauState(**json.loads(json.dumps(asdict(state)))) == state
