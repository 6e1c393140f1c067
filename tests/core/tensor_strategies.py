"""Hypothesis strategies of the rules that are not elementwise, and one of each arithmetic path."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from core.families import adaptation, distances, factored, matrices, preconditioned, stepsizes
from core.families.ranges import DECAY, LR, MODES, SHARE
from gradserve import specs

INNER: dict[str, Any] = {**DECAY, "weight_decay_mode": st.sampled_from(["in_update", *MODES])}
MOMENTS: dict[str, Any] = {"lr": LR, "beta1": st.floats(0, 0.99), "beta2": st.floats(0.01, 0.9999)}

lamb = st.builds(
    specs.Lamb,
    **MOMENTS,
    eps=st.sampled_from([0.0, 1e-6, 1e-3]),
    eps_root=st.sampled_from([0.0, 1e-4]),
    bias_correction=st.booleans(),
    trust_clip=st.booleans(),
    **INNER,
)
lars_fields: dict[str, Any] = {
    "lr": LR,
    "lr_in_momentum": st.booleans(),
    "norm_of_sum": st.booleans(),
    "trust_coefficient": st.floats(1e-3, 0.1),
    "eps": st.sampled_from([0.0, 1e-8]),
    **INNER,
}
lars = st.builds(specs.Lars, momentum=SHARE, nesterov=st.booleans(), **lars_fields) | st.builds(
    specs.Lars, momentum=st.just(0.0), **lars_fields
)
novograd = st.builds(
    specs.Novograd,
    **MOMENTS,
    eps=st.sampled_from([0.0, 1e-6]),
    eps_root=st.sampled_from([0.0, 1e-3]),
    grad_averaging=st.booleans(),
    **INNER,
)
fromage = st.builds(specs.Fromage, lr=LR, **DECAY)
sm3 = st.builds(specs.Sm3, lr=LR, momentum=st.sampled_from([0.0, 0.5, 0.9]), eps=st.sampled_from([1e-8, 1e-3]), **DECAY)
by_tensor = lamb | lars | novograd | fromage
rowwise = st.builds(specs.RowwiseAdagrad, lr=LR, eps=st.sampled_from([1e-8, 1e-3]), **DECAY) | st.builds(
    specs.RowwiseAdam, lr=LR, beta1=SHARE, beta2=SHARE, eps=st.sampled_from([1e-8, 1e-3]), **DECAY
)
by_run = stepsizes.OPTIMIZERS | distances.OPTIMIZERS | adaptation.OPTIMIZERS
optimizers = by_tensor | by_run | sm3 | rowwise | factored.OPTIMIZERS | matrices.OPTIMIZERS

shapes = st.lists(st.sampled_from([(1,), (7,), (5, 3), (2, 6), (3, 2, 4), ()]), min_size=1, max_size=3)

EACH = [
    specs.Lamb(lr=0.1, weight_decay=0.01),
    specs.Lamb(lr=0.1, trust_clip=True, weight_decay=0.01, weight_decay_mode="decoupled", maximize=True),
    specs.Lamb(lr=0.1, eps=0.0, eps_root=1e-3),
    specs.Lars(lr=0.1, weight_decay=0.01),
    specs.Lars(lr=0.1, weight_decay=0.01, norm_of_sum=False, lr_in_momentum=False, nesterov=True),
    specs.Novograd(lr=0.1, weight_decay=0.01),
    specs.Novograd(lr=0.1, grad_averaging=True, maximize=True),
    specs.Novograd(lr=0.1, eps=0.0, eps_root=1e-3),
    specs.Fromage(lr=0.1, weight_decay=0.01),
    specs.Sm3(lr=0.1, weight_decay=0.01),
    specs.Sm3(lr=0.1, momentum=0.0, maximize=True),
    *stepsizes.EACH,
    *distances.EACH,
    *adaptation.EACH,
    *factored.EACH,
    *matrices.EACH,
    *preconditioned.EACH,
    specs.RowwiseAdagrad(lr=0.1, weight_decay=0.01),
    specs.RowwiseAdam(lr=0.1, maximize=True),
]  # one of each arithmetic path
