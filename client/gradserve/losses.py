"""Losses with their gradients, for workers that compute in NumPy.

Each function takes what the network said (`prediction`, or `logits`) and what was true (`target`), arrays of one
shape, and gives `(value, gradient)`: the loss as a Python float, summed in float64, and its derivative with respect
to the first argument, an array of the same shape and float dtype (integers become float64). Neither argument is
written to. Shapes are never broadcast: a target of shape (n,) beside a prediction of shape (n, 1) would quietly give
n² differences, so another shape raises `ValueError`.

Sums and means. `half_sse`, `cross_entropy` and `softmax_cross_entropy` are sums; `mse`, `mae`,
`binary_cross_entropy` and `categorical_cross_entropy` are means. A learning rate moves from one to the other with the
size of the gradient: for n elements the gradient of `half_sse` is n/2 times that of `mse`, therefore
`lr_mean = lr_sum * n / 2` takes the same step. For the sums of cross-entropy over n rows, divide value and gradient by
n to have the mean that mini-batches of different sizes need.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "DELTA",
    "binary_cross_entropy",
    "categorical_cross_entropy",
    "cross_entropy",
    "half_sse",
    "mae",
    "mse",
    "softmax",
    "softmax_cross_entropy",
]

Array = NDArray[Any]

DELTA = 1e-7  # keeps log() finite; Keras calls it epsilon


def half_sse(prediction: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
    """Half the sum of squared errors, for regression.

        value = ½ Σ (y − t)²          gradient = y − t

    y is the prediction, t the target, both of any one shape. The ½ is there so that the gradient is the plain error.

    Source: the sum-of-squares error of the textbooks (Bishop 2006, eq. 5.11).
    Example: y = [1, 3], t = [0, 1] gives 2.5 and [1, 2].
    """
    y, t = _paired(prediction, target)
    error = y - t
    return 0.5 * _sum(error * error), error


def mse(prediction: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
    """Mean squared error, for regression.

        value = 1/n Σ (y − t)²        gradient = 2 (y − t) / n        n: number of elements

    Takes the step of `half_sse` with `lr_mean = lr_sum * n / 2`.

    Source: torch.nn.MSELoss, keras.losses.MeanSquaredError (both with their default reduction).
    Example: y = [1, 3], t = [0, 1] gives 2.5 and [1, 2].
    """
    y, t = _paired(prediction, target)
    error = y - t
    return _sum(error * error) / y.size, error * (2 / y.size)


def mae(prediction: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
    """Mean absolute error, for regression with outliers.

        value = 1/n Σ |y − t|         gradient = sign(y − t) / n      n: number of elements

    The gradient at y = t is 0, one of the values that a subgradient may have there.

    Source: torch.nn.L1Loss, keras.losses.MeanAbsoluteError.
    Example: y = [1, 3], t = [0, 5] gives 1.5 and [0.5, −0.5].
    """
    y, t = _paired(prediction, target)
    error = y - t
    return _sum(np.abs(error)) / y.size, np.sign(error) / y.size


def binary_cross_entropy(prediction: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
    """Cross-entropy of yes-or-no answers: y is the probability of yes, t is 0 or 1 (or between).

        value    = −1/n Σ [t log y + (1 − t) log(1 − y)]      y clipped to [1e-7, 1 − 1e-7]
        gradient = (y − t) / (y (1 − y)) / n                  0 where y was clipped

    y and t have any one shape; n is the number of elements. The gradient is that of the clipped formula, as autodiff
    gives it: a prediction outside the clip has none, so bring probabilities out of a sigmoid.

    Source: keras.losses.BinaryCrossentropy.
    Example: y = [0.5], t = [1] gives log 2 and [−2].
    """
    y, t = _paired(prediction, target)
    p, inside = _clipped(y)
    value = -_sum(t * np.log(p) + (1 - t) * np.log1p(-p)) / y.size
    return value, np.where(inside, (p - t) / (p * (1 - p)) / y.size, 0).astype(y.dtype)


def categorical_cross_entropy(prediction: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
    """Cross-entropy of one class among k: rows of y are probabilities, rows of t one-hot (or a distribution).

        p        = y / Σ_row y, clipped to [1e-7, 1 − 1e-7]
        value    = −1/n Σ t log p                             n: number of rows
        gradient = (q − Σ_row q p') / Σ_row y                 q = −t / p / n, 0 where p was clipped; p' = y / Σ_row y

    y and t have shape (…, k). Rows need not sum to 1: they are made to, as Keras does, and the gradient follows the
    division. For logits use `softmax_cross_entropy`, which is exact where this one clips.

    Source: keras.losses.CategoricalCrossentropy.
    Example: y = [[1, 3]], t = [[0, 1]] gives −log 0.75 and [[0.25, −0.0833…]].
    """
    y, t = _paired(prediction, target)
    rows = _rows(y)
    total = y.sum(axis=-1, keepdims=True)
    share = y / total
    p, inside = _clipped(share)
    q = np.where(inside, -t / p / rows, 0)
    gradient = (q - (q * share).sum(axis=-1, keepdims=True)) / total
    return -_sum(t * np.log(p)) / rows, gradient.astype(y.dtype)


def cross_entropy(prediction: ArrayLike, target: ArrayLike, delta: float = DELTA) -> tuple[float, Array]:
    """Cross-entropy as the textbook writes it, a small delta keeping the logarithm finite.

        value = −Σ t log(y + δ)       gradient = −t / (y + δ)

    y are probabilities and t one-hot (or a distribution), of any one shape. A certain and right answer (y = 1) costs
    −log(1 + δ), a hair below zero: the price of the δ.

    Source: Saitoh 2016, Deep Learning from Scratch, 4.2.2 (its δ is 1e-7).
    Example: y = [0.25, 0.75], t = [0, 1] gives 0.28768… and [0, −1.3333…].
    """
    y, t = _paired(prediction, target)
    return -_sum(t * np.log(y + delta)), -t / (y + delta)


def softmax_cross_entropy(logits: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
    """Softmax and cross-entropy in one: the loss of a classifier's last layer.

        value = −Σ t log softmax(z)   gradient = softmax(z) − t

    z and t have shape (…, k); each row of t sums to 1. Summed over rows: divide both by the number of rows for the
    mean of a batch. Rows are shifted by their maximum first, so logits of any size are fine.

    Source: Bishop 2006, section 5.2 (the two derivatives cancel to the plain error); as
    torch.nn.CrossEntropyLoss(reduction="sum").
    Example: z = [[0, 0]], t = [[0, 1]] gives log 2 and [[0.5, −0.5]].
    """
    z, t = _paired(logits, target)
    shifted = z - z.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=-1, keepdims=True)
    return _sum(t * (np.log(total) - shifted)), exponentials / total - t


def softmax(logits: ArrayLike) -> Array:
    """Probabilities of each row, e^z / Σ e^z over the last axis; logits of any size are fine."""
    z = _floating(logits)
    exponentials = np.exp(z - z.max(axis=-1, keepdims=True))
    probabilities: Array = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def _paired(prediction: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    """Both as arrays of the prediction's float dtype; their shapes must be one."""
    y = _floating(prediction)
    t = np.asarray(target, dtype=y.dtype)
    if y.shape != t.shape:
        raise ValueError(
            f"expected a target of the prediction's shape {y.shape}, came {t.shape}: reshape one of them "
            f"(class numbers become one-hot rows with numpy.eye(classes)[numbers])"
        )
    if y.size == 0:
        raise ValueError(f"expected at least one element, came shape {y.shape}: an empty batch has no loss")
    return y, t


def _floating(values: ArrayLike) -> Array:
    array = np.asarray(values)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)


def _clipped(probabilities: Array) -> tuple[Array, Array]:
    """The values within [δ, 1 − δ], and where they were there already."""
    p = np.clip(probabilities, DELTA, 1 - DELTA)
    return p, p == probabilities


def _sum(values: Array) -> float:
    return float(values.sum(dtype=np.float64))


def _rows(values: Array) -> int:
    return int(values.size // values.shape[-1])
