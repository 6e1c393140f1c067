"""Clipping: a list applied in order; norms are of the gradient as the stage finds it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from core.running import Updates, partial
from gradserve import specs
from gradserve_service.core import clipping
from gradserve_service.core.blocks import in_turn
from gradserve_service.core.gradient import Gradient

SGD = specs.Sgd(lr=1.0)


def clipped_gradient(clip: list[Any], g: list[float]) -> tuple[list[float], float]:
    """What a step of lr 1 subtracts, and the scale it reports."""
    run = Updates(SGD, np.zeros(len(g)), clip)
    statistics = run.step(g)
    assert statistics.gradient_norm == pytest.approx(math.sqrt(sum(x * x for x in g)))
    return [-float(w) for w in run.weights], statistics.clip_scale


def norm(values: list[float]) -> float:
    return math.sqrt(sum(x * x for x in values))


def test_a_long_gradient_is_scaled_to_the_largest_norm() -> None:
    """Its direction stays; the factor is reported."""
    values, scale = clipped_gradient([specs.GlobalNorm(max_norm=1.0, eps=0.0)], [3.0, -4.0])
    assert values == pytest.approx([0.6, -0.8])
    assert scale == pytest.approx(0.2)


def test_a_short_gradient_passes_unchanged() -> None:
    """Bit for bit, with the factor 1."""
    assert clipped_gradient([specs.GlobalNorm(max_norm=5.1)], [3.0, -4.0]) == ([3.0, -4.0], 1.0)


def test_the_eps_of_the_norm_is_torchs() -> None:
    """min(1, c / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ has it."""
    _, scale = clipped_gradient([specs.GlobalNorm(max_norm=1.0)], [3.0, -4.0])
    assert scale == 1.0 / (5.0 + 1e-6)


def test_a_gradient_of_zero_is_not_divided_by_its_norm() -> None:
    """With eps 0 the quotient would be 0 / 0."""
    assert clipped_gradient([specs.GlobalNorm(max_norm=1.0, eps=0.0)], [0.0, 0.0]) == ([0.0, 0.0], 1.0)


def test_values_are_bounded_element_by_element() -> None:
    """The direction turns, no scale is reported."""
    assert clipped_gradient([specs.Value(value=1.0)], [3.0, -0.5, -4.0]) == ([1.0, -0.5, -1.0], 1.0)


def test_a_norm_after_a_bound_is_that_of_the_bounded_gradient() -> None:
    """[3, -4] bounded to [1, -1] has the norm √2, not 5."""
    values, scale = clipped_gradient([specs.Value(value=1.0), specs.GlobalNorm(max_norm=1.0, eps=0.0)], [3.0, -4.0])
    assert values == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)])
    assert scale == pytest.approx(math.sqrt(0.5))


def test_a_bound_after_a_norm_sees_the_scaled_gradient() -> None:
    """[3, -4] scaled to [0.6, -0.8], then bounded to 0.7."""
    values, scale = clipped_gradient([specs.GlobalNorm(max_norm=1.0, eps=0.0), specs.Value(value=0.7)], [3.0, -4.0])
    assert values == pytest.approx([0.6, -0.7])
    assert scale == pytest.approx(0.2)


def test_a_norm_after_a_norm_needs_no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its norm is known from the first: the scales multiply."""
    monkeypatch.setattr(clipping, "sum_of_squares", None)
    clip = [specs.GlobalNorm(max_norm=2.0, eps=0.0), specs.GlobalNorm(max_norm=1.0, eps=0.0)]
    values, scale = clipped_gradient(clip, [3.0, -4.0])
    assert norm(values) == pytest.approx(1.0)
    assert scale == pytest.approx(0.2)


def test_bounds_and_norms_alternate() -> None:
    """Each norm after a bound is measured anew."""
    clip = [
        specs.Value(value=3.0),
        specs.GlobalNorm(max_norm=1.0, eps=0.0),
        specs.Value(value=0.5),
        specs.GlobalNorm(max_norm=0.1, eps=0.0),
    ]
    values, scale = clipped_gradient(clip, [3.0, -4.0, 0.1])
    assert norm(values) == pytest.approx(0.1)
    first = [3.0, -3.0, 0.1]
    second = [max(-0.5, min(0.5, x / norm(first))) for x in first]
    assert values == pytest.approx([x * 0.1 / norm(second) for x in second])
    assert scale == pytest.approx(0.1 / norm(second) / norm(first))


def test_norms_run_over_the_tensors_that_came() -> None:
    """A tensor left out does not count, whatever its weights are."""
    run = Updates(SGD, np.zeros(3), [specs.GlobalNorm(max_norm=1.0, eps=0.0)])
    run.step(partial([3.0, None, -4.0], np.float64))
    assert run.weights == pytest.approx([-0.6, 0.0, 0.8])


def test_a_factor_at_the_end_is_left_to_the_rule() -> None:
    """Clipping by the norm alone leaves nothing to do to an element: no stage, no pass."""
    plan = clipping.clipped([specs.GlobalNorm(max_norm=1.0)], Gradient.whole(np.ones(9)), in_turn)
    assert plan.stages == ()
    assert plan.factor == plan.clip_scale == pytest.approx(1 / 3, rel=1e-6)


def test_a_norm_below_all_floats_clips_to_nothing_and_divides_by_nothing():
    """Two stages without eps, the first of which leaves less than the smallest double."""
    gradient = Gradient.whole(np.array([1e10, 0], np.float32))
    stages = [specs.GlobalNorm(max_norm=bound, eps=0.0) for bound in (1e-323, 1.0)]
    assert clipping.clipped(stages, gradient, in_turn).factor < 1e-300
