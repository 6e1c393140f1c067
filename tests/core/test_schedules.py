"""Schedules against their closed forms, at every boundary and past the end. k counts applied updates."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gradserve import specs
from gradserve_service.core.schedules import counted, resolve


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


BOUNDARIES: list[tuple[Any, dict[int, float]]] = [
    (specs.Step(step_size=30), {0: 0.1, 29: 0.1, 30: 0.01, 31: 0.01, 59: 0.01, 60: 0.001}),
    (specs.Step(step_size=1, gamma=0.0), {0: 0.1, 1: 0.0, 10**9: 0.0}),
    (
        specs.PiecewiseConstant(boundaries=(5, 9), values=(3.0, 2.0, 1.0)),
        {0: 3, 4: 3, 5: 2, 6: 2, 8: 2, 9: 1, 10**9: 1},
    ),
    (
        specs.PiecewiseConstant(boundaries=(5, 9), values=(3.0, 2.0, 1.0), right_closed=True),
        {0: 3, 4: 3, 5: 3, 6: 2, 9: 2, 10: 1, 10**9: 1},
    ),
    (specs.PiecewiseConstant(boundaries=(), values=(3.0,)), {0: 3, 10**9: 3}),
    (specs.Exponential(decay_rate=0.5, decay_steps=10), {0: 0.1, 10: 0.05, 20: 0.025, 10**9: 0.0}),
    (
        specs.Exponential(decay_rate=0.5, decay_steps=10, staircase=True),
        {9: 0.1, 10: 0.05, 11: 0.05, 19: 0.05, 20: 0.025},
    ),
    (specs.Exponential(decay_rate=0.5, begin=3), {0: 0.1, 2: 0.1, 3: 0.1, 4: 0.05, 5: 0.025}),
    (specs.Exponential(decay_rate=0.5, end=0.03), {1: 0.05, 2: 0.03, 10**9: 0.03}),
    (specs.Exponential(decay_rate=2.0, end=0.3), {0: 0.1, 1: 0.2, 2: 0.3, 10**9: 0.3}),
    (specs.InverseTime(decay_rate=1.0), {0: 0.1, 1: 0.05, 3: 0.025, 9: 0.01}),
    (specs.InverseTime(decay_rate=1.0, decay_steps=5, staircase=True), {4: 0.1, 5: 0.05, 9: 0.05, 10: 0.1 / 3}),
    (specs.Polynomial(total_steps=10), {0: 0.1, 5: 0.05, 9: 0.01, 10: 0.0, 11: 0.0, 10**9: 0.0}),
    (specs.Polynomial(total_steps=10, end=0.02, power=2.0), {0: 0.1, 5: 0.04, 10: 0.02, 11: 0.02}),
    (specs.Polynomial(total_steps=10, begin=4), {4: 0.1, 5: 0.09, 13: 0.01, 14: 0.0}),
    (specs.Polynomial(total_steps=10, cycle=True), {0: 0.1, 9: 0.01, 10: 0.0, 11: 0.045, 20: 0.0, 21: 0.03}),
    (specs.Linear(), {0: 0.1 / 3, 4: 0.1 * (1 / 3 + 8 / 15), 5: 0.1, 6: 0.1, 10**9: 0.1}),
    (specs.Linear(start_factor=0.0, end_factor=2.0, total_steps=10), {0: 0.0, 5: 0.1, 9: 0.18, 10: 0.2, 11: 0.2}),
    (specs.Cosine(total_steps=10, end=0.02), {0: 0.1, 5: 0.06, 10: 0.02, 11: 0.02, 10**9: 0.02}),
    (specs.Cosine(total_steps=10, end_factor=0.5), {0: 0.1, 5: 0.075, 10: 0.05}),
    (specs.Cosine(total_steps=10, exponent=2.0), {0: 0.1, 5: 0.025, 10: 0.0}),
    (specs.Cosine(total_steps=10, end=0.02, after="bounce"), {10: 0.02, 15: 0.06, 20: 0.1, 25: 0.06, 30: 0.02}),
    (specs.ClientOwned(), {0: 0.1, 10**9: 0.1}),
    (specs.MultiStep(milestones=(9, 5, 9), gamma=0.5), {4: 0.1, 5: 0.05, 8: 0.05, 9: 0.0125, 10**9: 0.0125}),
    (specs.MultiStep(milestones=()), {0: 0.1, 10**9: 0.1}),
    (specs.ConstantFactor(factor=0.5, total_steps=3), {0: 0.05, 2: 0.05, 3: 0.1, 10**9: 0.1}),
    (specs.CosineRestarts(first_steps=4, end=0.02), {0: 0.1, 2: 0.06, 4: 0.1, 6: 0.06, 4 * 10**9: 0.1}),
    (specs.CosineRestarts(first_steps=4, t_mul=2.0), {0: 0.1, 4: 0.1, 8: 0.05, 12: 0.1, 20: 0.05, 28: 0.1}),
    (specs.CosineRestarts(first_steps=4, m_mul=0.5, end_factor=0.2), {0: 0.1, 4: 0.06, 8: 0.04}),
    (specs.Wsd(warmup_steps=2, stable_steps=2, decay_steps=4, decay="linear"),
     {0: 0.0, 1: 0.05, 2: 0.1, 4: 0.1, 5: 0.075, 7: 0.025, 8: 0.0, 10**9: 0.0}),
    (specs.Wsd(warmup_steps=4, stable_steps=0, decay_steps=4, warmup="1-sqrt", decay="1-sqrt", min_ratio=0.5),
     {0: 0.05, 3: 0.075, 4: 0.1, 5: 0.075, 8: 0.05, 10**9: 0.05}),
    (specs.Wsd(warmup_steps=0, stable_steps=0, decay_steps=0), {0: 0.0}),
    (specs.InverseSqrt(warmup_steps=4), {0: 0.0, 2: 0.05, 4: 0.1, 16: 0.05, 64: 0.025}),
    (specs.InverseSqrt(warmup_steps=4, timescale=9), {4: 0.1, 4 + 27: 0.05}),
    (specs.InverseSqrt(warmup_steps=0), {0: 0.1, 30_000: 0.05}),
    (specs.Noam(d_model=4, warmup_steps=4), {0: 0.0625, 3: 0.25, 15: 0.125}),
    (specs.Noam(d_model=4, warmup_steps=4, factor="lr"), {3: 0.025}),
    (specs.Table(points=((2, 3.0), (5, 1.0))), {0: 3, 2: 3, 4: 3, 5: 1, 10**9: 1}),
    (specs.Table(points=((2, 3.0), (6, 1.0)), interpolate="linear"), {0: 3, 2: 3, 3: 2.5, 4: 2, 6: 1, 7: 1}),
    (specs.Table(points=((0, 1.0), (2, 0.0)), interpolate="cosine", relative=True), {0: 0.1, 1: 0.05, 2: 0.0, 3: 0.0}),
    (specs.Swa(swa_lr=0.02, swa_start=3, anneal_steps=4), {0: 0.1, 3: 0.1, 5: 0.06, 7: 0.02, 10**9: 0.02}),
    (specs.Swa(swa_lr=0.02, anneal_steps=0), {0: 0.02}),
    (specs.Swa(swa_lr=0.02, anneal_steps=4, anneal_strategy="linear"), {0: 0.1, 1: 0.08, 4: 0.02}),
    (specs.Warmup(warmup_steps=4, start=0.02, then=specs.Step(step_size=2)),
     {0: 0.02, 2: 0.06, 4: 0.1, 5: 0.1, 6: 0.01}),
    (specs.Warmup(warmup_steps=4, peak=0.4, warmup_offset=1), {0: 0.1, 3: 0.4, 4: 0.1}),
    (specs.Warmup(warmup_steps=0), {0: 0.1}),
    (specs.Sequential(parts=(specs.Step(step_size=2), specs.Cosine(total_steps=2), specs.Constant()),
                      milestones=(3, 5)), {1: 0.1, 2: 0.01, 3: 0.1, 4: 0.05, 5: 0.1, 10**9: 0.1}),
    (specs.Chained(parts=(specs.Step(step_size=2), specs.Linear(start_factor=0.0, total_steps=4))),
     {0: 0.0, 1: 0.025, 2: 0.005, 4: 0.001}),
]  # fmt: skip


@pytest.mark.parametrize(("schedule", "expected"), BOUNDARIES, ids=[schedule.name for schedule, _ in BOUNDARIES])
def test_schedules_at_before_and_past_their_boundaries(schedule: Any, expected: dict[int, float]) -> None:
    """Which update is the first with the new rate, and what holds after the end."""
    for k, rate in expected.items():
        assert lr_at(schedule, k) == pytest.approx(rate, rel=1e-14, abs=1e-17), k


TWO = specs.OneCycle(total_steps=11, max_lr=1.0, pct_start=0.5, div_factor=10.0, final_div_factor=10.0)


@pytest.mark.parametrize(
    ("schedule", "corners"),
    [
        # the rise ends at k = pct_start total - 1 = 4.5, the fall at k = 10
        (TWO, {0: (0.1, 0.95), 10: (0.01, 0.95), 11: (0.01, 0.95), 10**9: (0.01, 0.95)}),
        (
            TWO.model_copy(update={"total_steps": 10, "anneal_strategy": "linear"}),
            {0: (0.1, 0.95), 2: (0.55, 0.9), 4: (1.0, 0.85), 9: (0.01, 0.95), 10: (0.01, 0.95)},
        ),
        (
            TWO.model_copy(update={"total_steps": 20, "pct_start": 0.25, "three_phase": True}),
            {0: (0.1, 0.95), 2: (0.55, 0.9), 4: (1.0, 0.85), 6: (0.55, 0.9), 8: (0.1, 0.95), 19: (0.01, 0.95)},
        ),
        (TWO.model_copy(update={"cycle_momentum": False}), {0: (0.1, None), 10: (0.01, None)}),
        (TWO.model_copy(update={"max_lr": None}), {0: (0.01, 0.95), 10: (0.001, 0.95)}),
        # phases shorter than an update
        (TWO.model_copy(update={"total_steps": 1}), {0: (0.01, 0.95), 1: (0.01, 0.95)}),
        (TWO.model_copy(update={"total_steps": 2}), {0: (1.0, 0.85), 1: (0.01, 0.95)}),
        (TWO.model_copy(update={"pct_start": 1.0}), {0: (0.1, 0.95), 10: (1.0, 0.85), 11: (0.01, 0.95)}),
        (
            specs.OneCycle(style="geron", total_steps=10, max_lr=1.0),
            {0: (0.1, 0.95), 2: (0.55, 0.9), 4: (1.0, 0.85), 8: (0.1, 0.95), 9: (0.05005, 0.95), 10: (1e-4, 0.95)},
        ),
        (specs.OneCycle(style="geron", total_steps=1, max_lr=1.0), {0: (0.1, 0.95), 1: (1e-4, 0.95), 5: (1e-4, 0.95)}),
    ],
)
def test_one_cycle_at_its_corners(schedule: Any, corners: dict[int, tuple[float, float | None]]) -> None:
    """Rate and momentum; after the end the last rate holds, where torch's bounces."""
    for k, expected in corners.items():
        rate, momentum = resolve(schedule, 0.1, k)
        assert rate == pytest.approx(expected[0], rel=1e-12)
        assert momentum == (None if expected[1] is None else pytest.approx(expected[1], rel=1e-12))


