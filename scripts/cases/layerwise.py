"""Rates of a tensor's own: what they are compared with."""

from __future__ import annotations

from typing import Any

from cases.clips import NORM, VALUE
from cases.draws import Row, decay, draws, moments, momentum

TORCH: dict[str, Any] = {}
KERAS = {
    "lamb": ("Lamb", ("beta_1", "beta_2", "epsilon")),
}
OPTAX = {
    "lamb": ("lamb", ("b1", "b2", "eps", "eps_root", "weight_decay")),
    "lars": ("lars", ("momentum", "nesterov", "trust_coefficient", "eps", "weight_decay")),
    "novograd": ("novograd", ("b1", "b2", "eps", "eps_root", "weight_decay")),
    "fromage": ("fromage", ("min_norm",)),
}

ROWS: list[Row] = [
    ("lamb", "", "keras", draws(moments, decay)),
    ("lamb", "eps_root", "optax", draws(moments, decay, eps_root=1e-6)),
    ("lars", "", "optax", draws(momentum, decay, lr=10.0)),
    ("lars", "nesterov, eps", "optax", draws(momentum, decay, lr=10.0, nesterov=True, eps=1e-6)),
    ("novograd", "", "optax", draws(moments, decay)),
    ("fromage", "", "optax", draws()),
]

CASES: list[dict[str, Any]] = []
OTHERS: list[dict[str, Any]] = [
    {"optimizer": {"name": "lamb", "compat": "keras", "lr": 0.02, "weight_decay": 0.1}},
    {"optimizer": {"name": "lamb", "compat": "optax", "lr": 0.02, "weight_decay": 0.1}},
    {"optimizer": {"name": "lars", "compat": "optax", "lr": 5.0, "weight_decay": 0.1}},
    {"optimizer": {"name": "novograd", "compat": "optax", "lr": 0.02, "weight_decay": 0.1}},
    {"optimizer": {"name": "fromage", "compat": "optax", "lr": 0.02}},
]
OURS_ONLY: list[dict[str, Any]] = [
    {"optimizer": {"name": "lamb", "lr": 0.02, "weight_decay": 0.1, "trust_clip": True}, "clip": [NORM]},
    {"optimizer": {"name": "lars", "lr": 5.0, "norm_of_sum": False, "lr_in_momentum": False}, "clip": [VALUE]},
    {"optimizer": {"name": "novograd", "lr": 0.02, "grad_averaging": True, "maximize": True}, "clip": []},
    {"optimizer": {"name": "fromage", "lr": 0.02, "weight_decay": 0.1}, "clip": []},
]
