"""A multilayer perceptron with one hidden layer, forward and backward in plain sight.

    a = x W₁ + b₁                 x: float32[n, in], W₁: float32[in, hidden]
    h = max(0, a)
    z = h W₂ + b₂                 z: float32[n, classes], the logits
    loss = −1/n Σ t log softmax(z)

The backward pass is the chain rule from the last line to the first, one line for each line above.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradserve.losses import softmax_cross_entropy

__all__ = ["accuracy", "initial_parameters", "logits", "loss_and_gradients"]

Array = NDArray[Any]
Parameters = Mapping[str, Array]


def initial_parameters(inputs: int, hidden: int, classes: int, seed: int) -> dict[str, Array]:
    """Fresh float32 parameters, the same for the same seed: every worker can make them, the first one's win.

    `hidden.weight` [inputs, hidden] is He-normal, variance 2 / inputs, for a layer that a ReLU halves (He et al. 2015,
    arXiv:1502.01852); `output.weight` [hidden, classes] is Glorot-uniform within ±√(6 / (hidden + classes)) (Glorot &
    Bengio 2010). Biases are zero.
    """
    rng = np.random.default_rng(seed)
    limit = np.sqrt(6 / (hidden + classes))
    parameters = {
        "hidden.weight": rng.normal(0, np.sqrt(2 / inputs), (inputs, hidden)),
        "hidden.bias": np.zeros(hidden),
        "output.weight": rng.uniform(-limit, limit, (hidden, classes)),
        "output.bias": np.zeros(classes),
    }
    return {name: value.astype(np.float32) for name, value in parameters.items()}


def logits(parameters: Parameters, x: Array) -> Array:
    """The forward pass: inputs float32[n, in] to logits float32[n, classes]."""
    hidden = np.maximum(x @ parameters["hidden.weight"] + parameters["hidden.bias"], 0)
    scores: Array = hidden @ parameters["output.weight"] + parameters["output.bias"]
    return scores


def loss_and_gradients(parameters: Parameters, x: Array, t: Array) -> tuple[float, dict[str, Array]]:
    """The mean loss over the batch and its gradient for every parameter.

    x: float32[n, in]; t: float32[n, classes], one-hot rows. The parameters are only read.
    """
    n = len(x)
    # Forward.
    a = x @ parameters["hidden.weight"] + parameters["hidden.bias"]
    h = np.maximum(a, 0)
    z = h @ parameters["output.weight"] + parameters["output.bias"]
    loss, dz = softmax_cross_entropy(z, t)
    # Backward: d_ stands for the derivative of the mean loss with respect to _.
    dz /= n
    dh = dz @ parameters["output.weight"].T
    da = dh * (a > 0)
    return loss / n, {
        "hidden.weight": x.T @ da,
        "hidden.bias": da.sum(axis=0),
        "output.weight": h.T @ dz,
        "output.bias": dz.sum(axis=0),
    }


def accuracy(parameters: Parameters, x: Array, labels: Array) -> float:
    """Share of the rows whose largest logit is the label's."""
    return float(np.mean(logits(parameters, x).argmax(axis=1) == labels))
