"""The network of the demo: its backward pass is the slope of its forward pass, and it starts as it says."""

from __future__ import annotations

import numpy as np
import pytest

from gradserve_service.demo import mlp


def batch(rng, n=5, inputs=6, classes=4):
    return rng.normal(size=(n, inputs)), np.eye(classes)[rng.integers(classes, size=n)]


def as_float64(parameters):
    return {name: value.astype(np.float64) for name, value in parameters.items()}


@pytest.mark.parametrize("seed", range(3))
def test_the_backward_pass_is_the_slope_of_the_loss(seed):
    """Central differences over every element of every parameter, in float64."""
    rng = np.random.default_rng(seed)
    parameters = as_float64(mlp.initial_parameters(6, 7, 4, seed))
    parameters["hidden.bias"] += rng.normal(size=7)  # away from the kink of the ReLU at exactly 0
    x, t = batch(rng)
    _, gradients = mlp.loss_and_gradients(parameters, x, t)
    h = 1e-6
    for name, value in parameters.items():
        for index in np.ndindex(value.shape):
            kept = value[index]
            value[index] = kept + h
            up, _ = mlp.loss_and_gradients(parameters, x, t)
            value[index] = kept - h
            down, _ = mlp.loss_and_gradients(parameters, x, t)
            value[index] = kept
            assert gradients[name][index] == pytest.approx((up - down) / (2 * h), rel=1e-6, abs=1e-8), (name, index)


def test_a_gradient_has_the_names_shapes_and_dtype_of_the_parameters():
    parameters = mlp.initial_parameters(6, 7, 4, seed=0)
    x, t = batch(np.random.default_rng(0))
    _, gradients = mlp.loss_and_gradients(parameters, x.astype(np.float32), t.astype(np.float32))
    assert {n: (g.shape, g.dtype) for n, g in gradients.items()} == {
        n: (p.shape, np.dtype("float32")) for n, p in parameters.items()
    }


def test_the_loss_of_a_batch_is_the_mean_of_the_losses_of_its_rows():
    """So a batch of any size is one gradient of the same scale."""
    parameters = mlp.initial_parameters(6, 7, 4, seed=0)
    x, t = batch(np.random.default_rng(0))
    rows = [mlp.loss_and_gradients(parameters, x[i : i + 1], t[i : i + 1])[0] for i in range(len(x))]
    assert mlp.loss_and_gradients(parameters, x, t)[0] == pytest.approx(np.mean(rows), rel=1e-6)


def test_every_worker_starts_from_the_same_parameters():
    first, second = (mlp.initial_parameters(64, 32, 10, seed=3) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_he_and_glorot():
    """He-normal has variance 2 / inputs; Glorot-uniform stays within √(6 / (in + out)) and fills it."""
    parameters = mlp.initial_parameters(400, 300, 200, seed=0)
    assert parameters["hidden.weight"].std() == pytest.approx(np.sqrt(2 / 400), rel=0.02)
    assert np.abs(parameters["output.weight"]).max() == pytest.approx(np.sqrt(6 / 500), rel=0.001)
    assert not parameters["hidden.bias"].any()
    assert not parameters["output.bias"].any()
