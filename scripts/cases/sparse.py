"""Rules for tables. The libraries compared with have them for sparse gradients alone: see tests/pytorch."""

from __future__ import annotations

from typing import Any

from cases.clips import NORM
from cases.draws import Row

# Our name → their constructor and the words that it is called with.
TORCH: dict[str, tuple[str, tuple[str, ...]]] = {}
KERAS: dict[str, tuple[str, tuple[str, ...]]] = {}
OPTAX: dict[str, tuple[str, tuple[str, ...]]] = {}

ROWS: list[Row] = []

# Golden: with torch, with other libraries, and bits of forms that none of them has.
CASES: list[dict[str, Any]] = []
OTHERS: list[dict[str, Any]] = []
OURS_ONLY: list[dict[str, Any]] = [
    {"optimizer": {"name": "sparse_adam", "lr": 0.01}, "clip": [NORM]},
    {"optimizer": {"name": "rowwise_adagrad", "lr": 0.01, "weight_decay": 0.1}, "clip": []},
    {"optimizer": {"name": "rowwise_adam", "lr": 0.01, "maximize": True}, "clip": [NORM]},
]
