"""Hypothesis strategies: every optimizer with any hyperparameters, clip lists, gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from gradserve import specs

DECAY: dict[str, Any] = {
    "weight_decay": st.sampled_from([0.0, 0.01, 0.3]),
    "weight_decay_mode": st.sampled_from(["l2", "decoupled"]),
    "maximize": st.booleans(),
}
LR = st.floats(1e-4, 0.3)
SHARE = st.floats(0.05, 0.99)

plain = st.builds(specs.Sgd, lr=LR, **DECAY)
velocity = st.builds(specs.Sgd, lr=LR, momentum=SHARE, dampening=st.floats(0, 1), **DECAY)
forms = st.builds(specs.Sgd, lr=LR, momentum=SHARE, nesterov=st.booleans(), lr_in_momentum=st.booleans(), **DECAY)
moments: dict[str, Any] = {
    "lr": LR,
    "beta1": st.floats(0, 0.99),
    "beta2": st.floats(0.01, 0.9999),
    "eps": st.sampled_from([0.0, 1e-8, 1e-3]),
    "eps_root": st.sampled_from([0.0, 1e-4]),
    "eps_hat": st.booleans(),
    "bias_correction": st.booleans(),
    "amsgrad": st.booleans(),
    "amsgrad_corrected": st.booleans(),
    **DECAY,
}
adam = st.builds(specs.Adam, **moments)
adamw = st.builds(specs.AdamW, **moments)
START = st.sampled_from([0.0, 0.1, 1.0])
adagrad = st.builds(
    specs.Adagrad,
    lr=LR,
    lr_decay=st.sampled_from([0.0, 0.1]),
    eps=st.sampled_from([0.0, 1e-10, 1e-3]),
    eps_in_sqrt=st.booleans(),
    initial_accumulator_value=START,
    **DECAY,
)
rmsprop_fields: dict[str, Any] = {
    "lr": LR,
    "eps_in_sqrt": st.booleans(),
    "lr_in_momentum": st.booleans(),
    "bias_correction": st.booleans(),
    "initial_accumulator_value": START,
    **DECAY,
}
rmsprop = st.builds(specs.RmsProp, alpha=SHARE, eps=st.sampled_from([0.0, 1e-8, 1e-3]), **rmsprop_fields) | st.builds(
    specs.RmsProp, alpha=SHARE, eps=st.just(1e-3), momentum=SHARE, nesterov=st.booleans(), **rmsprop_fields
)
# A variance is a small difference of large numbers, and its root's slope has no bound near 0 (where the corrected
# variance of the first update is): an eps that is not small, under the root, keeps that out of a comparison.
centered_fields: dict[str, Any] = {
    **rmsprop_fields,
    "alpha": st.floats(0.3, 0.99),
    "centered": st.just(True),
    "momentum": st.sampled_from([0.0, 0.9]),
}
centered = st.builds(
    specs.RmsProp, **{**centered_fields, "eps": st.just(0.01), "bias_correction": st.just(False)}
) | st.builds(specs.RmsProp, **{**centered_fields, "eps": st.just(0.1), "eps_in_sqrt": st.just(True)})
adamax = st.builds(
    specs.Adamax,
    lr=LR,
    beta1=st.floats(0, 0.99),
    beta2=st.floats(0.01, 0.9999),
    eps=st.sampled_from([0.0, 1e-8, 1e-3]),
    eps_in_max=st.booleans(),
    **DECAY,
)
nadam = st.builds(
    specs.Nadam,
    lr=LR,
    beta1=st.floats(0, 0.99),
    beta2=st.floats(0.01, 0.9999),
    eps=st.sampled_from([0.0, 1e-8, 1e-3]),
    momentum_decay=st.sampled_from([0.0, 4e-3, 0.3, 1.0]),
    variant=st.sampled_from(["dozat", "constant"]),
    **DECAY,
)
optimizers = plain | velocity | forms | adam | adamw | adagrad | rmsprop | centered | adamax | nadam

clip = st.builds(specs.GlobalNorm, max_norm=st.floats(0.1, 10), eps=st.sampled_from([0.0, 1e-6]))
clips = st.lists(clip | st.builds(specs.Value, value=st.floats(0.05, 5)), max_size=3)
shapes = st.sampled_from([(1,), (7, 5), (5, 7), (3, 4, 6), (64,)])
seeds = st.integers(0, 2**32 - 1)


def gradients(seed: int, updates: int, size: int) -> Any:
    """float64[updates, size] of very different magnitudes, exactly representable in float32."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((updates, size)) * np.exp(random.standard_normal((updates, size)))
    return values.astype(np.float32).astype(np.float64)


def first_weights(seed: int, size: int) -> Any:
    return np.random.default_rng([seed, 1]).standard_normal(size).astype(np.float32).astype(np.float64)


EACH = [
    specs.Sgd(lr=0.1),
    specs.Sgd(lr=0.1, momentum=0.9, dampening=0.5, weight_decay=0.01),
    specs.Sgd(lr=0.1, momentum=0.9, nesterov=True, maximize=True),
    specs.Sgd(lr=0.1, momentum=0.9, nesterov=True, lr_in_momentum=True),
    specs.Adam(lr=0.1),
    specs.Adam(lr=0.1, amsgrad=True, weight_decay=0.01),
    specs.Adam(lr=0.1, amsgrad=True, amsgrad_corrected=True, eps_root=1e-6, eps_hat=True),
    specs.AdamW(lr=0.1),
    specs.AdamW(lr=0.1, bias_correction=False, amsgrad=True),
    specs.Adagrad(lr=0.1),
    specs.Adagrad(lr=0.1, lr_decay=0.1, eps_in_sqrt=True, initial_accumulator_value=0.1, weight_decay=0.01),
    specs.RmsProp(lr=0.1),
    specs.RmsProp(lr=0.1, centered=True, momentum=0.9, weight_decay=0.01),
    specs.RmsProp(lr=0.1, momentum=0.9, nesterov=True, lr_in_momentum=True, eps_in_sqrt=True, maximize=True),
    specs.RmsProp(lr=0.1, centered=True, bias_correction=True, momentum=0.9, nesterov=True, eps=0.01),
    specs.Adamax(lr=0.1),
    specs.Adamax(lr=0.1, eps_in_max=False, maximize=True, weight_decay=0.01),
    specs.Nadam(lr=0.1),
    specs.Nadam(lr=0.1, momentum_decay=1.0, weight_decay=0.01),
    specs.Nadam(lr=0.1, variant="constant", maximize=True),
]  # one of each arithmetic path, for tests that need no random hyperparameters


def label(spec: Any) -> str:
    """A test's id: the fields that differ from the defaults."""
    return "-".join([spec.name, *sorted(spec.model_fields_set - {"lr", "name"})])
