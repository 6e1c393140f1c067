"""The rules with sums and shapes equal their dumb twin, whatever the hyperparameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from core.running import Updates, tensors_of
from core.strategies import first_weights, gradients, seeds
from core.tensor_strategies import optimizers, shapes
from core.tensor_twin import TensorTwin

Shapes = list[tuple[int, ...]]


def both(spec: Any, shapes: Shapes, seed: int, dtype: Any) -> tuple[Updates, TensorTwin]:
    sizes = [math.prod(shape) for shape in shapes]
    start = first_weights(seed, sum(sizes))
    parts = np.split(start, np.cumsum(sizes)[:-1])
    return Updates(spec, start.astype(dtype), layout=tensors_of(shapes)), TensorTwin(
        spec, shapes, [part.tolist() for part in parts], float(np.finfo(dtype).eps)
    )


def walk(run: Updates, twin: TensorTwin, pushed: Any, present: list[list[bool]] | None = None) -> None:
    ends = np.cumsum([math.prod(shape) for shape in twin.shapes])[:-1]
    for k, g in enumerate(pushed):
        lr, loss = run.lr * (1 + 0.5 * math.sin(k)), 2 + math.sin(k)
        came = present[k] if present else [True] * len(twin.shapes)
        parts = [part.tolist() if here else None for part, here in zip(np.split(g, ends), came, strict=True)]
        run.step(run.gradient_of(g, came), lr, loss=loss, block_elements=5)
        twin.step(parts, lr, loss)


def assert_agrees(run: Updates, twin: TensorTwin, share: float) -> None:
    """Within `share` of the way that the tensors have walked, and the rounding of the weights."""
    weights, path = np.concatenate(twin.weights), np.concatenate(twin.path)
    largest = np.maximum(np.abs(weights), np.abs(run.weights)) + path
    rounding = 4 * np.spacing(largest.astype(run.weights.dtype)) * math.sqrt(run.updates)
    assert np.all(np.abs(run.weights - weights) <= share * path.max() + rounding)


@given(optimizers, shapes, seeds, st.sampled_from([1, 2, 7]))
@settings(max_examples=150, deadline=None)
def test_float64_agrees_with_the_twin_to_the_last_digits(spec: Any, shapes: Shapes, seed: int, updates: int) -> None:
    """In float64 the two differ by rounding alone: 1e-12 of the way walked."""
    run, twin = both(spec, shapes, seed, np.float64)
    walk(run, twin, gradients(seed, updates, run.weights.size))
    assert_agrees(run, twin, 1e-12)


@given(optimizers, shapes, seeds, st.sampled_from([1, 2, 7]))
@settings(max_examples=100, deadline=None)
def test_float32_stays_within_float32_precision_of_the_twin(spec: Any, shapes: Shapes, seed: int, updates: int) -> None:
    """The service's float32 against the twin's float64, fed the same numbers."""
    run, twin = both(spec, shapes, seed, np.float32)
    walk(run, twin, gradients(seed, updates, run.weights.size))
    assert run.weights.dtype == np.float32
    # Muon's iteration stretches what is small in a matrix, rounding included, by up to 3.4445^5 = 485.
    assert_agrees(run, twin, 3e-4 if spec.name == "muon" else 1e-5)


@given(optimizers, seeds)
@settings(max_examples=25, deadline=None)
def test_a_hundred_updates_drift_no_further(spec: Any, seed: int) -> None:
    """Long runs: t in the bias corrections, sums that grow, an lr that changes at every update."""
    run, twin = both(spec, [(4,), (3, 2)], seed, np.float64)
    walk(run, twin, gradients(seed, 100, 10))
    assert_agrees(run, twin, 1e-11)


@given(optimizers, seeds, st.data())
@settings(max_examples=60, deadline=None)
def test_a_gradient_of_some_tensors_agrees_with_the_twin(spec: Any, seed: int, data: st.DataObject) -> None:
    """Tensors without a gradient rest with their slots, and are not in the sums over the run."""
    run, twin = both(spec, [(4,), (3, 2), (2, 2, 3)], seed, np.float64)
    present = [data.draw(st.lists(st.booleans(), min_size=3, max_size=3)) for _ in range(4)]
    walk(run, twin, gradients(seed, 4, run.weights.size), present)
    assert_agrees(run, twin, 1e-12)
