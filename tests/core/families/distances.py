"""Rules that measure the way: the twin's steps, any hyperparameters, and one of each arithmetic path."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from core.families.ranges import DECAY
from core.families.stepsizes import Numbers, product
from gradserve import specs


class DistanceRules:
    """Mixed into `core.tensor_twin.TensorTwin`."""

    spec: Any
    run: dict[str, float]
    first: list[Numbers]

    def _dog(self, came: list[int], gs: list[Numbers], ws: list[Numbers], lr: float, loss: float) -> list[Numbers]:
        spec, n = self.spec, self.run
        if "furthest" not in n:
            n["furthest"] = spec.initial_distance or spec.reps_rel * (1 + math.sqrt(product(ws, ws)))
        n["furthest"] = max(n["furthest"], self._way(came, ws))
        n["squares"] = n.get("squares", 0.0) + product(gs, gs)
        root = math.sqrt(n["squares"] + spec.eps)
        return [[lr * n["furthest"] / root * x if root else 0.0 for x in g] for g in gs]

    def _dowg(self, came: list[int], gs: list[Numbers], ws: list[Numbers], lr: float, loss: float) -> list[Numbers]:
        spec, n = self.spec, self.run
        n["furthest"] = max(n.get("furthest", spec.initial_squared_distance or spec.eps), self._way(came, ws) ** 2)
        n["squares"] = n.get("squares", 0.0) + n["furthest"] * product(gs, gs)
        root = math.sqrt(n["squares"]) + spec.eps
        return [[lr * n["furthest"] / root * x if root else 0.0 for x in g] for g in gs]

    def _way(self, came: list[int], ws: list[Numbers]) -> float:
        return math.sqrt(math.fsum((x - y) ** 2 for i, w in zip(came, ws, strict=True)
                                   for x, y in zip(w, self.first[i], strict=True)))  # fmt: skip


OPTIMIZERS = st.builds(
    specs.Dog,
    lr=st.floats(0.1, 2.0),
    reps_rel=st.sampled_from([1e-3, 1e-2]),
    initial_distance=st.sampled_from([None, 0.1]),
    eps=st.sampled_from([0.0, 1e-8, 1.0]),
    **DECAY,
) | st.builds(
    specs.Dowg,
    lr=st.floats(0.1, 2.0),
    initial_squared_distance=st.sampled_from([None, 0.1]),
    eps=st.sampled_from([1e-4, 1e-2]),
    **DECAY,
)

EACH = [
    specs.Dog(),
    specs.Dog(initial_distance=0.1, weight_decay=0.01, maximize=True),
    specs.Dowg(),
    specs.Dowg(initial_squared_distance=0.1, weight_decay=0.01),
]
