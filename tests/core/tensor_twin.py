"""The dumb twin of the rules that are not elementwise: tensors as lists of floats, one number at a time.

Shares no code and no algebra with the service. A tensor is a flat list and a shape; `step` takes one list a tensor,
None for a tensor without a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from core.families.adaptation import AdaptationRules
from core.families.distances import DistanceRules
from core.families.factored import FactoredChanges
from core.families.matrices import MatrixChanges
from core.families.preconditioned import AxesChanges
from core.families.stepsizes import StepsizeRules
from core.twin import decayed

Numbers = list[float]


class TensorTwin(StepsizeRules, DistanceRules, AdaptationRules, FactoredChanges, MatrixChanges, AxesChanges):
    """Weights of several tensors, and one update after the other on them."""

    def __init__(
        self,
        spec: Any,
        shapes: Sequence[tuple[int, ...]],
        weights: Sequence[Sequence[float]],
        precision: float = 2.0**-52,
    ) -> None:
        self.spec, self.shapes, self.precision = spec, list(shapes), precision
        self.weights = [[float(x) for x in tensor] for tensor in weights]
        self.first = [list(tensor) for tensor in self.weights]
        self.state: list[dict[str, Any]] = [{} for _ in self.shapes]
        self.run: dict[str, float] = {}
        self.updates = 0
        self.path = [[0.0] * len(tensor) for tensor in self.weights]

    def step(self, gradient: Sequence[Sequence[float] | None], lr: float, loss: float = 1.0) -> None:
        spec = self.spec
        self.updates += 1
        came = [i for i, g in enumerate(gradient) if g is not None]
        sign = -1.0 if spec.maximize else 1.0
        wd = spec.weight_decay
        prepared = []
        for i in came:
            g = [sign * float(x) for x in gradient[i] or ()]
            if spec.weight_decay_mode == "l2":
                g = [x + wd * w for x, w in zip(g, self.weights[i], strict=True)]
            prepared.append(g)
        before = [list(self.weights[i]) for i in came]
        rule: Callable[..., list[Numbers]] = getattr(self, f"_{spec.name}")
        changes = rule(came, prepared, before, lr, sign * loss)
        for i, old, change in zip(came, before, changes, strict=True):
            rate = self.run.get("decay_rate", lr)
            self.weights[i] = [decayed(spec, w, lr, rate, -u) for w, u in zip(old, change, strict=True)]
            self.path[i] = [p + abs(a - b) for p, a, b in zip(self.path[i], self.weights[i], old, strict=True)]

    def _slot(self, i: int, name: str, initial: float = 0.0) -> Numbers:
        return self.state[i].setdefault(name, [initial] * len(self.weights[i]))  # type: ignore[no-any-return]

    def _inner(self) -> float:
        return self.spec.weight_decay if self.spec.weight_decay_mode == "in_update" else 0.0

    # ------------------------------------------------------------------------------------------------ sums by tensor

    def _lamb(self, came: list[int], gs: list[Numbers], ws: list[Numbers], lr: float, loss: float) -> list[Numbers]:
        spec, t, changes = self.spec, self.updates, []
        for i, g, w in zip(came, gs, ws, strict=True):
            m, v, u = self._slot(i, "m"), self._slot(i, "v"), [0.0] * len(w)
            for k, x in enumerate(g):
                m[k] = spec.beta1 * m[k] + (1 - spec.beta1) * x
                v[k] = spec.beta2 * v[k] + (1 - spec.beta2) * x * x
                c1, c2 = (1 - spec.beta1**t, 1 - spec.beta2**t) if spec.bias_correction else (1.0, 1.0)
                denominator = math.sqrt(v[k] / c2 + spec.eps_root) + spec.eps
                u[k] = (m[k] / c1 / denominator if denominator else 0.0) + self._inner() * w[k]
            size = norm(w) * (abs(1 - lr * spec.weight_decay) if spec.weight_decay_mode == "decoupled" else 1.0)
            ratio = size / norm(u) if size and norm(u) else 1.0
            ratio = min(ratio, 1.0) if spec.trust_clip else ratio
            changes.append([lr * ratio * x for x in u])
        return changes

    def _lars(self, came: list[int], gs: list[Numbers], ws: list[Numbers], lr: float, loss: float) -> list[Numbers]:
        spec, changes, wd = self.spec, [], self._inner()
        for i, g, w in zip(came, gs, ws, strict=True):
            u = [x + wd * y for x, y in zip(g, w, strict=True)]
            size = norm(u) if spec.norm_of_sum else norm(g)
            divisor = size + spec.eps + (0.0 if spec.norm_of_sum else wd * norm(w))
            ratio = spec.trust_coefficient * norm(w) / divisor if norm(w) and size else 1.0
            v, change = self._slot(i, "v"), []
            for k, x in enumerate(u):
                step = ratio * x * (lr if spec.lr_in_momentum else 1.0)
                v[k] = spec.momentum * v[k] + step
                moved = step + spec.momentum * v[k] if spec.nesterov else v[k]
                change.append(moved if spec.lr_in_momentum else lr * moved)
            changes.append(change)
        return changes

    def _novograd(self, came: list[int], gs: list[Numbers], ws: list[Numbers], lr: float, loss: float) -> list[Numbers]:
        spec, changes = self.spec, []
        for i, g, w in zip(came, gs, ws, strict=True):
            n, state = norm(g) ** 2, self.state[i]
            state["n"] = spec.beta2 * state["n"] + (1 - spec.beta2) * n if state.get("n") else n
            size = math.sqrt(state["n"] + spec.eps_root) + spec.eps
            m = self._slot(i, "m")
            for k, x in enumerate(g):
                x = (x / size if size else 0.0) + self._inner() * w[k]
                m[k] = spec.beta1 * m[k] + ((1 - spec.beta1) * x if spec.grad_averaging else x)
            changes.append([lr * x for x in m])
        return changes

    def _fromage(self, came: list[int], gs: list[Numbers], ws: list[Numbers], lr: float, loss: float) -> list[Numbers]:
        changes = []
        for g, w in zip(gs, ws, strict=True):
            a, b = max(norm(w), self.spec.min_norm), max(norm(g), self.spec.min_norm)
            ratio, k = (a / b if a and b else 1.0), 1 / math.sqrt(1 + lr**2)
            changes.append([y - k * (y - lr * ratio * x) for x, y in zip(g, w, strict=True)])
        return changes

    # --------------------------------------------------------------------------------------------- sums over the run

    def _polyak_sgd(
        self, came: list[int], gs: list[Numbers], ws: list[Numbers], lr: float, loss: float
    ) -> list[Numbers]:
        spec, gap = self.spec, loss - self.spec.f_min
        gap = max(gap, 0.0) if spec.variant == "sps+" else gap
        square = sum(norm(g) ** 2 for g in gs)
        step = min(gap / (square + spec.eps), spec.max_lr) if square + spec.eps > 2.0**-52 else 0.0
        return [[lr * step * x for x in g] for g in gs]

    # --------------------------------------------------------------------------------------------------------- shapes

    def _sm3(self, came: list[int], gs: list[Numbers], ws: list[Numbers], lr: float, loss: float) -> list[Numbers]:
        spec, changes = self.spec, []
        for i, g in zip(came, gs, strict=True):
            shape = self.shapes[i] or (1,)
            seen = self.state[i].setdefault("seen", [[0.0] * size for size in shape])
            larger = [[0.0] * size for size in shape]
            m, change = self._slot(i, "m"), []
            for k, place in enumerate(product(*map(range, shape))):
                n = g[k] ** 2 + min(seen[axis][p] for axis, p in enumerate(place))
                for axis, p in enumerate(place):
                    larger[axis][p] = max(larger[axis][p], n)
                x = g[k] / math.sqrt(n + spec.eps) if n else 0.0
                m[k] = spec.momentum * m[k] + (1 - spec.momentum) * x
                change.append(lr * m[k])
            self.state[i]["seen"] = larger
            changes.append(change)
        return changes

    # ---------------------------------------------------------------------------------------------------------- rows

    def _mean_squares(self, i: int, g: Numbers) -> Numbers:
        rows = self.shapes[i][0] if self.shapes[i] else 1
        length = len(g) // rows
        return [sum(x * x for x in g[r * length : (r + 1) * length]) / length for r in range(rows)]

    def _rowwise_adagrad(
        self, came: list[int], gs: list[Numbers], ws: list[Numbers], lr: float, loss: float
    ) -> list[Numbers]:
        changes = []
        for i, g in zip(came, gs, strict=True):
            means = self._mean_squares(i, g)
            h = self.state[i].setdefault("h", [0.0] * len(means))
            h[:] = [a + b for a, b in zip(h, means, strict=True)]
            length = len(g) // len(h)
            changes.append([lr / (math.sqrt(h[k // length]) + self.spec.eps) * x for k, x in enumerate(g)])
        return changes

    def _rowwise_adam(
        self, came: list[int], gs: list[Numbers], ws: list[Numbers], lr: float, loss: float
    ) -> list[Numbers]:
        spec, t, changes = self.spec, self.updates, []
        for i, g in zip(came, gs, strict=True):
            means, m = self._mean_squares(i, g), self._slot(i, "m")
            v = self.state[i].setdefault("v", [0.0] * len(means))
            v[:] = [spec.beta2 * a + (1 - spec.beta2) * b for a, b in zip(v, means, strict=True)]
            m[:] = [spec.beta1 * a + (1 - spec.beta1) * x for a, x in zip(m, g, strict=True)]
            length = len(g) // len(v)
            below = [math.sqrt(x / (1 - spec.beta2**t)) + spec.eps for x in v]
            changes.append([lr * x / (1 - spec.beta1**t) / below[k // length] for k, x in enumerate(m)])
        return changes


def norm(x: Sequence[float]) -> float:
    return math.sqrt(math.fsum(y * y for y in x))
