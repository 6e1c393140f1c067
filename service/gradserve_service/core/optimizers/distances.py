"""Steps as long as the way that was made already: DoG and DoWG."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from numpy import copyto, multiply, subtract

from gradserve import specs

from ..blocks import Array
from .kinds import GroupSums, Total, WholeRunRule, over_run
from .rule import Memory, Scalar, Slot

__all__ = ["ORIGIN", "Dog", "Dowg"]

ORIGIN: Final = Slot("x0", "w0: the weights that training began with", from_weights=True)


class _OverDistance(WholeRunRule):
    """What the two share: the squares of the gradient and of the way from w0, over the run; then w <- w - lr η g.

    The way is that of the tensors that came.
    """

    scratch_blocks: ClassVar[int] = 1
    sums: ClassVar[int] = 2

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Where training began."""
        return (ORIGIN,)

    @abstractmethod
    def rate(self, gradient: float, way: float, memory: Memory) -> float:
        """η, from ‖g‖² and ‖w - w0‖²."""

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The gradient itself."""
        copyto(u, g)

    def measure(
        self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array], total: Total
    ) -> tuple[float, ...]:
        """Squares of g and of w - w0; of w in the place of the latter where c says so."""
        squares = total(multiply(g, g, a[0]))
        x = w if c[0] else subtract(w, s[0], a[0])
        return squares, total(multiply(x, x, a[0]))

    def of_run(
        self, t: int, groups: Sequence[GroupSums], memory: Memory, loss: float | None
    ) -> Sequence[tuple[float, ...]]:
        """lr η of each group."""
        gradient, way = over_run(groups)
        rate = self.rate(gradient, way, memory)
        return [(group.lr * rate,) for group in groups]

    def finish(
        self, c: Sequence[Scalar], r: Sequence[Scalar], w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]
    ) -> None:
        """lr η g."""
        multiply(u, r[0], u)


class Dog(specs.Dog, _OverDistance):
    """Distance over gradients.

        R <- max(R, ‖w - w0‖)                           distance_max, one double a run
        G <- G + ‖g‖²                                   squares_sum, one double a run
        w <- w - lr R / sqrt(G + eps) g

    R starts at `initial_distance`, or without one at reps_rel (1 + ‖w0‖). w0 is a slot, x0. Where G + eps = 0 nothing
    moves.

    Source: Ivgi et al. 2023, Algorithm 1 (arXiv:2302.12022). Matches optax.contrib.dog.
    """

    @property
    def memory(self) -> Mapping[str, float]:
        """R, 0 before the first update, and G."""
        return {"distance_max": 0.0, "squares_sum": 0.0}

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Whether to measure w in the place of the way, which is 0."""
        return (1.0 if memory["distance_max"] == 0.0 else 0.0,)

    def rate(self, gradient: float, way: float, memory: Memory) -> float:
        """η."""
        reached = math.sqrt(way)
        if memory["distance_max"] == 0.0:
            reached = self.reps_rel * (1.0 + reached) if self.initial_distance is None else self.initial_distance
        memory["distance_max"] = max(memory["distance_max"], reached)
        memory["squares_sum"] += gradient
        root = math.sqrt(memory["squares_sum"] + self.eps)
        return memory["distance_max"] / root if root else 0.0


class Dowg(specs.Dowg, _OverDistance):
    """Distance over weighted gradients.

        R <- max(R, ‖w - w0‖²)                          squared_distance_max, one double a run
        G <- G + R ‖g‖²                                 weighted_squares_sum, one double a run
        w <- w - lr R / (sqrt(G) + eps) g

    R starts at `initial_squared_distance`, or without one at eps. w0 is a slot, x0. Where sqrt(G) + eps = 0 nothing
    moves.

    Source: Khaled et al. 2023, Algorithm 1 (arXiv:2305.16284). Matches optax.contrib.dowg.
    """

    @property
    def memory(self) -> Mapping[str, float]:
        """R and G."""
        return {"squared_distance_max": 0.0, "weighted_squares_sum": 0.0}

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """The way is measured."""
        return (0.0,)

    def rate(self, gradient: float, way: float, memory: Memory) -> float:
        """η."""
        least = self.eps if self.initial_squared_distance is None else self.initial_squared_distance
        reached = memory["squared_distance_max"] = max(memory["squared_distance_max"], way, least)
        memory["weighted_squares_sum"] += reached * gradient
        root = math.sqrt(memory["weighted_squares_sum"]) + self.eps
        return reached / root if root else 0.0


FAMILY = (Dog, Dowg)
