"""Steps mixed from several means: what it is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases.clips import NORM
from cases.draws import Row, decay, draws, log, moments

# Our name → their constructor and the words that it is called with.
TORCH: dict[str, Any] = {}
KERAS: dict[str, Any] = {}
OPTAX = {
    "ademamix": ("ademamix", ("b1", "b2", "b3", "alpha", "eps", "eps_root", "weight_decay")),
    "simplified_ademamix": ("simplified_ademamix", ("b1", "b2", "alpha", "eps", "eps_root", "weight_decay")),
    "optimistic_gradient_descent": ("optimistic_gradient_descent", ("alpha", "beta")),
    "optimistic_adam": ("optimistic_adam_v2", ("alpha", "beta", "b1", "b2", "eps", "eps_root", "nesterov")),
}
PYTORCH_OPTIMIZER = {
    "adan": ("Adan", ("lr", "betas", "eps", "weight_decay"), {"weight_decouple": True}),
    "ademamix": (
        "AdEMAMix",
        ("lr", "betas", "eps", "weight_decay", "alpha", "t_alpha_beta3"),
        {"weight_decouple": True},
    ),
}


def slow(random: np.random.Generator) -> dict[str, Any]:
    """Of AdEMAMix."""
    return {"beta3": float(random.uniform(0.99, 0.9999)), "alpha": float(random.uniform(1, 8))}


def optimism(random: np.random.Generator) -> dict[str, Any]:
    """Of an optimistic rule."""
    return {"lr": log(random, 1e-2, 0.1), "alpha": float(random.uniform(0.5, 2)), "beta": float(random.uniform(0.1, 2))}


def differences(random: np.random.Generator) -> dict[str, Any]:
    """Of Adan."""
    return {"beta2": float(random.uniform(0.8, 0.95)), "beta3": float(random.uniform(0.9, 0.999))}


ROWS: list[Row] = [
    ("adan", "", "pytorch_optimizer", draws(moments, differences, decay)),
    ("ademamix", "", "optax", draws(moments, slow, decay)),
    ("ademamix", "warmups", "pytorch_optimizer",
     draws(moments, slow, decay, alpha_warmup=60, beta3_warmup=60)),
    ("simplified_ademamix", "", "optax", draws(moments, decay, lr=1e-3, alpha=2.0)),
    ("optimistic_gradient_descent", "", "optax", draws(optimism)),
    ("optimistic_adam", "", "optax", draws(moments, optimism)),
    ("optimistic_adam", "no look-ahead", "optax", draws(moments, optimism, nesterov=False, eps_root=1e-6)),
]  # fmt: skip

# Golden: with torch, with other libraries, and bits of forms that none of them has.
CASES: list[dict[str, Any]] = []
OTHERS: list[dict[str, Any]] = [
    {"optimizer": {"name": "adan", "lr": 0.02, "weight_decay": 0.1}, "reference": "pytorch_optimizer"},
    {"optimizer": {"name": "ademamix", "compat": "optax", "lr": 0.02, "beta3": 0.99}},
    {
        "optimizer": {"name": "ademamix", "lr": 0.02, "beta3": 0.99, "alpha_warmup": 60, "beta3_warmup": 60},
        "reference": "pytorch_optimizer",
    },
    {"optimizer": {"name": "simplified_ademamix", "compat": "optax", "lr": 1e-3, "alpha": 2.0}},
    {"optimizer": {"name": "optimistic_gradient_descent", "compat": "optax", "lr": 0.05, "beta": 0.5}},
    {"optimizer": {"name": "optimistic_adam", "compat": "optax", "lr": 0.02}},
]
OURS_ONLY: list[dict[str, Any]] = [
    {"optimizer": {"name": "adan", "lr": 0.02}, "clip": []},
    {"optimizer": {"name": "adan", "lr": 0.02, "weight_decay": 0.1, "maximize": True}, "clip": [NORM]},
    {"optimizer": {"name": "ademamix", "lr": 0.02}, "clip": []},
    {
        "optimizer": {"name": "ademamix", "lr": 0.02, "beta3": 0.99, "alpha_warmup": 60, "beta3_warmup": 60},
        "clip": [NORM],
    },
    {"optimizer": {"name": "simplified_ademamix", "lr": 1e-3, "alpha": 2.0}, "clip": []},
    {"optimizer": {"name": "optimistic_gradient_descent", "lr": 0.05}, "clip": [NORM]},
    {"optimizer": {"name": "optimistic_adam", "lr": 0.02}, "clip": []},
    {"optimizer": {"name": "optimistic_adam", "lr": 0.02, "nesterov": False, "eps_root": 1e-6}, "clip": []},
]
