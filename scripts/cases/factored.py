"""Second moments of rank one: what they are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases.clips import NORM, VALUE
from cases.draws import Row, decay, draws, log

TORCH = {
    "adafactor": ("Adafactor", ("lr", "beta2_decay", "eps", "d", "weight_decay", "maximize")),
}
KERAS = {
    "adafactor": ("Adafactor", ("beta_2_decay", "epsilon_1", "epsilon_2", "clip_threshold", "relative_step")),
}
OPTAX = {
    "adafactor": (
        "adafactor",
        ("min_dim_size_to_factor", "multiply_by_parameter_scale", "clipping_threshold", "momentum",
         "weight_decay_rate"),
    ),
}  # fmt: skip
TRANSFORMERS = {
    "adafactor": ("Adafactor", ("lr", "clip_threshold", "decay_rate", "weight_decay", "scale_parameter")),
}


def shares(random: np.random.Generator) -> dict[str, Any]:
    """Of Adafactor."""
    return {
        "lr": log(random, 3e-2, 0.3),
        "beta2_decay": float(random.uniform(-1.0, -0.3)),
        "eps2": log(random, 1e-4, 0.1),
        "clip_threshold": float(random.uniform(1.0, 2.0)),
    }


ROWS: list[Row] = [
    ("adafactor", "", "torch", draws(shares, decay)),
    ("adafactor", "maximize, eps1", "torch", draws(shares, decay, maximize=True, eps1=0.05)),
    ("adafactor", "", "keras", draws(shares, decay)),
    ("adafactor", "", "transformers", draws(shares, decay)),
    ("adafactor", "beta1, rate as it comes", "transformers", draws(shares, decay, beta1=0.8, relative_step=False)),
    ("adafactor", "not relative to the weights", "transformers", draws(shares, decay, scale_parameter=False)),
    ("adafactor", "whole v", "optax", draws(shares, decay, eps2=1e-3)),
    (
        "adafactor",
        "largest axes, beta1",
        "optax",
        draws(shares, decay, eps2=1e-3, factor_from=3, beta1=0.8),
    ),
]
# float32 inside, whatever is asked: Keras' powers of the count and its added epsilon, optax' power of the count.
BOUNDS = {("adafactor", "keras"): 1e-6, ("adafactor", "optax"): 2e-7}

CASES: list[dict[str, Any]] = [
    {"optimizer": {"name": "adafactor", "lr": 0.1}, "clip": []},
    {"optimizer": {"name": "adafactor", "lr": 0.1, "weight_decay": 0.1, "clip_threshold": 1.5}, "clip": [NORM]},
    {"optimizer": {"name": "adafactor", "lr": 0.1, "beta2_decay": -0.5, "eps1": 0.05, "maximize": True}, "clip": []},
]
OTHERS: list[dict[str, Any]] = [
    {"optimizer": {"name": "adafactor", "compat": "transformers", "lr": 0.1, "weight_decay": 0.1}},
    {"optimizer": {"name": "adafactor", "compat": "transformers", "lr": 0.1, "beta1": 0.8, "relative_step": False}},
    {"optimizer": {"name": "adafactor", "compat": "keras", "lr": 0.1, "weight_decay": 0.1}, "bound": 1e-6},
    {
        "optimizer": {"name": "adafactor", "compat": "optax", "lr": 0.1, "factor_from": 2, "weight_decay": 0.01},
        "bound": 2e-7,
    },
]
OURS_ONLY: list[dict[str, Any]] = [
    {"optimizer": {"name": "adafactor", "variant": "paper", "lr": 0.1, "weight_decay_mode": "l2"}, "clip": [VALUE]},
    {
        "optimizer": {"name": "adafactor", "compat": "optax", "lr": 0.1, "weight_decay": 0.1, "factor_from": 3},
        "clip": [],
    },
    {"optimizer": {"name": "adafactor", "compat": "keras", "lr": 0.1, "weight_decay": 0.1, "beta1": 0.9}, "clip": []},
]
