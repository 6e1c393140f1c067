"""What a rule says that is not elementwise.

`SummedRule`: the change of an element needs sums over its tensor (LAMB) or over the whole run (Prodigy). Two sweeps:

    change(c, g, w, s, u, a)             first sweep: update slots, write into u what the sums or the end need
    measure(c, g, w, s, u, a, total)     right after, on the same block: the block's share of each sum
    …                                    the sums are added in a fixed order; numbers come of them, in double
    finish(c, r, w, s, u, a)             second sweep: from u to what is to be subtracted, with those numbers r

`PerTensorRule.of_tensor` gives the numbers of one tensor, `WholeRunRule.of_run` those of every group. A block of these
sweeps never reaches over a tensor's edge nor is it longer than `SUM_CHUNK`, so the sums are the same for any threads.

`ShapedRule`: `change` sees a whole tensor in its shape (weights, gradient, slots), once; a scalar is a vector of one
element. It may allocate.

In all three the gradient comes as it is meant, clipped, with its sign and its L2 decay: `scale` is 1.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..blocks import Array
from .rule import Kind, Memory, Rule, Scalar

__all__ = ["GroupSums", "PerTensorRule", "ShapedRule", "SummedRule", "Total", "WholeRunRule", "over_run"]

Total = Callable[[Array], float]  # the sum of a block, in float64


@dataclass(frozen=True, slots=True)
class GroupSums:
    """What the first sweep found in the tensors of one group, and the group's rate."""

    lr: float
    sums: Sequence[float]


def over_run(groups: Sequence[GroupSums]) -> list[float]:
    """Each sum over all groups, added in their order: not by `sum`, which compensates from Python 3.12 on."""
    totals = [0.0] * len(groups[0].sums)
    for group in groups:
        totals = [x + y for x, y in zip(totals, group.sums, strict=True)]
    return totals


class SummedRule(Rule):
    """A rule whose change needs sums over many elements."""

    sums: ClassVar[int]  # how many `measure` returns

    @abstractmethod
    def measure(
        self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array], total: Total
    ) -> tuple[float, ...]:
        """The block's share of each sum, after `change`. Only `a` is written."""

    @abstractmethod
    def finish(
        self, c: Sequence[Scalar], r: Sequence[Scalar], w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]
    ) -> None:
        """Turn the block `u` that `change` wrote into what is to be subtracted from the weights."""


class PerTensorRule(SummedRule):
    """Sums over each tensor. A slot of one element a tensor is not among `s`: `of_tensor` has it in `own`."""

    kind: ClassVar[Kind] = "per_tensor"

    @abstractmethod
    def of_tensor(self, c: Sequence[float], sums: Sequence[float], own: Sequence[Array]) -> tuple[float, ...]:
        """The numbers of one tensor, in double; its own slots (one element each) are written in place."""


class WholeRunRule(SummedRule):
    """Sums over all tensors that came."""

    kind: ClassVar[Kind] = "whole_run"

    @abstractmethod
    def of_run(
        self, t: int, groups: Sequence[GroupSums], memory: Memory, loss: float | None
    ) -> Sequence[tuple[float, ...]]:
        """The numbers of each group, in double. Brings the memory forward, by + − × ÷ √ alone."""


class ShapedRule(Rule):
    """A rule that sees tensors. `s` are the slots that the tensor has, in the order of `slots`; `a` is empty."""

    kind: ClassVar[Kind] = "shaped"
