"""Rules that find their rate: what they are compared with."""

from __future__ import annotations

from typing import Any

from cases.clips import NORM
from cases.draws import Row, decay, draws, moments, momentum

# Our name → their constructor, the words that it is called with, and what else it is always called with.
DADAPTATION: dict[str, Any] = {
    "dadapt_sgd": ("DAdaptSGD", ("momentum", "d0", "growth_rate"), {}),  # its decay is missing from the first norm
    "dadapt_adam": ("DAdaptAdam", ("betas", "eps", "use_bias_correction", "d0", "growth_rate", "weight_decay"), {}),
}
PRODIGYOPT: dict[str, Any] = {
    "prodigy": (
        "Prodigy",
        ("betas", "beta3", "eps", "use_bias_correction", "safeguard_warmup", "d0", "d_coef", "growth_rate",
         "weight_decay"),
        {},
    ),
}  # fmt: skip
OPTAX = {
    "dadapt_adam": ("dadapt_adamw", ("beta1", "beta2", "eps", "estim_lr0", "weight_decay")),
    "prodigy": (
        "prodigy",
        ("beta1", "beta2", "beta3", "eps", "estim_lr0", "estim_lr_coef", "safeguard_warmup", "weight_decay"),
    ),
}

ROWS: list[Row] = [
    ("dadapt_sgd", "", "dadaptation", draws(momentum, lr=1.0, d0=1e-2, growth_rate=1.1)),
    ("dadapt_adam", "", "dadaptation", draws(moments, decay, lr=1.0, d0=1e-3, growth_rate=1.1)),
    ("dadapt_adam", "bias_correction, decoupled", "optax", draws(moments, decay, lr=1.0, d0=1e-3)),
    ("prodigy", "", "prodigyopt", draws(moments, decay, lr=1.0, d0=1e-3)),
    ("prodigy", "beta3, safeguard_warmup", "prodigyopt",
     draws(moments, decay, lr=1.0, d0=1e-3, beta3=0.9, safeguard_warmup=True, growth_rate=1.05, d_coef=0.5)),
    ("prodigy", "bias_correction", "optax", draws(moments, decay, lr=1.0, d0=1e-3)),
]  # fmt: skip

CASES: list[dict[str, Any]] = []
OTHERS: list[dict[str, Any]] = [
    {"optimizer": {"name": "dadapt_sgd", "d0": 1e-2, "momentum": 0.5, "growth_rate": 1.05}, "reference": "dadaptation"},
    {"optimizer": {"name": "dadapt_adam", "d0": 1e-3, "weight_decay": 0.1, "growth_rate": 1.05},
     "reference": "dadaptation"},
    {"optimizer": {"name": "dadapt_adam", "compat": "optax", "d0": 1e-3}},
    {"optimizer": {"name": "prodigy", "d0": 1e-3, "weight_decay": 0.1}, "reference": "prodigyopt"},
    {"optimizer": {"name": "prodigy", "compat": "optax", "d0": 1e-3}},
]  # fmt: skip
OURS_ONLY: list[dict[str, Any]] = [
    {"optimizer": {"name": "dadapt_sgd", "d0": 1e-2}, "clip": [NORM]},
    {"optimizer": {"name": "dadapt_sgd", "d0": 1e-2, "growth_rate": 1.02, "momentum": 0.9}, "clip": []},
    {"optimizer": {"name": "dadapt_adam", "d0": 1e-3, "growth_rate": 1.02}, "clip": []},
    {"optimizer": {"name": "dadapt_adam", "compat": "optax", "d0": 1e-3, "weight_decay": 0.1}, "clip": [NORM]},
    {"optimizer": {"name": "prodigy", "d0": 1e-3, "weight_decay": 0.1}, "clip": []},
    {"optimizer": {"name": "prodigy", "d0": 1e-3, "safeguard_warmup": True, "growth_rate": 1.02}, "clip": [NORM]},
]
