"""Hyperparameters by chance, for the comparisons of `scripts/parity.py`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Draw = Callable[[np.random.Generator], dict[str, Any]]
Row = tuple[str, str, str, Draw]  # optimizer, form, reference, its hyperparameters


def log(random: np.random.Generator, low: float, high: float) -> float:
    """Anything between the two, small as often as large."""
    return float(np.exp(random.uniform(math.log(low), math.log(high))))


def moments(random: np.random.Generator) -> dict[str, Any]:
    """Of the family of Adam."""
    return {
        "lr": log(random, 1e-2, 0.1),
        "beta1": float(random.uniform(0.5, 0.99)),
        "beta2": float(random.uniform(0.9, 0.9999)),
        "eps": log(random, 1e-8, 1e-4),
    }


def decay(random: np.random.Generator) -> dict[str, Any]:
    """Weight decay."""
    return {"weight_decay": log(random, 1e-3, 0.1)}


def momentum(random: np.random.Generator) -> dict[str, Any]:
    """Of a rule with a velocity."""
    return {"lr": log(random, 1e-2, 0.1), "momentum": float(random.uniform(0.5, 0.95))}


def scaled(random: np.random.Generator) -> dict[str, Any]:
    """Of Adagrad."""
    return {"lr": log(random, 3e-2, 0.3), "initial_accumulator_value": log(random, 1e-3, 1.0)}


def recent(random: np.random.Generator) -> dict[str, Any]:
    """Of RMSprop."""
    return {"lr": log(random, 1e-2, 0.1), "alpha": float(random.uniform(0.8, 0.99)), "eps": log(random, 1e-7, 1e-3)}


def draws(*parts: Draw, **fixed: Any) -> Draw:
    """All parts of a draw together, and what is fixed in it."""
    return lambda random: {**{k: v for part in parts for k, v in part(random).items()}, **fixed}
