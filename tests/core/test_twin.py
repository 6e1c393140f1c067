"""The fast arithmetic equals its dumb twin, whatever the hyperparameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.running import Updates, partial
from core.strategies import clips, first_weights, gradients, optimizers, seeds, shapes
from core.twin import Twin

BLOCKS = st.sampled_from([1, 3, 1000])
# A corrected variance is 0 at the first update, g² - g²: in float32 what is left of it is rounding of the size of g²,
# whatever eps is. The float64 comparison holds this form; no bound on float32 that does not grow with g² can.
WELL_CONDITIONED = optimizers.filter(lambda spec: not (getattr(spec, "centered", False) and spec.bias_correction))


def assert_agrees(run: Updates, twin: Twin, share: float) -> None:
    """Within `share` of the way that each weight has walked, and the rounding of the weights themselves."""
    largest = np.maximum(np.abs(twin.weights), np.abs(run.weights)) + twin.path
    rounding = 4 * np.spacing(largest.astype(run.weights.dtype)) * math.sqrt(run.updates)
    assert np.all(np.abs(run.weights - twin.weights) <= share * np.array(twin.path) + rounding)


@given(optimizers, clips, shapes, seeds, st.sampled_from([1, 2, 7]), BLOCKS)
@settings(max_examples=150, deadline=None)
def test_float64_agrees_with_the_twin_to_the_last_digits(
    spec: Any, clip: list[Any], shape: tuple[int, ...], seed: int, updates: int, block: int
) -> None:
    """In float64 the two differ by rounding alone: 1e-12 of the way that each weight has walked."""
    size = math.prod(shape)
    run, twin = Updates(spec, first_weights(seed, size), clip), Twin(spec, clip, first_weights(seed, size))
    for k, g in enumerate(gradients(seed, updates, size)):
        lr = spec.lr * (1 + 0.5 * math.sin(k))
        statistics = run.step(g, lr, block_elements=block)
        twin.step(g.tolist(), lr)
        # The service squares and sums in another order, over the same numbers.
        assert statistics.gradient_norm == pytest.approx(math.sqrt(math.fsum(g * g)), rel=1e-14)
        assert statistics.clip_scale == pytest.approx(twin.clip_scale, rel=1e-13)
    assert_agrees(run, twin, 1e-12)


@given(WELL_CONDITIONED, clips, shapes, seeds, st.sampled_from([1, 2, 7]), BLOCKS)
@settings(max_examples=150, deadline=None)
def test_float32_stays_within_float32_precision_of_the_twin(
    spec: Any, clip: list[Any], shape: tuple[int, ...], seed: int, updates: int, block: int
) -> None:
    """The service's float32 against the twin's float64, fed the same numbers."""
    size = math.prod(shape)
    w0 = first_weights(seed, size)
    run, twin = Updates(spec, w0.astype(np.float32), clip), Twin(spec, clip, w0)
    for k, g in enumerate(gradients(seed, updates, size)):
        lr = spec.lr * (1 + 0.5 * math.sin(k))
        run.step(g, lr, block_elements=block)
        twin.step(g.tolist(), lr)
    assert run.weights.dtype == np.float32
    assert_agrees(run, twin, 1e-5)


@given(optimizers, seeds)
@settings(max_examples=25, deadline=None)
def test_two_hundred_updates_drift_no_further(spec: Any, seed: int) -> None:
    """Long runs: t in the bias corrections, slots that saturate, an lr that changes at every update."""
    run, twin = Updates(spec, first_weights(seed, 6)), Twin(spec, [], first_weights(seed, 6))
    for k, g in enumerate(gradients(seed, 200, 6)):
        lr = spec.lr * 0.5 * (1 + math.cos(k / 9))
        run.step(g, lr)
        twin.step(g.tolist(), lr)
    assert_agrees(run, twin, 1e-12)


@given(optimizers, clips, seeds, st.data())
@settings(max_examples=100, deadline=None)
def test_a_gradient_in_parts_agrees_with_the_twin(spec: Any, clip: list[Any], seed: int, data: st.DataObject) -> None:
    """Weights without a gradient rest, norms run over what came, t is the run's."""
    size = 12
    run, twin = Updates(spec, first_weights(seed, size), clip), Twin(spec, clip, first_weights(seed, size))
    for g in gradients(seed, 4, size):
        mask = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
        values = [float(x) if here else None for x, here in zip(g, mask, strict=True)]
        run.step(partial(values, np.float64), block_elements=5)
        twin.step(values, spec.lr)
    assert_agrees(run, twin, 1e-12)


@given(optimizers.filter(lambda spec: spec.name != "sgd" or spec.momentum > 0), seeds)
@settings(max_examples=60, deadline=None)
def test_a_schedules_momentum_takes_the_place_of_the_rules(spec: Any, seed: int) -> None:
    """Momentum or beta1 of one update; 0 is a momentum too, and keeps the slot."""
    run, twin = Updates(spec, first_weights(seed, 6)), Twin(spec, [], first_weights(seed, 6))
    for g, momentum in zip(gradients(seed, 5, 6), [0.95, 0.5, 0.0, None, 0.85], strict=True):
        run.step(g, momentum=momentum)
        twin.step(g.tolist(), spec.lr, momentum)
    assert_agrees(run, twin, 1e-12)
