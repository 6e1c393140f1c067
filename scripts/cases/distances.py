"""Rules that measure the way: what they are compared with."""

from __future__ import annotations

from typing import Any

from cases.clips import NORM
from cases.draws import Row, decay, draws

OPTAX = {
    "dog": ("dog", ("reps_rel", "initial_distance", "eps", "weight_decay")),
    "dowg": ("dowg", ("init_estim_sq_dist", "eps", "weight_decay")),
}

ROWS: list[Row] = [
    ("dog", "", "optax", draws(decay, reps_rel=1e-2)),
    ("dog", "initial_distance", "optax", draws(initial_distance=0.1, lr=0.5)),
    ("dowg", "", "optax", draws(decay)),
    ("dowg", "initial_squared_distance", "optax", draws(initial_squared_distance=0.1, lr=0.5)),
]

CASES: list[dict[str, Any]] = []
OTHERS: list[dict[str, Any]] = [
    {"optimizer": {"name": "dog", "compat": "optax", "reps_rel": 1e-3, "weight_decay": 0.1}},
    {"optimizer": {"name": "dowg", "compat": "optax", "weight_decay": 0.1}},
]
OURS_ONLY: list[dict[str, Any]] = [
    {"optimizer": {"name": "dog", "reps_rel": 1e-3}, "clip": [NORM]},
    {"optimizer": {"name": "dog", "initial_distance": 0.1, "weight_decay": 0.1, "weight_decay_mode": "decoupled"},
     "clip": []},
    {"optimizer": {"name": "dowg"}, "clip": []},
    {"optimizer": {"name": "dowg", "initial_squared_distance": 0.1}, "clip": [NORM]},
]  # fmt: skip
