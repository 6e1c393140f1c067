"""Each loss: the number one can check in the head, and the gradient against central differences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradserve import losses


def probabilities(rng, shape):
    return losses.softmax(rng.normal(size=shape))


def one_hot(rng, shape):
    return np.eye(shape[-1])[rng.integers(shape[-1], size=shape[:-1])]


def central_differences(loss, y, t, h=1e-6):
    """The slope of the loss along each element of y: (L(y + h) − L(y − h)) / 2h."""
    slope = np.zeros_like(y)
    for index in np.ndindex(y.shape):
        up, down = y.copy(), y.copy()
        up[index] += h
        down[index] -= h
        slope[index] = (loss(up, t)[0] - loss(down, t)[0]) / (2 * h)
    return slope


CASES = {
    "half_sse": (losses.half_sse, lambda rng: (rng.normal(size=(4, 3)), rng.normal(size=(4, 3)))),
    "mse": (losses.mse, lambda rng: (rng.normal(size=(4, 3)), rng.normal(size=(4, 3)))),
    "mae": (losses.mae, lambda rng: (rng.normal(size=(4, 3)), rng.normal(size=(4, 3)))),
    "binary_cross_entropy": (
        losses.binary_cross_entropy,
        lambda rng: (rng.uniform(0.05, 0.95, (4, 3)), rng.integers(2, size=(4, 3)).astype(float)),
    ),
    "categorical_cross_entropy": (
        losses.categorical_cross_entropy,
        lambda rng: (rng.uniform(0.1, 2.0, (5, 4)), one_hot(rng, (5, 4))),
    ),
    "cross_entropy": (losses.cross_entropy, lambda rng: (probabilities(rng, (5, 4)), one_hot(rng, (5, 4)))),
    "softmax_cross_entropy": (
        losses.softmax_cross_entropy,
        lambda rng: (rng.normal(size=(5, 4)) * 3, probabilities(rng, (5, 4))),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_the_slope_of_the_value(name, seed):
    """Central differences in float64 agree with the formula to seven digits."""
    loss, draw = CASES[name]
    y, t = draw(np.random.default_rng(seed))
    _, gradient = loss(y, t)
    np.testing.assert_allclose(gradient, central_differences(loss, y, t), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_the_arguments_are_only_read_and_the_dtype_is_kept(name):
    """A worker's float32 stays float32, its arrays stay as they were, and the value is a Python float."""
    loss, draw = CASES[name]
    y, t = (array.astype(np.float32) for array in draw(np.random.default_rng(7)))
    y.flags.writeable = t.flags.writeable = False
    value, gradient = loss(y, t)
    assert type(value) is float
    assert gradient.dtype == np.float32
    assert gradient.shape == y.shape


@pytest.mark.parametrize(
    ("loss", "y", "t", "value", "gradient"),
    [
        (losses.half_sse, [1, 3], [0, 1], 2.5, [1, 2]),
        (losses.mse, [1, 3], [0, 1], 2.5, [1, 2]),
        (losses.mae, [1, 3], [0, 5], 1.5, [0.5, -0.5]),
        (losses.binary_cross_entropy, [0.5], [1], math.log(2), [-2]),
        (losses.categorical_cross_entropy, [[1, 3]], [[0, 1]], -math.log(0.75), [[0.25, -1 / 12]]),
        (losses.cross_entropy, [0.25, 0.75], [0, 1], -math.log(0.75 + 1e-7), [0, -1 / (0.75 + 1e-7)]),
        (losses.softmax_cross_entropy, [[0, 0]], [[0, 1]], math.log(2), [[0.5, -0.5]]),
    ],
    ids=lambda part: getattr(part, "__name__", None),
)
def test_the_example_of_the_docstring(loss, y, t, value, gradient):
    got, slope = loss(y, t)
    assert got == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(slope, gradient, rtol=1e-12)


def test_a_learning_rate_moves_from_the_sum_to_the_mean_with_n_over_two():
    """lr_mean = lr_sum · n / 2 takes the same step."""
    rng = np.random.default_rng(0)
    y, t = rng.normal(size=(8, 5)), rng.normal(size=(8, 5))
    lr_sum = 0.01
    lr_mean = lr_sum * y.size / 2
    np.testing.assert_allclose(lr_sum * losses.half_sse(y, t)[1], lr_mean * losses.mse(y, t)[1], rtol=1e-12)


def test_certain_and_wrong_is_finite():
    """y = 0 where the answer is yes: the clip and the delta keep the logarithm finite, at −log 1e-7."""
    floor = pytest.approx(-math.log(1e-7), rel=1e-12)
    assert losses.binary_cross_entropy([0.0], [1.0])[0] == floor
    assert losses.categorical_cross_entropy([[0.0, 1.0]], [[1.0, 0.0]])[0] == floor
    assert losses.cross_entropy([0.0, 1.0], [1.0, 0.0])[0] == floor


def test_outside_the_clip_there_is_no_slope():
    """The clipped formula is flat there, and the gradient says so."""
    assert losses.binary_cross_entropy([0.0, 0.5], [1.0, 1.0])[1][0] == 0


def test_the_delta_form_is_a_hair_below_zero_at_a_perfect_answer():
    value, _ = losses.cross_entropy([1.0, 0.0], [1.0, 0.0])
    assert value == pytest.approx(-1e-7, rel=1e-3)


def test_rows_that_do_not_sum_to_one_are_made_to():
    """Keras divides each row by its sum: a row and its double are one prediction."""
    y, t = np.array([[0.2, 0.3, 0.5]]), np.array([[0.0, 1.0, 0.0]])
    assert losses.categorical_cross_entropy(2 * y, t)[0] == pytest.approx(losses.categorical_cross_entropy(y, t)[0])


def test_huge_logits_do_not_overflow():
    value, gradient = losses.softmax_cross_entropy(np.array([[1e4, -1e4]], np.float32), [[0, 1]])
    assert value == 20_000
    np.testing.assert_array_equal(gradient, [[1, -1]])


def test_fused_and_separate_agree():
    """softmax, then categorical cross-entropy, differs from the fused form only in the mean over rows."""
    rng = np.random.default_rng(3)
    z, t = rng.normal(size=(6, 4)), one_hot(rng, (6, 4))
    fused = losses.softmax_cross_entropy(z, t)[0] / 6
    assert losses.categorical_cross_entropy(losses.softmax(z), t)[0] == pytest.approx(fused, rel=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_shapes_are_never_broadcast(name):
    """(n, 1) beside (n,) would be n² differences; the message names both shapes."""
    loss, _ = CASES[name]
    with pytest.raises(ValueError, match=r"shape \(4, 1\), came \(4,\)"):
        loss(np.full((4, 1), 0.5), np.full(4, 0.5))


def test_an_empty_batch_has_no_loss():
    with pytest.raises(ValueError, match="empty batch"):
        losses.mse(np.zeros((0, 3)), np.zeros((0, 3)))
