"""Adam with another second moment: what it is compared with."""

from __future__ import annotations

from typing import Any

from cases.clips import NORM, VALUE
from cases.draws import Row, decay, draws, moments

# Our name → their constructor and the words that it is called with.
TORCH = {"radam": ("RAdam", ("lr", "betas", "eps", "weight_decay", "maximize"))}
KERAS: dict[str, Any] = {}
OPTAX = {
    "radam": ("radam", ("b1", "b2", "eps")),
    "adabelief": ("adabelief", ("b1", "b2", "eps", "eps_root")),
    "yogi": ("yogi", ("b1", "b2", "eps")),
    "acprop": ("acprop", ("b1", "b2", "eps", "eps_root", "weight_decay")),
    "adopt": ("adopt", ("b1", "b2", "eps", "use_clipping")),
}

ROWS: list[Row] = [
    ("radam", "", "torch", draws(moments, decay)),
    ("radam", "decoupled decay", "torch", draws(moments, decay, weight_decay_mode="decoupled", maximize=True)),
    ("radam", "", "optax", draws(moments)),
    ("adabelief", "", "optax", draws(moments)),
    ("adabelief", "eps_root", "optax", draws(moments, eps_root=1e-6)),
    ("yogi", "", "optax", draws(moments)),
    ("acprop", "", "optax", draws(moments, decay)),
    ("adopt", "", "optax", draws(moments)),
    ("adopt", "no clipping", "optax", draws(moments, clip_updates=False)),
]

# Golden: with torch, with other libraries, and bits of forms that none of them has.
CASES: list[dict[str, Any]] = [
    {"optimizer": {"name": "radam", "lr": 0.02, "weight_decay": 0.1}, "clip": [NORM]},
    {"optimizer": {"name": "radam", "lr": 0.02, "beta2": 0.9, "maximize": True}, "clip": []},
]
OTHERS: list[dict[str, Any]] = [
    {"optimizer": {"name": "radam", "compat": "optax", "lr": 0.02}},
    {"optimizer": {"name": "adabelief", "compat": "optax", "lr": 0.02}},
    {"optimizer": {"name": "yogi", "compat": "optax", "lr": 0.02}},
    {"optimizer": {"name": "acprop", "compat": "optax", "lr": 0.02, "weight_decay": 0.1}},
    {"optimizer": {"name": "adopt", "compat": "optax", "lr": 0.02}},
]
OURS_ONLY: list[dict[str, Any]] = [
    {"optimizer": {"name": "radam", "lr": 0.02, "eps_hat": False}, "clip": []},
    {"optimizer": {"name": "adabelief", "lr": 0.02, "weight_decay": 0.1}, "clip": [VALUE]},
    {"optimizer": {"name": "yogi", "lr": 0.02}, "clip": []},
    {"optimizer": {"name": "yogi", "lr": 0.02, "bias_correction": False, "initial_moment_value": 1e-6}, "clip": [NORM]},
    {"optimizer": {"name": "acprop", "lr": 0.02}, "clip": [NORM]},
    {"optimizer": {"name": "adopt", "lr": 0.02}, "clip": []},
    {"optimizer": {"name": "adopt", "lr": 0.02, "clip_updates": False, "maximize": True}, "clip": [NORM]},
]
