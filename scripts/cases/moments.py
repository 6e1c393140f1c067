"""The family of Adam: what it is compared with."""

from __future__ import annotations

from typing import Any

from cases.clips import NORM, VALUE
from cases.draws import Row, decay, draws, moments

# Our name → their constructor and the words that it is called with.
TORCH = {
    "adam": ("Adam", ("lr", "betas", "eps", "amsgrad", "weight_decay", "maximize")),
    "adamw": ("AdamW", ("lr", "betas", "eps", "amsgrad", "weight_decay", "maximize")),
    "adamax": ("Adamax", ("lr", "betas", "eps", "weight_decay", "maximize")),
    "nadam": ("NAdam", ("lr", "betas", "eps", "momentum_decay", "weight_decay", "maximize")),
}
KERAS = {
    "adam": ("Adam", ("beta_1", "beta_2", "epsilon", "amsgrad")),
    "adamw": ("AdamW", ("beta_1", "beta_2", "epsilon", "amsgrad")),
    "adamax": ("Adamax", ("beta_1", "beta_2", "epsilon")),
    "nadam": ("Nadam", ("beta_1", "beta_2", "epsilon")),
}
OPTAX = {
    "adam": ("adam", ("b1", "b2", "eps", "eps_root")),
    "amsgrad": ("amsgrad", ("b1", "b2", "eps", "eps_root")),
    "adamw": ("adamw", ("b1", "b2", "eps", "eps_root", "weight_decay")),
    "adamax": ("adamax", ("b1", "b2", "eps")),
    "nadam": ("nadam", ("b1", "b2", "eps")),
}

ROWS: list[Row] = [
    ("adam", "", "torch", draws(moments, decay)),
    ("adam", "amsgrad, maximize", "torch", draws(moments, decay, amsgrad=True, maximize=True)),
    ("adamw", "", "torch", draws(moments, decay)),
    ("adamax", "", "torch", draws(moments, decay)),
    ("nadam", "", "torch", draws(moments, decay)),
    ("nadam", "decoupled decay", "torch", draws(moments, decay, weight_decay_mode="decoupled", momentum_decay=0.1)),
    ("adam", "", "keras", draws(moments, decay)),
    ("adam", "amsgrad", "keras", draws(moments, amsgrad=True)),
    ("adamw", "", "keras", draws(moments, decay)),
    ("adamax", "", "keras", draws(moments, decay)),
    ("nadam", "", "keras", draws(moments, decay)),
    ("adam", "eps_root", "optax", draws(moments, eps_root=1e-6)),
    ("adam", "amsgrad", "optax", draws(moments, amsgrad=True)),
    ("adamw", "", "optax", draws(moments, decay)),
    ("adamax", "", "optax", draws(moments)),
    ("nadam", "", "optax", draws(moments)),
]  # fmt: skip

# Golden: with torch, with Keras and optax, and bits of forms that none of them has.
CASES: list[dict[str, Any]] = [
    {"optimizer": {"name": "adam", "lr": 0.02}, "clip": []},
    {"optimizer": {"name": "adam", "lr": 0.02, "beta1": 0.5, "beta2": 0.9, "eps": 0.01}, "clip": [NORM]},
    {"optimizer": {"name": "adam", "lr": 0.02, "weight_decay": 0.1}, "clip": [VALUE, NORM]},
    {"optimizer": {"name": "adam", "lr": 0.02, "amsgrad": True, "maximize": True, "weight_decay": 0.1}, "clip": []},
    {"optimizer": {"name": "adamw", "lr": 0.02}, "clip": []},
    {"optimizer": {"name": "adamw", "lr": 0.02, "weight_decay": 0.3, "maximize": True}, "clip": [NORM]},
    {"optimizer": {"name": "adamw", "lr": 0.02, "amsgrad": True, "eps": 1e-6}, "clip": []},
    {"optimizer": {"name": "adamax", "lr": 0.02, "beta2": 0.9, "weight_decay": 0.1}, "clip": []},
    {"optimizer": {"name": "adamax", "lr": 0.02, "maximize": True, "eps": 0.01}, "clip": [NORM]},
    {"optimizer": {"name": "nadam", "lr": 0.02}, "clip": []},
    {"optimizer": {"name": "nadam", "lr": 0.02, "momentum_decay": 0.2, "weight_decay": 0.1}, "clip": [NORM]},
]
OTHERS: list[dict[str, Any]] = [
    {"optimizer": {"name": "adam", "compat": "keras", "lr": 0.02, "weight_decay": 0.1, "amsgrad": True}},
    {"optimizer": {"name": "adamax", "compat": "keras", "lr": 0.02, "weight_decay": 0.1}},
    {"optimizer": {"name": "nadam", "compat": "keras", "lr": 0.02}},
    {"optimizer": {"name": "adam", "compat": "optax", "lr": 0.02, "amsgrad": True, "eps_root": 1e-6}},
    {"optimizer": {"name": "adamax", "compat": "optax", "lr": 0.02}},
    {"optimizer": {"name": "nadam", "compat": "optax", "lr": 0.02}},
]
OURS_ONLY: list[dict[str, Any]] = [
    {"optimizer": {"name": "adam", "lr": 0.02, "eps_hat": True, "bias_correction": False}, "clip": [VALUE]},
    {
        "optimizer": {"name": "adam", "lr": 0.02, "amsgrad": True, "amsgrad_corrected": True, "eps_root": 1e-6},
        "clip": [NORM, VALUE],
    },
    {"optimizer": {"name": "adamax", "lr": 0.02, "eps_in_max": False, "eps": 0.01}, "clip": []},
    {"optimizer": {"name": "nadam", "lr": 0.02, "variant": "constant"}, "clip": [NORM]},
]