@pytest.mark.parametrize(
    "schedule",
    [
        specs.Exponential(decay_rate=1e308, decay_steps=1e-308, end=1.0),
        specs.Exponential(decay_rate=1e-308, decay_steps=1e-308, staircase=True),
        specs.InverseTime(decay_rate=0.0, decay_steps=1e-308, staircase=True),
        specs.InverseTime(decay_rate=1e308, decay_steps=1e-308),
        specs.Linear(start_factor=1e308, end_factor=1e308),
        specs.Polynomial(total_steps=1, power=1e308, cycle=True, end=1e308),
        specs.Cosine(total_steps=2**53 - 1, end_factor=1e308, exponent=1e308),
        specs.OneCycle(total_steps=3, div_factor=1e-308, final_div_factor=1e-308),
        specs.MultiStep(milestones=(0, 1, 2), gamma=0.0),
        specs.ConstantFactor(factor=1e308),
        specs.CosineRestarts(first_steps=1, t_mul=1.01, m_mul=1e308, end_factor=1e308),
        specs.CosineRestarts(first_steps=1, m_mul=2.0, end=1e308),
        specs.Cyclic(max_lr=1e308, step_size_up=1, mode="triangular2", cycle_momentum=False),
        specs.Wsd(warmup_steps=1, stable_steps=0, decay_steps=1, min_ratio=1e308),
        specs.InverseSqrt(warmup_steps=0, timescale=2**53 - 1),
        specs.Noam(d_model=1, factor=1e308),
        specs.Table(points=((0, 1e308), (2**53 - 1, 0.0)), interpolate="linear", relative=True),
        specs.Swa(swa_lr=1e308, anneal_steps=3),
        specs.Warmup(warmup_steps=2, start=1e308, peak=0.0),
        specs.Chained(parts=(specs.ConstantFactor(factor=1e308), specs.Linear(start_factor=1e308))),
    ],
    ids=lambda schedule: schedule.name,
)
@pytest.mark.parametrize("lr", [0.0, 0.1, 1e308])
def test_no_schedule_raises_or_leaves_the_numbers_of_json(schedule: Any, lr: float) -> None:
    """Whatever the spec lets pass: the decider writes the rate into an entry, and an entry holds no infinity."""
    for k in (0, 1, 2, 5, 10**6, 2**53):
        rate, _ = resolve(schedule, lr, k)
        assert math.isfinite(rate), k
        assert rate >= 0


