"""Steps that are orthogonal matrices: what they are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases.draws import Row, decay, draws, log

TORCH = {
    "muon": ("Muon", ("lr", "momentum", "nesterov", "ns_coefficients", "ns_steps", "eps", "adjust_lr_fn",
                      "weight_decay")),
}  # fmt: skip
KERAS = {
    "muon": ("Muon", ("momentum", "nesterov", "ns_steps", "rms_rate", "adam_beta_1", "adam_beta_2", "adam_lr_ratio")),
}
OPTAX = {
    "muon": ("muon", ("beta", "nesterov", "ns_steps", "eps", "weight_decay", "adam_b1", "adam_b2")),
}


def momenta(random: np.random.Generator) -> dict[str, Any]:
    """Of Muon and of the AdamW beside it."""
    return {
        "lr": log(random, 1e-2, 0.1),
        "momentum": float(random.uniform(0.5, 0.95)),
        "fallback_beta1": float(random.uniform(0.5, 0.95)),
        "fallback_beta2": float(random.uniform(0.9, 0.999)),
    }


ROWS: list[Row] = [
    ("muon", "its iteration in bfloat16", "torch", draws(momenta, decay)),
    ("muon", "", "torch_float", draws(momenta, decay)),
    ("muon", "as AdamW's, no look-ahead", "torch_float",
     draws(momenta, decay, adjust_lr_fn="match_rms_adamw", nesterov=False)),
    ("muon", "", "keras", draws(momenta, decay)),
    ("muon", "slower elsewhere", "keras", draws(momenta, fallback_lr_scale=0.1, nesterov=False, weight_decay=0.0)),
    ("muon", "", "optax", draws(momenta, decay)),
    ("muon", "as AdamW's", "optax", draws(momenta, decay, adjust_lr_fn="match_rms_adamw", rms_rate=0.3)),
]  # fmt: skip
# torch iterates in bfloat16, Keras takes the root of a matrix's size in float32.
BOUNDS = {("muon", "torch"): 2e-2, ("muon", "keras"): 1e-7}

CASES: list[dict[str, Any]] = []
OTHERS: list[dict[str, Any]] = [
    {"optimizer": {"name": "muon", "lr": 0.02, "weight_decay": 0.1}, "reference": "torch_float"},
    {"optimizer": {"name": "muon", "compat": "keras", "lr": 0.02, "weight_decay": 0.1}, "bound": 1e-7},
    {"optimizer": {"name": "muon", "compat": "optax", "lr": 0.02, "weight_decay": 0.1}},
]
# No bits: those of a matrix product are one machine's.
OURS_ONLY: list[dict[str, Any]] = []
