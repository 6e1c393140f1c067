"""Step sizes found while training: what they are compared with."""

from __future__ import annotations

from typing import Any

from cases.draws import Row, draws

TORCH: dict[str, Any] = {}
KERAS: dict[str, Any] = {}
OPTAX = {
    "polyak_sgd": ("polyak_sgd", ("max_learning_rate", "f_min", "eps", "variant")),
}

ROWS: list[Row] = [
    ("polyak_sgd", "", "optax", draws(eps=1e-3)),
    ("polyak_sgd", "sps+", "optax", draws(variant="sps+", f_min=2.0)),
]

CASES: list[dict[str, Any]] = []
OTHERS: list[dict[str, Any]] = [{"optimizer": {"name": "polyak_sgd", "compat": "optax", "lr": 0.5}}]
OURS_ONLY: list[dict[str, Any]] = [
    {"optimizer": {"name": "polyak_sgd", "lr": 0.5, "variant": "sps+", "weight_decay": 0.1}, "clip": []},
]
