"""Stages that see whole tensors, the weights or the past, against their formulas in plain NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gradserve import specs
from gradserve.wire import Layout
from gradserve_service.core.gradient import Gradient, Span
from gradserve_service.core.preprocess import Seen, preprocessed

LAYOUT = Layout.of({"bias": [3], "kernel": [3, 4], "scale": [], "stack": [2, 3, 2]})
SOURCE = np.random.default_rng(5)
WEIGHTS = SOURCE.standard_normal(LAYOUT.parameters)
PUSHED = SOURCE.standard_normal(LAYOUT.parameters) * 3


def after(clip: list[Any], pushed: Any = PUSHED, norms: Any = (), step: int = 1) -> tuple[np.ndarray, Any, float]:
    seen = Seen(WEIGHTS, LAYOUT, step, np.array(norms, np.float64))
    pushed.flags.writeable = False
    gradient, left, scale = preprocessed(clip, Gradient.whole(pushed), seen)
    assert gradient.sum_of_squares == pytest.approx(float((gradient.vector**2).sum()))
    return gradient.vector, left, scale


def by_tensor(vector: np.ndarray) -> list[np.ndarray]:
    return list(LAYOUT.views(vector).values())


def test_tensor_norms_are_bounded_one_by_one() -> None:
    """Keras' clipnorm: g c / max(norm, c)."""
    vector, _, scale = after([specs.TensorNorm(max_norm=4.0)])
    for g, got in zip(by_tensor(PUSHED), by_tensor(vector), strict=True):
        assert got == pytest.approx(g * 4.0 / max(float(np.linalg.norm(g)), 4.0))
    assert scale == 1.0


def test_root_mean_squares_are_bounded_one_by_one() -> None:
    """optax.clip_by_block_rms."""
    for g, got in zip(by_tensor(PUSHED), by_tensor(after([specs.BlockRms(max_rms=2.5)])[0]), strict=True):
        assert got == pytest.approx(g / max(1.0, math.sqrt(float((g**2).mean())) / 2.5))


@pytest.mark.parametrize(("layout", "axes"), [("out_in", {2: (1,), 3: (1, 2)}), ("in_out", {2: (0,), 3: (0, 1)})])
def test_each_unit_is_bounded_by_its_weights(layout: Any, axes: dict[int, tuple[int, ...]]) -> None:
    """Rows of (out, in) in timm, columns of (in, out) in optax; a vector is one unit."""
    vector, _, _ = after([specs.Adaptive(clipping=0.5, layout=layout)])
    for g, w, got in zip(by_tensor(PUSHED), by_tensor(WEIGHTS), by_tensor(vector), strict=True):
        own = axes.get(g.ndim, tuple(range(g.ndim)))
        norm, largest = np.sqrt((g**2).sum(own, keepdims=True)), 0.5 * np.sqrt((w**2).sum(own, keepdims=True))
        largest = np.maximum(largest, 0.5e-3)
        assert got == pytest.approx(np.where(norm > largest, g * largest / norm, g))


def test_every_gradient_gets_the_same_length() -> None:
    """optax.normalize_by_update_norm."""
    vector, _, scale = after([specs.Normalize(norm=2.0)])
    assert float(np.linalg.norm(vector)) == pytest.approx(2.0, rel=1e-6)
    assert scale == pytest.approx(2.0 / float(np.linalg.norm(PUSHED)), rel=1e-6)


def test_matrices_lose_their_mean_and_vectors_keep_it() -> None:
    """optax.centralize."""
    for g, got in zip(by_tensor(PUSHED), by_tensor(after([specs.Centralize()])[0]), strict=True):
        mean = g.mean(tuple(range(1, g.ndim)), keepdims=True) if g.ndim > 1 else 0.0
        assert got == pytest.approx(g - mean)


def test_noise_is_a_function_of_seed_and_update() -> None:
    """The same twice, another for another seed or update; its variance falls as said."""
    zeros = np.zeros(200_000)

    def noise(step: int, **fields: Any) -> np.ndarray:
        spec = specs.Noise(eta=0.04, **fields)
        return preprocessed([spec], Gradient.whole(zeros), Seen(zeros, Layout.of({"w": [zeros.size]}), step, zeros))[
            0
        ].vector

    first = noise(1)
    assert first.tobytes() == noise(1).tobytes() != noise(1, seed=1).tobytes()
    assert first.std() == pytest.approx(0.2, rel=0.02)
    assert abs(first.mean()) < 0.002
    assert noise(16).std() == pytest.approx(0.1, rel=0.02)
    assert not np.array_equal(first[:50_000], first[65_536:115_536])


def test_an_explosion_is_bounded_by_what_was_usual() -> None:
    """The quantile of the last norms; nothing before there are eight of them."""
    guard = specs.Quantile(quantile=0.5, factor=2.0, window=9)
    norm = float(np.linalg.norm(PUSHED))
    assert after([guard], norms=[math.nan] * 5 + [0.1] * 7)[2] == 1.0
    assert after([guard], norms=[9e9] * 9 + [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])[2] == pytest.approx(1 / norm)
    assert after([guard], norms=[norm] * 9)[0].tobytes() == PUSHED.tobytes()


def test_bounds_before_such_a_stage_are_done_with_it_and_those_after_are_left() -> None:
    """The order of the list holds."""
    clip = [specs.Value(value=1.0), specs.GlobalNorm(max_norm=1.0), specs.Centralize(), specs.GlobalNorm(max_norm=0.5)]
    vector, left, scale = after(clip)
    bounded = np.clip(PUSHED, -1, 1)
    k = min(1.0, 1.0 / (float(np.linalg.norm(bounded)) + 1e-6))
    assert left == [clip[-1]]
    assert scale == pytest.approx(k)
    assert by_tensor(vector)[0] == pytest.approx(bounded[:3] * k)


def test_a_list_of_folded_bounds_alone_copies_nothing() -> None:
    """The hot path: the gradient goes on as it came."""
    gradient = Gradient.whole(PUSHED)
    clip = (specs.GlobalNorm(max_norm=1.0), specs.Value(value=1.0))
    seen = Seen(WEIGHTS, LAYOUT, 1, np.zeros(0))
    assert preprocessed(clip, gradient, seen) == (gradient, clip, 1.0)


def test_tensors_that_did_not_come_are_not_looked_at() -> None:
    """Only the kernel came."""
    kernel = PUSHED[3:15]
    gradient = Gradient(kernel, (Span(3, 0, 12),), float((kernel**2).sum()), True)
    out, _, _ = preprocessed([specs.Centralize()], gradient, Seen(WEIGHTS, LAYOUT, 1, np.zeros(0)))
    assert out.vector.reshape(3, 4).sum(axis=1) == pytest.approx([0, 0, 0], abs=1e-12)
    assert out.spans == gradient.spans
