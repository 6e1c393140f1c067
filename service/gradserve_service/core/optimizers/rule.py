"""What an optimizer says about itself, and the few operations that it is written in.

A rule is its spec (a frozen pydantic model: the hyperparameters) plus five things:

    slots                            the vectors it keeps beside the weights, float32[N] each
    memory                           the numbers it keeps, one double each a run: mostly none
    advance(t, lr, memory)           once an update: those numbers, brought forward
    scalars(t, lr, scale, memory)    once an update and group: what is the same for all its elements, folded, in double
    change(c, g, w, s, u, a)         for each block: update the slots and write the change u, so that  w ← w - u

The driver (`core.update`) does everything else, the same for every rule: blocks and threads, clipping, weight decay,
the sign of `maximize`, tensors that did not come, and the subtraction, whose result goes into the next weights.

`u` is the block of the next weights itself, so the change needs no memory of its own, and a rule that has to scale it
by a sum (over a tensor: LAMB; over all: Prodigy) finds the whole change there after a first sweep. What such a rule
says besides is in `kinds.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from ..blocks import Array

__all__ = [
    "TINY", "Kind", "Memory", "Rule", "Scalar", "Shape", "Slot", "Sparse", "decaying_exponential", "integer_power",
    "keep_and_add", "negative_logarithm", "real_power",
]  # fmt: skip

Kind = Literal["elementwise", "per_tensor", "whole_run", "shaped"]
Sparse = Literal["exact", "lazy", "own", "no"]  # see `Rule.sparse`
Scalar = Any  # a 0-d array of the weights' dtype: a np.float64 would make every operation three times slower (NEP 50)

Memory = dict[str, float]  # numbers that a rule keeps between updates: owned as slots are, written in place

Shape = tuple[int, ...]

TINY = 2.0**-126  # the smallest normal float32


@dataclass(frozen=True, slots=True)
class Slot:
    """A vector that a rule keeps between updates: same length as the parameters, every element starts at `initial`."""

    name: str  # torch's word where torch has one
    meaning: str
    initial: float = 0.0
    never_negative: bool = False  # its root is taken, or it is a magnitude
    from_weights: bool = False  # starts as a copy of the weights instead
    shape: Callable[[Shape], Shape | None] | None = None  # of a tensor's shape; None from it: that tensor has no slot


class Rule(ABC):
    """An optimizer's arithmetic, mixed into the spec with its hyperparameters: `class Adam(specs.Adam, Rule)`."""

    if TYPE_CHECKING:  # fields of every optimizer's spec
        lr: float
        weight_decay: float
        maximize: bool

        @property
        def weight_decay_mode(self) -> str: ...  # a field too; each spec says which modes it has

        def model_copy(self, *, update: dict[str, Any]) -> Self: ...

    kind: ClassVar[Kind] = "elementwise"
    momentum_field: ClassVar[str | None] = None  # what a schedule's momentum replaces: "momentum", "beta1" or nothing
    forms: ClassVar[tuple[Mapping[str, Any], ...]] = ()  # fields that bring more slots than the defaults do
    scratch_blocks: ClassVar[int] = 0  # blocks like `u` that `change` needs besides it
    # What a gradient of some rows of a tensor is to this rule. exact: untouched rows would not have changed anyway;
    # lazy: they would (a moment decays), and do not; own: leaving them alone is the rule itself; no: it needs them all
    sparse: ClassVar[Sparse] = "no"
    every_machine: ClassVar[bool] = True  # the same bits everywhere; False: on machines of one type (matrix products)

    @property
    @abstractmethod
    def slots(self) -> tuple[Slot, ...]:
        """The slots in the order in which `change` receives their blocks."""

    @property
    def sparse_as_set(self) -> Sparse:
        """`sparse`, with these hyperparameters."""
        return self.sparse

    @property
    def memory(self) -> Mapping[str, float]:
        """The numbers that a run of this rule keeps, with the values it begins with."""
        return {}

    def advance(self, t: int, lr: float, memory: Memory) -> None:  # noqa: B027 – most rules have no memory
        """Bring the memory forward to update `t` (from 1), by + − × ÷ √ alone: once an update, before `scalars`.

        `lr` is the largest of the groups' rates: a sum over all updates must not depend on which group comes last.
        """

    @abstractmethod
    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """The numbers of update `t` (from 1), in double. `scale` is a factor that the gradient still has to get.

        Called once an update and group; the memory, which `advance` has brought to this update, is only read.
        """

    @abstractmethod
    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """Update the slots' blocks `s` in place and write into `u` what is to be subtracted from the weights.

        `c` are `scalars` in the arrays' dtype; `g` (gradient) and `w` (weights) are only read; `a` are scratch blocks.
        """

    def element_rates(self, t: int, lr: float, s: Sequence[Array]) -> Array | None:
        """What stands before each element's gradient (or mean gradient) after update `t`, from the whole slots `s`.

        None for a rule whose rate is the same for all elements. A new array; for people, never for an update.
        """
        return None

    def decay_rate(self, t: int, lr: float, memory: Memory) -> float:
        """What decoupled weight decay is multiplied with at update `t`: mostly lr."""
        return lr

    def average(self, w: Array, s: Sequence[Array]) -> Array | None:
        """The average of the weights that the rule itself keeps, from the whole weights and slots; None: it has none.

        A new array, or one of `s`: it is read and never written.
        """
        return None

    def with_decay(self, decay: float) -> Self:
        """This rule for a group with a weight decay of its own. Elementwise ones mostly leave decay to the driver."""
        drivers = self.kind == "elementwise" and self.weight_decay_mode != "in_update"
        if drivers or decay == self.weight_decay:
            return self
        return self.model_copy(update={"weight_decay": decay})

    def with_momentum(self, momentum: float) -> Self:
        """This rule for an update whose schedule gives the momentum."""
        return self.model_copy(update={self.momentum_field: momentum}) if self.momentum_field else self


