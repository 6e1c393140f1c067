"""The rows of the source documents that are about losses and their gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradserve import losses


def test_001_mse() -> None:
    """[A.2 MSE] `(1/2)*np.sum((y-t)**2)`, gradient y - t; lr moves to the mean by lr_mean = lr_sum n / 2."""
    y, t = np.array([0.1, 0.7, 0.2]), np.array([0.0, 1.0, 0.0])
    value, gradient = losses.half_sse(y, t)
    assert value == pytest.approx(0.5 * np.sum((y - t) ** 2), abs=1e-16)
    assert 0.1 * 3 / 2 * losses.mse(y, t)[1] == pytest.approx(0.1 * gradient, abs=1e-16)


def test_001_cross_entropy() -> None:
    """[A.2 cross-entropy]
    `-np.sum(t*np.log(y+delta))`, delta 1e-7 (the document types `le - 7`), gradient -t/(y+delta)."""
    y, t = np.array([0.1, 0.7, 0.2]), np.array([0.0, 1.0, 0.0])
    value, gradient = losses.cross_entropy(y, t)
    assert value == pytest.approx(-np.sum(t * np.log(y + 1e-7)), abs=1e-16)
    assert gradient == pytest.approx(-t / (y + 1e-7), abs=1e-15)
    assert losses.softmax_cross_entropy(np.log(y), t)[1] == pytest.approx(y - t, abs=1e-15)


def test_001_binary_crossentropy() -> None:
    """[A.2 binary_crossentropy / categorical_crossentropy]
    -[t log y + (1-t) log(1-y)]: not 0 where t is 0, as the sum over t log y would be; y is clipped, not shifted."""
    assert losses.binary_cross_entropy([0.75], [0.0])[0] == pytest.approx(-math.log(0.25), rel=1e-15)
    assert 0 <= losses.binary_cross_entropy([1.0], [1.0])[0] < 2e-7


def test_001_categorical_crossentropy() -> None:
    """[A.2 binary_crossentropy / categorical_crossentropy] Rows are made to sum to 1, then clipped."""
    assert losses.categorical_cross_entropy([[2.0, 6.0]], [[0.0, 1.0]])[0] == pytest.approx(-math.log(0.75), rel=1e-15)


def test_003_losses() -> None:
    """[A.3 003 losses] MSE and MAE; E is a sum of squares over the output nodes."""
    y, t = np.array([[1.0, 3.0], [0.0, 2.0]]), np.array([[0.0, 5.0], [0.0, 1.0]])
    assert losses.mse(y, t)[0] == 1.5
    assert losses.mae(y, t) == (1.0, pytest.approx(np.sign(y - t) / 4))
    assert losses.half_sse(y, t)[0] == 0.5 * (1 + 4 + 0 + 1)
