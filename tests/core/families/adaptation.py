"""Rules that find their rate: the twin's steps, any hyperparameters, and one of each arithmetic path."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from core.families.ranges import DECAY
from core.families.stepsizes import Numbers, product
from gradserve import specs


class AdaptationRules:
    """Mixed into `core.tensor_twin.TensorTwin`."""

    spec: Any
    updates: int
    run: dict[str, float]
    state: list[dict[str, Any]]
    first: list[Numbers]

    def _kept(self, i: int, name: str) -> Numbers:
        return self.state[i].setdefault(name, [0.0] * len(self.first[i]))  # type: ignore[no-any-return]

    def _rate(self, lr: float) -> float:
        spec, t = self.spec, self.updates
        rate = self.run.setdefault("d", spec.d0) * lr
        if spec.bias_correction:
            rate *= math.sqrt(1 - spec.beta2**t) / (1 - spec.beta1**t)
        self.run["decay_rate"] = rate
        return rate

    def _bounded(self, found: float) -> None:
        most = math.inf if self.spec.growth_rate is None else self.run["d"] * self.spec.growth_rate
        self.run["d"] = max(self.run["d"], min(found, most))

    def _dadapt_sgd(
        self, came: list[int], gs: list[Numbers], ws: list[Numbers], lr: float, loss: float
    ) -> list[Numbers]:
        spec, n = self.spec, self.run
        n["g0"] = n.get("g0", 0.0) or math.sqrt(product(gs, gs))
        rate = n.setdefault("d", spec.d0) * lr / n["g0"] if n["g0"] else 0.0
        sums = [self._kept(i, "s") for i in came]
        n["numerator"] = n.get("numerator", 0.0) + rate * product(gs, sums)
        for s, g in zip(sums, gs, strict=True):
            s[:] = [x + rate * y for x, y in zip(s, g, strict=True)]
        size = math.sqrt(product(sums, sums))
        if size:
            self._bounded(2 * n["numerator"] / size)
        mu = spec.momentum
        return [
            [y - (mu * y + (1 - mu) * (z - x)) for x, y, z in zip(s, w, self.first[i], strict=True)]
            for i, s, w in zip(came, sums, ws, strict=True)
        ]

    def _dadapt_adam(
        self, came: list[int], gs: list[Numbers], ws: list[Numbers], lr: float, loss: float
    ) -> list[Numbers]:
        spec, n, rate, beta3 = self.spec, self.run, self._rate(lr), math.sqrt(self.spec.beta2)
        along, size, changes = 0.0, 0.0, []
        for i, g in zip(came, gs, strict=True):
            m, v, s = (self._kept(i, name) for name in "mvs")
            along += rate * math.fsum(x * y / (math.sqrt(z) + spec.eps) for x, y, z in zip(g, s, v, strict=True))
            for k, x in enumerate(g):
                m[k] = spec.beta1 * m[k] + (1 - spec.beta1) * rate * x
                v[k] = spec.beta2 * v[k] + (1 - spec.beta2) * x**2
                s[k] = beta3 * s[k] + (1 - beta3) * rate * x
            size += math.fsum(map(abs, s))
            changes.append([x / (math.sqrt(y) + spec.eps) for x, y in zip(m, v, strict=True)])
        n["numerator"] = beta3 * n.get("numerator", 0.0) + (1 - beta3) * along
        if size:
            self._bounded(n["numerator"] / ((1 - beta3) * size))
        return changes

    def _prodigy(self, came: list[int], gs: list[Numbers], ws: list[Numbers], lr: float, loss: float) -> list[Numbers]:
        spec, n, rate = self.spec, self.run, self._rate(lr)
        d, beta3 = n["d"], math.sqrt(self.spec.beta2) if self.spec.beta3 is None else self.spec.beta3
        ways = [[y - x for x, y in zip(w, self.first[i], strict=True)] for i, w in zip(came, ws, strict=True)]
        n["numerator"] = beta3 * n.get("numerator", 0.0) + d / spec.d0 * rate * product(gs, ways)
        size = 0.0
        for i, g in zip(came, gs, strict=True):
            m, v, s = (self._kept(i, name) for name in "mvs")
            for k, x in enumerate(g):
                m[k] = spec.beta1 * m[k] + (1 - spec.beta1) * d * x
                v[k] = spec.beta2 * v[k] + (1 - spec.beta2) * (d * x) ** 2
                s[k] = beta3 * s[k] + d / spec.d0 * (d if spec.safeguard_warmup else rate) * x
            size += math.fsum(map(abs, s))
        if size:
            found = spec.d_coef * n["numerator"] / size
            n["largest"] = max(n.get("largest", spec.d0), found)
            now = max(d, found) if d == spec.d0 else d
            n["d"] = min(n["largest"], math.inf if spec.growth_rate is None else now * spec.growth_rate)
        return [
            [
                rate * x / (math.sqrt(y) + n["d"] * spec.eps)
                for x, y in zip(self._kept(i, "m"), self._kept(i, "v"), strict=True)
            ]
            for i in came
        ]


# A small d0 takes a thousand updates to grow: it would test the beginning alone.
FIELDS: dict[str, Any] = {
    "lr": st.floats(0.1, 2.0), "d0": st.sampled_from([1e-3, 1e-1]),
    "growth_rate": st.sampled_from([None, 1.02]), **DECAY,
}  # fmt: skip
MOMENTS: dict[str, Any] = {
    "beta1": st.floats(0, 0.99), "beta2": st.floats(0.3, 0.9999), "eps": st.sampled_from([1e-8, 1e-3]),
    "bias_correction": st.booleans(), **FIELDS, "weight_decay_mode": st.sampled_from(["l2", "decoupled"]),
}  # fmt: skip
OPTIMIZERS = (
    st.builds(specs.DAdaptSgd, momentum=st.sampled_from([0.0, 0.5, 0.9]), **FIELDS)
    | st.builds(specs.DAdaptAdam, **MOMENTS)
    | st.builds(
        specs.Prodigy, beta3=st.sampled_from([None, 0.0, 0.9]), safeguard_warmup=st.booleans(),
        d_coef=st.sampled_from([1.0, 0.5, 2.0]), **MOMENTS,
    )
)  # fmt: skip

EACH = [
    specs.DAdaptSgd(d0=0.01),
    specs.DAdaptSgd(d0=0.01, momentum=0.9, growth_rate=1.02, weight_decay=0.01, maximize=True),
    specs.DAdaptAdam(d0=0.01),
    specs.DAdaptAdam(d0=0.01, bias_correction=True, growth_rate=1.02, weight_decay=0.01, weight_decay_mode="decoupled"),
    specs.Prodigy(d0=0.01),
    specs.Prodigy(d0=0.01, beta3=0.9, bias_correction=True, safeguard_warmup=True, weight_decay=0.01, maximize=True),
    specs.Prodigy(d0=0.01, growth_rate=1.02, d_coef=2.0, weight_decay=0.01, weight_decay_mode="l2"),
]
