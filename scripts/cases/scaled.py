"""Scaled rates: what it is compared with."""

from __future__ import annotations

from typing import Any

from cases.clips import NORM, VALUE
from cases.draws import Row, decay, draws, momentum, recent, scaled

# Our name → their constructor and the words that it is called with.
TORCH = {
    "adadelta": ("Adadelta", ("lr", "rho", "eps", "weight_decay", "maximize")),
    "adagrad": ("Adagrad", ("lr", "lr_decay", "initial_accumulator_value", "eps", "weight_decay", "maximize")),
    "rmsprop": ("RMSprop", ("lr", "alpha", "eps", "momentum", "centered", "weight_decay", "maximize")),
}
KERAS = {
    "adadelta": ("Adadelta", ("rho", "epsilon")),
    "adagrad": ("Adagrad", ("initial_accumulator_value", "epsilon")),
    "rmsprop": ("RMSprop", ("rho", "momentum", "epsilon", "centered")),
}
OPTAX = {
    "adadelta": ("adadelta", ("rho", "eps", "weight_decay")),
    "adagrad": ("adagrad", ("initial_accumulator_value", "eps")),
    "rmsprop": (
        "rmsprop",
        ("decay", "eps", "initial_scale", "eps_in_sqrt", "centered", "momentum", "nesterov", "bias_correction"),
    ),
}

ROWS: list[Row] = [
    ("adadelta", "", "torch", draws(decay, lr=0.7, rho=0.8, eps=1e-4)),
    ("adadelta", "", "keras", draws(decay, lr=0.7, rho=0.8, eps=1e-4)),
    ("adadelta", "", "optax", draws(decay, lr=0.7, rho=0.8, eps=1e-4)),
    ("adagrad", "lr_decay", "torch", draws(scaled, decay, lr_decay=0.02)),
    ("rmsprop", "", "torch", draws(recent, decay)),
    ("rmsprop", "momentum", "torch", draws(momentum, recent, decay)),
    ("rmsprop", "centered, momentum", "torch", draws(momentum, recent, decay, centered=True)),
    ("adagrad", "", "keras", draws(scaled, decay)),
    ("rmsprop", "", "keras", draws(recent, decay)),
    ("rmsprop", "centered, momentum", "keras", draws(momentum, recent, centered=True)),
    ("adagrad", "", "optax", draws(scaled)),
    ("rmsprop", "", "optax", draws(recent)),
    ("rmsprop", "eps beside the root, nesterov", "optax",
     draws(momentum, recent, eps_in_sqrt=False, nesterov=True, initial_accumulator_value=1.0)),
    ("rmsprop", "bias_correction", "optax", draws(recent, bias_correction=True)),
    ("rmsprop", "centered, momentum", "optax", draws(momentum, recent, centered=True)),
]  # fmt: skip

# Golden: with torch, with Keras and optax, and bits of forms that none of them has.
CASES: list[dict[str, Any]] = [
    {"optimizer": {"name": "adadelta", "lr": 1.0}, "clip": []},
    {"optimizer": {"name": "adadelta", "rho": 0.7, "weight_decay": 0.1, "maximize": True}, "clip": [NORM]},
    {"optimizer": {"name": "adagrad", "lr": 0.1}, "clip": []},
    {"optimizer": {"name": "adagrad", "lr": 0.1, "lr_decay": 0.05, "initial_accumulator_value": 0.5}, "clip": [NORM]},
    {"optimizer": {"name": "rmsprop", "lr": 0.01, "weight_decay": 0.1}, "clip": []},
    {"optimizer": {"name": "rmsprop", "lr": 0.01, "alpha": 0.8, "momentum": 0.9}, "clip": [VALUE]},
    {"optimizer": {"name": "rmsprop", "lr": 0.01, "alpha": 0.9, "centered": True, "momentum": 0.5}, "clip": []},
]
OTHERS: list[dict[str, Any]] = [
    {"optimizer": {"name": "adadelta", "compat": "keras", "lr": 1.0, "weight_decay": 0.1}},
    {"optimizer": {"name": "adadelta", "compat": "optax"}},
    {"optimizer": {"name": "adagrad", "compat": "keras", "lr": 0.1}},
    {"optimizer": {"name": "rmsprop", "compat": "keras", "lr": 0.01, "momentum": 0.9, "centered": True}},
    {"optimizer": {"name": "adagrad", "compat": "optax", "lr": 0.1}},
    {"optimizer": {"name": "rmsprop", "compat": "optax", "lr": 0.01, "momentum": 0.9, "nesterov": True}},
    {"optimizer": {"name": "rmsprop", "compat": "optax", "lr": 0.01, "bias_correction": True, "eps_in_sqrt": False}},
]
OURS_ONLY: list[dict[str, Any]] = [
    {"optimizer": {"name": "adagrad", "lr": 0.1, "eps_in_sqrt": True, "eps": 1e-7}, "clip": [VALUE]},
    {
        "optimizer": {
            "name": "rmsprop",
            "lr": 0.01,
            "centered": True,
            "bias_correction": True,
            "momentum": 0.9,
            "nesterov": True,
            "lr_in_momentum": True,
            "eps_in_sqrt": True,
        },
        "clip": [],
    },
]
