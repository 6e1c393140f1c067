"""Step sizes found while training: what they are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases.clips import NORM
from cases.draws import Row, decay, draws, log, moments

TORCH: dict[str, Any] = {}
KERAS: dict[str, Any] = {}
OPTAX = {
    "polyak_sgd": ("polyak_sgd", ("max_learning_rate", "f_min", "eps", "variant")),
    "momo": ("momo", ("beta", "lower_bound", "adapt_lower_bound", "weight_decay")),
    "momo_adam": ("momo_adam", ("b1", "b2", "eps", "lower_bound", "adapt_lower_bound", "weight_decay")),
}


def momentum_of_momo(random: np.random.Generator) -> dict[str, Any]:
    """A rate that the model of the loss has to shorten now and then."""
    return {"lr": log(random, 1e-2, 1.0), "beta": float(random.uniform(0.5, 0.95))}


ROWS: list[Row] = [
    ("polyak_sgd", "", "optax", draws(eps=1e-3)),
    ("polyak_sgd", "sps+", "optax", draws(variant="sps+", f_min=2.0)),
    ("momo", "", "optax", draws(momentum_of_momo, decay)),
    ("momo", "adapt_lower_bound", "optax", draws(momentum_of_momo, decay, adapt_lower_bound=True, lower_bound=-9.0)),
    ("momo_adam", "", "optax", draws(moments, decay)),
    ("momo_adam", "adapt_lower_bound", "optax", draws(moments, decay, adapt_lower_bound=True, lower_bound=-9.0)),
]

CASES: list[dict[str, Any]] = []
OTHERS: list[dict[str, Any]] = [
    {"optimizer": {"name": "polyak_sgd", "compat": "optax", "lr": 0.5}},
    {"optimizer": {"name": "momo", "compat": "optax", "weight_decay": 0.1}},
    {"optimizer": {"name": "momo_adam", "compat": "optax", "adapt_lower_bound": True, "weight_decay": 0.1}},
]
OURS_ONLY: list[dict[str, Any]] = [
    {"optimizer": {"name": "polyak_sgd", "lr": 0.5, "variant": "sps+", "weight_decay": 0.1}, "clip": []},
    {"optimizer": {"name": "momo", "weight_decay": 0.1}, "clip": [NORM]},
    {"optimizer": {"name": "momo", "lr": 0.1, "adapt_lower_bound": True, "lower_bound": -9.0}, "clip": []},
    {"optimizer": {"name": "momo_adam", "weight_decay": 0.1, "weight_decay_mode": "l2"}, "clip": []},
    {"optimizer": {"name": "momo_adam", "lr": 0.1, "adapt_lower_bound": True}, "clip": [NORM]},
]
