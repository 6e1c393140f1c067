"""Gradient descent: what it is compared with."""

from __future__ import annotations

from typing import Any

from cases.clips import NORM, VALUE
from cases.draws import Row, decay, draws, momentum

# Our name → their constructor and the words that it is called with.
TORCH = {
    "sgd": ("SGD", ("lr", "momentum", "dampening", "nesterov", "weight_decay", "maximize")),
}
KERAS = {
    "sgd": ("SGD", ("momentum", "nesterov")),
}
OPTAX = {
    "sgd": ("sgd", ("momentum", "nesterov")),
}

ROWS: list[Row] = [
    ("sgd", "", "torch", draws(momentum, decay, momentum=0.0)),
    ("sgd", "momentum, dampening", "torch", draws(momentum, decay, dampening=0.3)),
    ("sgd", "nesterov", "torch", draws(momentum, decay, nesterov=True)),
    ("sgd", "momentum", "keras", draws(momentum, decay)),
    ("sgd", "nesterov", "keras", draws(momentum, decay, nesterov=True)),
    ("sgd", "momentum", "optax", draws(momentum)),
    ("sgd", "nesterov", "optax", draws(momentum, nesterov=True)),
]  # fmt: skip

# Golden: with torch, with Keras and optax, and bits of forms that none of them has.
CASES: list[dict[str, Any]] = [
    {"optimizer": {"name": "sgd", "lr": 0.05}, "clip": []},
    {"optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 0.1}, "clip": [NORM]},
    {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}, "clip": []},
    {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.1}, "clip": []},
    {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}, "clip": []},
    {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "maximize": True, "weight_decay": 0.1}, "clip": [VALUE]},
]
OTHERS: list[dict[str, Any]] = [
    {"optimizer": {"name": "sgd", "compat": "keras", "lr": 0.05, "momentum": 0.9, "nesterov": True}},
    {"optimizer": {"name": "sgd", "compat": "optax", "lr": 0.05, "momentum": 0.9}},
]
OURS_ONLY: list[dict[str, Any]] = [
    {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "lr_in_momentum": True}, "clip": []},
    {"optimizer": {"name": "noisy_sgd", "lr": 0.07}, "clip": []},  # its noise is a stage: not in these updates
]
