"""Rules that train at an average: what they are compared with."""

from __future__ import annotations

from typing import Any

from cases.clips import NORM
from cases.draws import Row, decay, draws, moments, momentum

# Our name → their constructor, the words that it is called with, and what else it is always called with.
POWERS = ("weight_decay", "r", "weight_lr_power")
SCHEDULEFREE: dict[str, Any] = {
    "schedule_free_sgd": ("SGDScheduleFree", ("momentum", "warmup_steps", *POWERS), {"foreach": False}),
    "schedule_free_adamw": ("AdamWScheduleFree", ("betas", "eps", "warmup_steps", *POWERS), {"foreach": False}),
    "schedule_free_radam": ("RAdamScheduleFree", ("betas", "eps", "silent_sgd_phase", *POWERS), {"foreach": False}),
}

ROWS: list[Row] = [
    ("schedule_free_sgd", "", "schedulefree", draws(momentum, decay)),
    ("schedule_free_sgd", "warmup, r", "schedulefree", draws(momentum, warmup_steps=30, r=1.5, weight_lr_power=1.0)),
    ("schedule_free_adamw", "", "schedulefree", draws(moments, decay)),
    ("schedule_free_adamw", "warmup, r", "schedulefree", draws(moments, decay, warmup_steps=30, r=0.5)),
    ("schedule_free_radam", "", "schedulefree", draws(moments, decay)),
    ("schedule_free_radam", "silent_sgd_phase: false", "schedulefree", draws(moments, silent_sgd_phase=False)),
]

CASES: list[dict[str, Any]] = []
OTHERS: list[dict[str, Any]] = [
    {"optimizer": {"name": "schedule_free_sgd", "lr": 0.1, "warmup_steps": 10, "weight_decay": 0.1},
     "reference": "schedulefree"},
    {"optimizer": {"name": "schedule_free_adamw", "lr": 0.02, "weight_decay": 0.1}, "reference": "schedulefree"},
    {"optimizer": {"name": "schedule_free_radam", "lr": 0.02, "weight_decay": 0.1}, "reference": "schedulefree"},
]  # fmt: skip
OURS_ONLY: list[dict[str, Any]] = [
    {"optimizer": {"name": "schedule_free_sgd", "lr": 0.1}, "clip": [NORM]},
    {"optimizer": {"name": "schedule_free_sgd", "lr": 0.1, "warmup_steps": 20, "weight_lr_power": 1.5}, "clip": []},
    {"optimizer": {"name": "schedule_free_adamw", "lr": 0.02, "weight_decay": 0.1}, "clip": []},
    {"optimizer": {"name": "schedule_free_adamw", "lr": 0.02, "r": 0.5, "weight_decay_mode": "l2",
                   "weight_decay": 0.1}, "clip": [NORM]},
    {"optimizer": {"name": "schedule_free_radam", "lr": 0.02}, "clip": []},
    {"optimizer": {"name": "schedule_free_radam", "lr": 0.02, "silent_sgd_phase": False}, "clip": []},
]  # fmt: skip
