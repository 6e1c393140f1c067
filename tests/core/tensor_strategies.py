"""Hypothesis strategies of the rules that are not elementwise, and one of each arithmetic path."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from core.families.ranges import LR, SHARE
from gradserve import specs

DECAY: dict[str, Any] = {
    "weight_decay": st.sampled_from([0.0, 0.01, 0.3]),
    "weight_decay_mode": st.sampled_from(["l2", "decoupled"]),
    "maximize": st.booleans(),
}
INNER: dict[str, Any] = {**DECAY, "weight_decay_mode": st.sampled_from(["in_update", "l2", "decoupled"])}
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
polyak = st.builds(specs.PolyakSgd, lr=LR, f_min=st.sampled_from([0.0, 1.5]), variant=st.sampled_from(["sps", "sps+"]))
sm3 = st.builds(specs.Sm3, lr=LR, momentum=st.sampled_from([0.0, 0.5, 0.9]), eps=st.sampled_from([1e-8, 1e-3]), **DECAY)
by_tensor = lamb | lars | novograd | fromage
optimizers = by_tensor | polyak | sm3

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
    specs.PolyakSgd(lr=0.5, f_min=0.2, weight_decay=0.01, weight_decay_mode="decoupled"),
    specs.Sm3(lr=0.1, weight_decay=0.01),
    specs.Sm3(lr=0.1, momentum=0.0, maximize=True),
]  # one of each arithmetic path
