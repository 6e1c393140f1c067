"""Rules with a step from the loss: the twin's steps, any hyperparameters, and one of each arithmetic path."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from core.families.ranges import DECAY, LR
from gradserve import specs

Numbers = list[float]


class StepsizeRules:
    """Mixed into `core.tensor_twin.TensorTwin`."""

    spec: Any
    updates: int
    run: dict[str, float]
    state: list[dict[str, Any]]

    def _momo(self, came: list[int], gs: list[Numbers], ws: list[Numbers], lr: float, loss: float) -> list[Numbers]:
        beta = self.spec.beta if self.updates > 1 else 0.0
        ms = [self._mean(i, g, beta) for i, g in zip(came, gs, strict=True)]
        return self._longest_allowed(ms, ms, gs, ws, lr, loss, beta, 1.0)

    def _momo_adam(
        self, came: list[int], gs: list[Numbers], ws: list[Numbers], lr: float, loss: float
    ) -> list[Numbers]:
        spec, t = self.spec, self.updates
        ms = [self._mean(i, g, spec.beta1) for i, g in zip(came, gs, strict=True)]
        us = []
        for i, g, m in zip(came, gs, ms, strict=True):
            v = self.state[i].get("v", [0.0] * len(g))
            v = self.state[i]["v"] = [spec.beta2 * y + (1 - spec.beta2) * x**2 for x, y in zip(g, v, strict=True)]
            roots = [spec.eps + math.sqrt(y / (1 - spec.beta2**t)) for y in v]
            us.append([x / root if root else 0.0 for x, root in zip(m, roots, strict=True)])
        return self._longest_allowed(ms, us, gs, ws, lr, loss, spec.beta1, 1 - spec.beta1**t)

    def _mean(self, i: int, g: Numbers, beta: float) -> Numbers:
        before = self.state[i].get("m", [0.0] * len(g))
        after = self.state[i]["m"] = [beta * y + (1 - beta) * x for x, y in zip(g, before, strict=True)]
        return list(after)

    def _longest_allowed(
        self, ms: Any, us: Any, gs: Any, ws: Any, lr: float, loss: float, beta: float, correction: float
    ) -> list[Numbers]:
        spec, n = self.spec, self.run
        n["f"] = beta * n.get("f", 0.0) + (1 - beta) * loss
        n["q"] = beta * n.get("q", 0.0) + (1 - beta) * product(gs, ws)
        size, inner, known = product(ms, us), product(ms, ws), n.get("bound", spec.lower_bound)
        wd = spec.weight_decay if spec.weight_decay_mode == "decoupled" else 0.0
        k = 1 + lr * wd
        if spec.adapt_lower_bound:
            cap = k * (n["f"] - n["q"]) + inner
            if cap < k * correction * known:
                known = max(cap / (2 * correction * k), spec.lower_bound)
        step = max(k * (n["f"] - correction * known - n["q"]) + inner, 0) / size if size > 2.0**-52 else 0.0
        step = min(lr / correction, step)
        if spec.adapt_lower_bound:
            n["bound"] = max((n["f"] + inner - n["q"] - step * size / 2) / correction, spec.lower_bound)
        n["decay_rate"] = lr / k
        return [[step * x for x in u] for u in us]


def product(xs: list[Numbers], ys: list[Numbers]) -> float:
    """The scalar product of two runs."""
    return math.fsum(a * b for x, y in zip(xs, ys, strict=True) for a, b in zip(x, y, strict=True))


FIELDS: dict[str, Any] = {
    "lower_bound": st.sampled_from([0.0, 1.5, -1.0]), "adapt_lower_bound": st.booleans(), **DECAY,
    "weight_decay_mode": st.sampled_from(["l2", "decoupled"]),
}  # fmt: skip
OPTIMIZERS = (
    st.builds(specs.PolyakSgd, lr=LR, f_min=st.sampled_from([0.0, 1.5]), variant=st.sampled_from(["sps", "sps+"]))
    | st.builds(specs.Momo, lr=st.floats(1e-3, 1.0), beta=st.floats(0, 0.99), **FIELDS)
    | st.builds(
        specs.MomoAdam, lr=LR, beta1=st.floats(0, 0.99), beta2=st.floats(0.01, 0.9999),
        eps=st.sampled_from([1e-8, 1e-3]), **FIELDS,
    )
)  # fmt: skip

EACH = [
    specs.PolyakSgd(lr=0.5, f_min=0.2, weight_decay=0.01, weight_decay_mode="decoupled"),
    specs.PolyakSgd(lr=0.5, f_min=0.8, variant="sps+"),  # losses just above f_min
    specs.Momo(weight_decay=0.01),
    specs.Momo(
        lr=0.1, lower_bound=-1e4, adapt_lower_bound=True, weight_decay=0.01, weight_decay_mode="l2", maximize=True
    ),
    specs.MomoAdam(lr=0.1, weight_decay=0.01),
    specs.MomoAdam(lr=0.1, lower_bound=-1e4, adapt_lower_bound=True),
]
