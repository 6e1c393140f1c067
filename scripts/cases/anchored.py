"""Rules with an anchor, sums or averages: what they are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases.clips import NORM
from cases.draws import Row, decay, draws, log

# Our name → their constructor and the words that it is called with.
TORCH = {"asgd": ("ASGD", ("lr", "lambd", "alpha", "t0", "weight_decay", "maximize"))}
KERAS = {
    "ftrl": (
        "Ftrl",
        (
            "learning_rate_power",
            "initial_accumulator_value",
            "l1_regularization_strength",
            "l2_regularization_strength",
            "l2_shrinkage_regularization_strength",
            "beta",
        ),
    )
}
OPTAX = {
    "madgrad": ("madgrad", ("momentum", "eps", "weight_decay")),
    "cocob": ("cocob", ("alpha", "eps", "weight_decay")),
}


def rate(random: np.random.Generator) -> dict[str, Any]:
    """A learning rate."""
    return {"lr": log(random, 1e-2, 0.1)}


ROWS: list[Row] = [
    ("asgd", "constant lr", "torch", draws(rate, decay, lambd=0.01, t0=20.0, maximize=True)),
    ("ftrl", "constant lr", "keras", draws(rate)),  # Keras decays before the rule reads the weights
    (
        "ftrl",
        "constant lr; l1, l2, shrinkage, beta",
        "keras",
        draws(rate, l1=0.01, l2=0.02, l2_shrinkage=0.01, beta=0.5),
    ),
    ("madgrad", "", "optax", draws(rate, decay)),
    ("cocob", "", "optax", draws(decay, lr=1.0)),
]

# Golden: with torch, with other libraries, and bits of forms that none of them has. torch's ASGD sees lr one late.
CASES: list[dict[str, Any]] = [
    {"optimizer": {"name": "asgd", "lr": 0.02, "lambd": 0.01, "weight_decay": 0.1}, "clip": [], "constant_lr": True},
]
OTHERS: list[dict[str, Any]] = [
    {"optimizer": {"name": "ftrl", "compat": "keras", "lr": 0.05, "l1": 0.01}, "constant_lr": True},
    {"optimizer": {"name": "cocob", "compat": "optax"}},
]
OURS_ONLY: list[dict[str, Any]] = [
    {"optimizer": {"name": "ftrl", "lr": 0.05, "l1": 0.01, "l2": 0.1}, "clip": [NORM]},
    {"optimizer": {"name": "ftrl", "lr": 0.05, "keep_initial": False, "learning_rate_power": -1.0}, "clip": []},
    {"optimizer": {"name": "madgrad", "lr": 0.02, "weight_decay": 0.1}, "clip": []},
    {"optimizer": {"name": "cocob"}, "clip": [NORM]},
    {"optimizer": {"name": "asgd", "lr": 0.02, "t0": 10}, "clip": []},
]
