"""Steps in the coordinates of each axis' statistics: the twin's changes, and one of each arithmetic path."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

from core.families.matrices import Matrix, Numbers, times, turned
from gradserve import specs


def places(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(product(*map(range, shape)))


def in_front(x: Numbers, shape: tuple[int, ...], axis: int) -> Matrix:
    """The tensor as a matrix with one axis in front."""
    rows: Matrix = [[] for _ in range(shape[axis])]
    for value, place in zip(x, places(shape), strict=True):
        rows[place[axis]].append(value)
    return rows


def along(x: Numbers, shape: tuple[int, ...], axis: int, matrix: Matrix) -> Numbers:
    """y at a place = the sum over j of x with j on the axis, times matrix[j][that place's]."""
    at = dict(zip(places(shape), x, strict=True))
    return [
        math.fsum(at[(*place[:axis], j, *place[axis + 1 :])] * matrix[j][place[axis]] for j in range(shape[axis]))
        for place in places(shape)
    ]


def eigen(matrix: Matrix) -> tuple[Numbers, Matrix]:
    """Eigenvalues from the largest on, eigenvectors as columns: Jacobi's rotations until nothing is left to rotate."""
    n, a = len(matrix), [list(row) for row in matrix]
    v = [[float(i == j) for j in range(n)] for i in range(n)]
    for _ in range(60):
        for p in range(n):
            for q in range(p + 1, n):
                if a[p][q] == 0.0:
                    continue
                angle = 0.5 * math.atan2(2 * a[p][q], a[q][q] - a[p][p])
                c, s = math.cos(angle), math.sin(angle)
                turn = [[float(i == j) for j in range(n)] for i in range(n)]
                turn[p][p], turn[p][q], turn[q][p], turn[q][q] = c, s, -s, c
                a, v = times(times(turned(turn), a), turn), times(v, turn)
                a[p][q] = a[q][p] = 0.0
    order = sorted(range(n), key=lambda i: -a[i][i])
    return [a[i][i] for i in order], [[row[i] for i in order] for row in v]


def orthonormal(columns: Matrix) -> Matrix:
    """Gram and Schmidt, twice: each vector without its parts along those before it, of length 1."""
    found: Matrix = []
    for column in columns:
        for _ in range(2):
            for other in found:
                part = math.fsum(x * y for x, y in zip(column, other, strict=True))
                column = [x - part * y for x, y in zip(column, other, strict=True)]
        length = math.sqrt(math.fsum(x * x for x in column))
        found.append([x / length for x in column])
    return found


class AxesChanges:
    """Mixed into `core.tensor_twin.TensorTwin`."""

    spec: Any
    updates: int
    shapes: Any
    state: list[dict[str, Any]]

    def _axes(self, shape: tuple[int, ...]) -> list[int]:
        return [axis for axis, n in enumerate(shape) if n <= self.spec.max_preconditioner_dim]

    def _shampoo(self, came: list[int], gs: list[Numbers], ws: list[Numbers], lr: float, loss: float) -> list[Numbers]:
        spec, changes = self.spec, []
        for i, g in zip(came, gs, strict=True):
            shape, state, u = self.shapes[i] or (1,), self.state[i], g
            axes = self._axes(shape)
            for axis in axes:
                n, old, rows = shape[axis], state.get(("L", axis)), in_front(g, shape, axis)
                old = old or [[spec.eps * (p == q) for q in range(n)] for p in range(n)]
                new = times(rows, turned(rows))
                state["L", axis] = [[x + y for x, y in zip(*both, strict=True)] for both in zip(old, new, strict=True)]
                if ("P", axis) not in state or self.updates % spec.precondition_frequency == 0:
                    values, vectors = eigen(state["L", axis])
                    scaled = [
                        [x * y ** (-1 / (2 * len(axes))) for x, y in zip(row, values, strict=True)] for row in vectors
                    ]
                    state["P", axis] = times(scaled, turned(vectors))
                u = along(u, shape, axis, state["P", axis])
            if spec.grafting == "sgd":
                size = math.hypot(*u)
                u = [x * math.hypot(*g) / size if size else 0.0 for x in u]
            m = state["m"] = [spec.momentum * x + y for x, y in zip(state.get("m", [0.0] * len(u)), u, strict=True)]
            changes.append([lr * x for x in m])
        return changes

    def _soap(self, came: list[int], gs: list[Numbers], ws: list[Numbers], lr: float, loss: float) -> list[Numbers]:
        changes = []
        for i, g, w in zip(came, gs, ws, strict=True):
            shape, state = self.shapes[i] or (1,), self.state[i]
            axes = self._axes(shape) if len(shape) > 1 or self.spec.precondition_vectors else []
            begins = any(("Q", axis) not in state for axis in axes)
            still = begins or self.updates == 1
            changes.append([0.0] * len(g) if still else self._soap_step(i, shape, axes, g, w, lr))
            self._soap_turn(i, shape, axes, g, begins)
        return changes

    def _soap_step(self, i: int, shape: tuple[int, ...], axes: list[int], g: Numbers, w: Numbers, lr: float) -> Numbers:
        spec, state, k = self.spec, self.state[i], self.updates - 1
        nothing = [0.0] * len(g)
        m = [spec.beta1 * x + (1 - spec.beta1) * y for x, y in zip(state.get("m", nothing), g, strict=True)]
        inside, mean = g, m
        for axis in axes:
            inside, mean = (along(x, shape, axis, state["Q", axis]) for x in (inside, mean))
        v = [spec.beta2 * x + (1 - spec.beta2) * y * y for x, y in zip(state.get("v", nothing), inside, strict=True)]
        state["m"], state["v"] = m, v
        u = [x / (math.sqrt(y) + spec.eps) for x, y in zip(mean, v, strict=True)]
        for axis in axes:
            u = along(u, shape, axis, turned(state["Q", axis]))
        gain = lr * (math.sqrt(1 - spec.beta2**k) / (1 - spec.beta1**k) if spec.bias_correction else 1.0)
        after = 1 - lr * spec.weight_decay if spec.weight_decay_mode == "after_step" else 1.0
        return [x - (x - gain * y) * after for x, y in zip(w, u, strict=True)]

    def _soap_turn(self, i: int, shape: tuple[int, ...], axes: list[int], g: Numbers, begins: bool) -> None:
        spec, state, k = self.spec, self.state[i], self.updates - 1
        beta = spec.beta2 if spec.shampoo_beta is None else spec.shampoo_beta
        for axis in axes:
            rows, n = in_front(g, shape, axis), shape[axis]
            old, new = state.get(("L", axis), [[0.0] * n for _ in range(n)]), times(rows, turned(rows))
            lines = zip(old, new, strict=True)
            state["L", axis] = [[beta * x + (1 - beta) * y for x, y in zip(*both, strict=True)] for both in lines]
            if begins:
                state["Q", axis] = eigen(state["L", axis])[1]
            elif k and k % spec.precondition_frequency == 0:
                forward = turned(times(state["L", axis], state["Q", axis]))
                basis = turned(state["Q", axis])
                sizes = [
                    math.fsum(x * y for x, y in zip(*both, strict=True)) for both in zip(basis, forward, strict=True)
                ]
                order = sorted(range(n), key=lambda j: -sizes[j])
                state["Q", axis] = turned(orthonormal([forward[j] for j in order]))
                at = dict(zip(places(shape), state["v"], strict=True))
                state["v"] = [at[(*p[:axis], order[p[axis]], *p[axis + 1 :])] for p in places(shape)]


EACH = [
    specs.Shampoo(lr=0.1, eps=1e-3, max_preconditioner_dim=80),
    specs.Shampoo(
        lr=0.1,
        eps=1e-2,
        momentum=0.9,
        precondition_frequency=3,
        max_preconditioner_dim=80,
        weight_decay=0.01,
        maximize=True,
    ),
    specs.Shampoo(lr=0.1, eps=1e-3, momentum=0.5, max_preconditioner_dim=2, grafting="sgd"),
    specs.Soap(lr=0.1, beta1=0.9, precondition_frequency=2),
    specs.Soap(lr=0.1, shampoo_beta=0.8, precondition_frequency=1, precondition_vectors=False, maximize=True),
    specs.Soap(lr=0.1, max_preconditioner_dim=3, bias_correction=False, weight_decay_mode="decoupled"),
]
