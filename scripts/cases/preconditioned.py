"""Steps in the coordinates of each axis' statistics: what they are compared with."""

from __future__ import annotations

from typing import Any

from cases.draws import Row, decay, draws, log, moments

TORCH: dict[str, Any] = {}
KERAS: dict[str, Any] = {}
OPTAX: dict[str, Any] = {}
PYTORCH_OPTIMIZER = {
    "shampoo": ("Shampoo", ("lr", "weight_decay", "preconditioning_compute_steps", "matrix_eps", "maximize"), {}),
    "soap": (
        "SOAP",
        ("lr", "betas", "shampoo_beta", "weight_decay", "precondition_frequency", "correct_bias", "eps", "maximize"),
        {},
    ),
}
# Full rank from the first gradient on: the rest of a basis would be LAPACK's choice.
SHAPES = {"shampoo": [[4, 4], [2, 3, 4]], "soap": [[7], [4, 4], [2, 3, 4]]}

ROWS: list[Row] = [
    ("shampoo", "", "pytorch_optimizer", draws(lambda random: {"lr": log(random, 1e-2, 0.1)}, decay, eps=1e-3)),
    ("soap", "", "pytorch_optimizer", draws(moments, decay)),
    ("soap", "a basis at each update", "pytorch_optimizer",
     draws(moments, decay, precondition_frequency=1, shampoo_beta=0.9, bias_correction=False)),
]  # fmt: skip

CASES: list[dict[str, Any]] = []
OTHERS: list[dict[str, Any]] = [
    {
        "optimizer": {"name": "shampoo", "lr": 0.02, "eps": 1e-3, "weight_decay": 0.1},
        "reference": "pytorch_optimizer",
        "bound": 1e-9,
    },
    {"optimizer": {"name": "soap", "lr": 0.02, "weight_decay": 0.1}, "reference": "pytorch_optimizer", "bound": 1e-9},
]
# No bits: those of matrix products and decompositions are one machine's.
OURS_ONLY: list[dict[str, Any]] = []