def keep_and_add(slot: Array, keep: Scalar, x: Array) -> None:
    """slot ← keep · slot + x, in place."""
    np.multiply(slot, keep, slot)
    np.add(slot, x, slot)


def integer_power(base: float, exponent: int) -> float:
    """base^exponent by repeated squaring: `**` asks the C library, whose last bit differs between machines."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


def real_power(base: float, exponent: float) -> float:
    """base^exponent for base and exponent ≥ 0 from + − × ÷ alone; 0^0 is 1."""
    whole = int(exponent)
    result, rest = integer_power(base, whole), exponent - whole
    if rest == 0.0:
        return result
    if base < 1.0:
        return result * decaying_exponential(rest * negative_logarithm(base)) if base else 0.0
    return result / decaying_exponential(rest * negative_logarithm(1.0 / base))


def decaying_exponential(x: float) -> float:
    """e^-x for x ≥ 0 from + − × ÷ alone, to a few units in the last place of 1: `exp` and `pow` are the C library's.

    The series of e^-(x / 2^n), with the argument below 1/16, squared n times.
    """
    if x > 745.0:  # e^-745 is the smallest double
        return 0.0
    halvings = 0
    while x > 0.0625:
        x *= 0.5
        halvings += 1
    result = 1.0
    for n in range(11, 0, -1):
        result = 1.0 - x / n * result
    for _ in range(halvings):
        result *= result
    return result


def negative_logarithm(x: float) -> float:
    """-ln x for 0 < x ≤ 1 from + − × ÷ alone, right to the last places: the C library's `log` differs by machine.

    x is doubled until it is at least 2/3; of the rest, ln x = 2 artanh((x - 1) / (x + 1)), as a series.
    """
    doublings = 0
    while x < 2.0 / 3.0:
        x *= 2.0
        doublings += 1
    ratio = (1.0 - x) / (1.0 + x)
    square, total = ratio * ratio, 0.0
    for n in range(31, 0, -2):
        total = total * square + 1.0 / n
    return 2.0 * ratio * total + doublings * 0.6931471805599453
