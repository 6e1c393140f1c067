"""Statistics of rows and columns: what they are compared with."""

from __future__ import annotations

from typing import Any

from cases.clips import NORM
from cases.draws import Row, draws, momentum

TORCH: dict[str, Any] = {}
KERAS: dict[str, Any] = {}
OPTAX = {
    "sm3": ("sm3", ("momentum",)),
}

ROWS: list[Row] = [
    ("sm3", "", "optax", draws(momentum)),
]

CASES: list[dict[str, Any]] = []
OTHERS: list[dict[str, Any]] = [{"optimizer": {"name": "sm3", "compat": "optax", "lr": 0.05}}]
OURS_ONLY: list[dict[str, Any]] = [
    {"optimizer": {"name": "sm3", "lr": 0.05, "momentum": 0.0, "weight_decay": 0.1, "maximize": True}, "clip": [NORM]},
]
