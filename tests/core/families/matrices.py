"""Steps made of whole matrices: the twin's changes, any hyperparameters, and one of each arithmetic path."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from core.families.ranges import DECAY, LR
from gradserve import specs

Numbers = list[float]
Matrix = list[Numbers]


def times(a: Matrix, b: Matrix) -> Matrix:
    return [[math.fsum(x * y for x, y in zip(row, column, strict=True)) for column in turned(b)] for row in a]


def turned(a: Matrix) -> Matrix:
    return [list(column) for column in zip(*a, strict=True)]


class MatrixChanges:
    """Mixed into `core.tensor_twin.TensorTwin`."""

    spec: Any
    updates: int
    shapes: Any
    state: list[dict[str, Any]]

    def _muon(self, came: list[int], gs: list[Numbers], ws: list[Numbers], lr: float, loss: float) -> list[Numbers]:
        return [
            self._muon_matrix(i, g, lr) if len(self.shapes[i]) == 2 else self._muon_other(i, g, w, lr)
            for i, g, w in zip(came, gs, ws, strict=True)
        ]

    def _muon_matrix(self, i: int, g: Numbers, lr: float) -> Numbers:
        spec, mu, t, (height, width) = self.spec, self.spec.momentum, self.updates, self.shapes[i]
        share = 1 - mu if spec.dampened else 1.0
        m = self.state[i].get("m", [0.0] * len(g))
        m = self.state[i]["m"] = [mu * x + share * y for x, y in zip(m, g, strict=True)]
        c1, c2 = (1 - mu**t, 1 - mu ** (t + 1)) if spec.bias_correction else (1.0, 1.0)
        u = [share * y / c1 + mu * x / c2 for x, y in zip(m, g, strict=True)] if spec.nesterov else [x / c1 for x in m]
        size = math.sqrt(math.fsum(x * x for x in u))
        size = size + spec.eps if spec.eps_added else max(size, spec.eps)
        x = [[y / size for y in u[row * width : (row + 1) * width]] for row in range(height)]
        a, b, c = spec.ns_coefficients
        for _ in range(spec.ns_steps):
            once = times(times(x, turned(x)), x)
            twice = times(times(x, turned(x)), once)
            x = [
                [a * p + b * q + c * r for p, q, r in zip(*rows, strict=True)]
                for rows in zip(x, once, twice, strict=True)
            ]
        outs, ins = (height, width) if spec.matrix_layout == "out_in" else (width, height)
        matched = spec.rms_rate * math.sqrt(max(outs, ins))
        k = {"original": math.sqrt(max(1, outs / ins)), "match_rms_adamw": matched, "none": 1.0}[spec.adjust_lr_fn]
        return [lr * k * y for row in x for y in row]

    def _muon_other(self, i: int, g: Numbers, w: Numbers, lr: float) -> Numbers:
        spec, t, change = self.spec, self.updates, []
        b1, b2 = spec.fallback_beta1, spec.fallback_beta2
        state = self.state[i]
        m, v = state.setdefault("m", [0.0] * len(g)), state.setdefault("v", [0.0] * len(g))
        for k, x in enumerate(g):
            m[k], v[k] = b1 * m[k] + (1 - b1) * x, b2 * v[k] + (1 - b2) * x * x
            ahead = b1 * m[k] / (1 - b1 ** (t + 1)) + (1 - b1) * x / (1 - b1**t)
            mean = ahead if spec.fallback_nesterov else m[k] / (1 - b1**t)
            root = math.sqrt(1 - b2**t)
            size = math.sqrt(v[k]) / root + spec.fallback_eps / (root if spec.fallback_eps_hat else 1.0)
            kept = spec.fallback_decay or spec.weight_decay_mode != "decoupled"
            change.append(lr * spec.fallback_lr_scale * mean / size - (0.0 if kept else lr * spec.weight_decay * w[k]))
        return change


OPTIMIZERS = st.builds(
    specs.Muon,
    lr=LR,
    momentum=st.sampled_from([0.0, 0.5, 0.95]),
    nesterov=st.booleans(),
    dampened=st.booleans(),
    bias_correction=st.booleans(),
    eps=st.sampled_from([1e-7, 1e-2]),
    eps_added=st.booleans(),
    ns_steps=st.sampled_from([1, 5]),
    adjust_lr_fn=st.sampled_from(["original", "match_rms_adamw", "none"]),
    matrix_layout=st.sampled_from(["out_in", "in_out"]),
    fallback_lr_scale=st.sampled_from([1.0, 0.1]),
    fallback_beta1=st.sampled_from([0.0, 0.9]),
    fallback_eps=st.sampled_from([1e-8, 1e-3]),
    fallback_eps_hat=st.booleans(),
    fallback_nesterov=st.booleans(),
    fallback_decay=st.booleans(),
    **DECAY,
)

EACH = [
    specs.Muon(lr=0.1),
    specs.Muon(lr=0.1, nesterov=False, adjust_lr_fn="match_rms_adamw", matrix_layout="in_out", maximize=True),
    specs.Muon(lr=0.1, fallback_decay=False, fallback_nesterov=True, weight_decay=0.05),
    specs.Muon(lr=0.1, nesterov=False, bias_correction=True, eps=0.3, eps_added=True),
]
