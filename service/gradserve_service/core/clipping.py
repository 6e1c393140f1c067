"""Clipping: a list of stages, applied in order, before weight decay and the rule.

Nothing is clipped here. The list is turned into a `Clipped`: what is left to do to an element while its block is
passing through the update anyway. A factor at the end of the list is not even that: the rule folds it into its own
scalars, so clipping by the global norm costs no pass and no operation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradserve.specs import ClipSpec

from .blocks import Array, RunAll, sum_of_squares
from .gradient import Gradient

__all__ = ["Clipped", "Stage", "clipped"]


@dataclass(frozen=True, slots=True)
class Stage:
    """x ← min(max(factor · x, -bound), bound)."""

    factor: float
    bound: float


@dataclass(frozen=True, slots=True)
class Clipped:
    """The clipped gradient is `factor` · (the stages, one after the other, of the gradient)."""

    stages: tuple[Stage, ...]
    factor: float
    clip_scale: float  # product of the factors of all norms in the list; 1.0: nothing was scaled

    def prepare(self, x: Array, out: Array) -> Array:
        """`x` after all stages, without the last factor: `x` itself when there are none, else written into `out`."""
        for stage in self.stages:
            if stage.factor != 1.0:
                x = np.multiply(x, stage.factor, out)
            x = np.minimum(np.maximum(x, -stage.bound, out=out), stage.bound, out=out)
        return x


UNCLIPPED = Clipped((), 1.0, 1.0)


def clipped(clip: Sequence[ClipSpec], gradient: Gradient, run_all: RunAll) -> Clipped:
    """Resolve the list for one gradient.

        global_norm   g ← k g,  k = min(1, max_norm / (‖g‖ + eps)),  ‖g‖ over all tensors that came
        value         g ← min(max(g, -value), value)

    The norm of the gradient as it came is known from its arrival, and a norm after a norm is known from the one before.
    Only a norm after a `value` has to be measured, in the fixed chunks of `sum_of_squares`.

    Source: Pascanu et al. 2013, Algorithm 1 (arXiv:1211.5063). eps as in torch.nn.utils.clip_grad_norm_.
    """
    if not clip:
        return UNCLIPPED
    stages: tuple[Stage, ...] = ()
    factor, clip_scale = 1.0, 1.0
    norm: float | None = math.sqrt(gradient.sum_of_squares)  # of the stages, without the factor; None: not known
    for spec in clip:
        if spec.name == "value":
            stages, factor, norm = (*stages, Stage(factor, spec.value)), 1.0, None
        elif spec.name == "global_norm":
            if norm is None:
                so_far = Clipped(stages, 1.0, 1.0)
                norm = math.sqrt(sum_of_squares(gradient.vector, run_all, so_far.prepare))
            size = norm * factor + spec.eps  # 0 also for a norm that the stages before brought below all floats
            k = min(1.0, spec.max_norm / size) if size else 1.0
            factor, clip_scale = factor * k, clip_scale * k
        else:
            raise NotImplementedError(f"{spec.name!r} sees whole tensors: it is a stage of `preprocess`")
    return Clipped(stages, factor, clip_scale)