@pytest.mark.parametrize(
    ("mode", "heights"),
    [("triangular", (0, 0.5, 1, 0.75, 1)), ("triangular2", (0, 0.5, 1, 0.75, 0.5)),
     ("exp_range", (0, 0.5 * 0.5, 0.5**2, 0.75 * 0.5**3, 0.5**8))],
)  # fmt: skip
def test_a_cycle_rises_to_its_peak_and_falls_as_its_mode_says(mode: Any, heights: tuple[float, ...]) -> None:
    """Two updates up, four down; the momentum is the mirror image."""
    triangle = specs.Cyclic(base_lr=1.0, max_lr=3.0, step_size_up=2, step_size_down=4, mode=mode, gamma=0.5)
    for k, height in zip((0, 1, 2, 3, 8), heights, strict=True):
        assert resolve(triangle, 0.1, k) == pytest.approx((1 + 2 * height, 0.9 - 0.1 * height))
    still = triangle.model_copy(update={"base_lr": None, "cycle_momentum": False})
    assert resolve(still, 0.1, 6) == (pytest.approx(0.1), None)


def test_a_schedule_of_schedules_hands_the_momentum_on() -> None:
    """That of the part whose turn it is; while the warmup lasts, the one that what follows begins with."""
    cycle = specs.OneCycle(total_steps=10, max_lr=1.0)
    assert resolve(specs.Warmup(warmup_steps=3, then=cycle), 0.1, 2)[1] == 0.95
    assert resolve(specs.Warmup(warmup_steps=3, then=cycle), 0.1, 5) == resolve(cycle, 0.1, 2)
    assert resolve(specs.Sequential(parts=(specs.Constant(), cycle), milestones=(4,)), 0.1, 3) == (0.1, None)
    assert resolve(specs.Chained(parts=(cycle, specs.Constant())), 0.1, 2)[1] == resolve(cycle, 1.0, 2)[1]


def test_epochs_and_samples_are_counted_in_whole_ones() -> None:
    """The schedule of a run that has seen 25 samples in 7 updates."""

    def seen(samples: float = 25.0, **fields: Any) -> int:
        size = fields.pop("dataset_size", None)
        schedule = {"name": "step", "step_size": 1, **fields}
        return counted(specs.RunSpec.model_validate(
            {"optimizer": "sgd", "schedule": schedule, "dataset_size": size}
        ), 7, samples)  # fmt: skip

    assert counted(specs.RunSpec.model_validate({"optimizer": "sgd"}), 7, 25.0) == 7
    assert seen() == 7
    assert seen(per="sample") == 25
    assert seen(per="epoch", steps_per_epoch=3) == 2
    assert seen(per="epoch", dataset_size=10) == 2
    assert seen(per="epoch", dataset_size=10, steps_per_epoch=7) == 1
    assert seen(per="sample", samples=math.inf) == 2**53
