"""Schedules against their closed forms, at every boundary and past the end. k counts applied updates."""

from __future__ import annotations

import math

import pytest

from gradserve import specs
from gradserve_service.core.schedules import resolve


def lr_at(schedule: object, k: int, lr: float = 0.1) -> float:
    rate, momentum = resolve(schedule, lr, k)  # type: ignore[arg-type]
    assert momentum is None
    return rate


@pytest.mark.parametrize("k", [0, 1, 10**6])
def test_a_constant_rate_and_no_schedule_are_the_same(k: int) -> None:
    """null is constant."""
    assert lr_at(None, k) == lr_at(specs.Constant(), k) == 0.1


WARMUP = specs.WarmupCosine(warmup_steps=10, total_steps=110, start=0.01, end=0.02)


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (0, 0.01),  # the first update has the rate `start`
        (5, 0.055),
        (9, 0.091),
        (10, 0.1),  # the peak, at k = warmup_steps
        (35, 0.02 + 0.08 * (1 + math.sqrt(0.5)) / 2),
        (60, 0.06),  # half way down, in the middle of the decay
        (110, 0.02),  # the end
        (111, 0.02),  # and it stays: no bounce
        (10**9, 0.02),
    ],
)
def test_warmup_cosine_at_its_corners(k: int, expected: float) -> None:
    """Up in a line, down half a cosine, then still."""
    assert lr_at(WARMUP, k) == pytest.approx(expected, rel=1e-15)


def test_the_warmup_may_start_one_step_up() -> None:
    """warmup_offset 1: the first update is not wasted, the peak comes at k = warmup_steps - 1 and stays there once."""
    early = WARMUP.model_copy(update={"warmup_offset": 1})
    assert [lr_at(early, k) for k in (0, 9, 10)] == pytest.approx([0.019, 0.1, 0.1], rel=1e-15)


def test_no_warmup_is_a_cosine_from_the_first_update() -> None:
    """torch.optim.lr_scheduler.CosineAnnealingLR(T_max=N), which bounces after N; here it holds."""
    cosine = specs.WarmupCosine(warmup_steps=0, total_steps=500)
    for k in range(500):
        assert lr_at(cosine, k) == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi * k / 500)), abs=1e-16)
    assert lr_at(cosine, 500) == lr_at(cosine, 501) == 0.0


def test_a_decay_of_one_update_falls_at_once() -> None:
    """The shortest schedule: peak, end."""
    shortest = specs.WarmupCosine(warmup_steps=1, total_steps=2, end=0.01)
    assert [lr_at(shortest, k) for k in (0, 1, 2, 3)] == [0.0, 0.1, 0.01, 0.01]


def test_the_rate_never_leaves_the_lines_between_start_peak_and_end() -> None:
    """Rising before the peak, falling after it."""
    rates = [lr_at(WARMUP, k) for k in range(130)]
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert min(rates) == 0.01
    assert max(rates) == 0.1


@pytest.mark.parametrize("c", [0.0, 0.5, 1.0, 2.0])
def test_power_scheduling_is_the_documents_formula(c: float) -> None:
    """lr / (1 + k/s)^c, for k from 0 on."""
    schedule = specs.Power(s=20.0, c=c)
    for k in range(501):
        assert lr_at(schedule, k) == pytest.approx(0.1 / (1 + k / 20.0) ** c, rel=1e-15)
    assert lr_at(schedule, 0) == 0.1
    assert lr_at(schedule, 20) == pytest.approx(0.1 / 2**c, rel=1e-15)


def test_a_power_beyond_all_measure_is_zero_and_not_an_error() -> None:
    """The decider must never raise for a value that the spec lets pass."""
    assert lr_at(specs.Power(s=1e-300, c=1e6), 2**53) == 0.0


def test_a_changed_base_rate_scales_the_schedule() -> None:
    """PATCH lr changes the base; the schedule multiplies on."""
    assert lr_at(specs.Power(s=10.0), 10, lr=0.4) == 0.2
