"""Steps by sign: what it is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases.clips import NORM
from cases.draws import Row, decay, draws, log

# Our name → their constructor and the words that it is called with.
TORCH = {"rprop": ("Rprop", ("lr", "etas", "step_sizes", "maximize"))}
KERAS = {"lion": ("Lion", ("beta_1", "beta_2"))}
OPTAX = {
    "sign_sgd": ("sign_sgd", ()),
    "signum": ("signum", ("beta",)),
    "lion": ("lion", ("b1", "b2", "weight_decay")),
}


def signs(random: np.random.Generator) -> dict[str, Any]:
    """Of a rule that steps by signs."""
    return {"lr": log(random, 1e-3, 1e-2)}


def means(random: np.random.Generator) -> dict[str, Any]:
    """Of Lion."""
    return {"beta1": float(random.uniform(0.5, 0.99)), "beta2": float(random.uniform(0.8, 0.999))}


def steps(random: np.random.Generator) -> dict[str, Any]:
    """Of Rprop."""
    return {"eta_minus": float(random.uniform(0.3, 0.8)), "eta_plus": float(random.uniform(1.1, 1.5)), "step_max": 0.1}


ROWS: list[Row] = [
    ("rprop", "constant lr", "torch", draws(signs, steps)),
    ("lion", "", "keras", draws(signs, means, decay)),
    ("sign_sgd", "", "optax", draws(signs)),
    ("signum", "", "optax", draws(signs)),
    ("lion", "", "optax", draws(signs, means, decay)),
]

# Golden: with torch, with other libraries, and bits of forms that none of them has. torch's Rprop reads lr once.
CASES: list[dict[str, Any]] = [
    {"optimizer": {"name": "rprop", "lr": 0.01}, "clip": [], "constant_lr": True},
    {"optimizer": {"name": "rprop", "lr": 0.01, "step_max": 0.02, "maximize": True}, "clip": [], "constant_lr": True},
]
OTHERS: list[dict[str, Any]] = [
    {"optimizer": {"name": "lion", "compat": "keras", "lr": 0.01, "weight_decay": 0.1}},
    {"optimizer": {"name": "lion", "compat": "optax", "lr": 0.01}},
    {"optimizer": {"name": "sign_sgd", "compat": "optax", "lr": 0.01}},
    {"optimizer": {"name": "signum", "compat": "optax", "lr": 0.01}},
]
OURS_ONLY: list[dict[str, Any]] = [
    {"optimizer": {"name": "sign_sgd", "lr": 0.01, "weight_decay": 0.1}, "clip": [NORM]},
    {"optimizer": {"name": "signum", "lr": 0.01, "maximize": True}, "clip": []},
    {"optimizer": {"name": "lion", "lr": 0.01, "weight_decay": 0.1}, "clip": [NORM]},
    {"optimizer": {"name": "rprop", "lr": 0.01, "weight_decay": 0.1}, "clip": []},
]
