"""Second moments of rank one: the twin's changes, any hyperparameters, and one of each arithmetic path."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

from hypothesis import strategies as st

from core.families.ranges import DECAY, LR
from gradserve import specs

Numbers = list[float]


def rms(x: Numbers) -> float:
    return math.sqrt(math.fsum(y * y for y in x) / len(x))


class FactoredChanges:
    """Mixed into `core.tensor_twin.TensorTwin`."""

    spec: Any
    updates: int
    shapes: Any
    state: list[dict[str, Any]]
    precision: float  # of the weights that the twin is compared with

    def _adafactor(
        self, came: list[int], gs: list[Numbers], ws: list[Numbers], lr: float, loss: float
    ) -> list[Numbers]:
        spec, t, changes = self.spec, self.updates, []
        rate = min(lr, t**-0.5) if spec.relative_step else lr
        for i, g, w in zip(came, gs, ws, strict=True):
            v = self._adafactor_moment(i, g)
            x = [y / math.sqrt(z) if y else 0.0 for y, z in zip(g, v, strict=True)]
            kept = 1 - lr * spec.weight_decay if spec.decay_first and spec.weight_decay_mode == "decoupled" else 1.0
            alpha = rate * (max(spec.eps2, rms([kept * y for y in w])) if spec.scale_parameter else 1.0)
            step = [alpha * y / max(1.0, rms(x) / spec.clip_threshold) for y in x]
            if spec.beta1:
                m = self.state[i].get("m", [0.0] * len(w))
                step = [spec.beta1 * y + (1 - spec.beta1) * z for y, z in zip(m, step, strict=True)]
                self.state[i]["m"] = step
            wd = {"in_update": alpha, "fixed": 1.0}.get(spec.weight_decay_mode, 0.0) * spec.weight_decay
            changes.append([y + wd * z for y, z in zip(step, w, strict=True)])
        return changes

    def _adafactor_moment(self, i: int, g: Numbers) -> Numbers:
        spec, state, shape = self.spec, self.state[i], self.shapes[i] or (1,)
        k, paper = self.updates**spec.beta2_decay, spec.variant == "paper"
        eps1 = self.precision if spec.eps1 is None else spec.eps1
        squares = [x * x + (eps1 if paper else 0.0) for x in g]
        axes = list(range(len(shape)))
        if spec.factored_axes == "largest":
            axes.sort(key=lambda axis: shape[axis])
        if len(shape) < 2 or min(shape[axes[-2]], shape[axes[-1]]) < spec.factor_from:
            old = state.get("v", [0.0] * len(g))
            v = state["v"] = [(1 - k) * x + k * y for x, y in zip(old, squares, strict=True)]
        else:
            places = list(product(*map(range, shape)))
            rows = [without(place, axes[-1]) for place in places]
            columns = [without(place, axes[-2]) for place in places]
            for name, group in (("r", rows), ("c", columns)):
                means = {
                    key: mean([x for x, other in zip(squares, group, strict=True) if other == key]) for key in group
                }
                old = state.get(name, dict.fromkeys(means, 0.0))
                state[name] = {key: (1 - k) * old[key] + k * x for key, x in means.items()}
            matrices = [without(row, axes[-2] - (axes[-1] < axes[-2])) for row in rows]
            v = []
            for row, column, matrix in zip(rows, columns, matrices, strict=True):
                levels = {r: state["r"][r] for r, other in zip(rows, matrices, strict=True) if other == matrix}
                level = mean(list(levels.values()))
                v.append(state["r"][row] * state["c"][column] / (level if paper else max(level, eps1)))
        return v if paper else [max(x, eps1**2) for x in v]


def without(place: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return place[:axis] + place[axis + 1 :]


def mean(x: Numbers) -> float:
    return math.fsum(x) / len(x)


OPTIMIZERS = st.builds(
    specs.Adafactor,
    lr=LR,
    variant=st.sampled_from(["torch", "paper"]),
    beta2_decay=st.sampled_from([-0.8, -0.3, -1.0]),
    eps1=st.sampled_from([1e-7, 1e-3]),
    eps2=st.sampled_from([1e-3, 0.3]),
    clip_threshold=st.sampled_from([1.0, 1.3]),
    scale_parameter=st.booleans(),
    relative_step=st.booleans(),
    beta1=st.sampled_from([0.0, 0.6]),
    factored_axes=st.sampled_from(["last", "largest"]),
    factor_from=st.sampled_from([0, 3, 100]),
    decay_first=st.booleans(),
    **{**DECAY, "weight_decay_mode": st.sampled_from(["decoupled", "in_update", "fixed", "l2"])},
)

EACH = [
    specs.Adafactor(lr=0.1, weight_decay=0.01),
    specs.Adafactor(lr=0.1, beta1=0.9, maximize=True),
    specs.Adafactor(lr=0.1, variant="paper", eps1=1e-30, weight_decay=0.01, weight_decay_mode="in_update"),
    specs.Adafactor(lr=0.1, eps1=2.0),
    specs.Adafactor(lr=0.1, factored_axes="largest", factor_from=3, scale_parameter=False, relative_step=False),
]
