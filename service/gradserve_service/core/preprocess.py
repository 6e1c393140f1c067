"""Stages of `clip` that have to see whole tensors, the weights or the past: done before the sweep, tensor by tensor.

The bounds that `clipping` can fold into the sweep stay there: only the list up to its last other stage is done here, on
a copy of the gradient. Each such stage is a pass or two over the elements.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gradserve.specs import Adaptive, BlockRms, Centralize, ClipSpec, GlobalNorm, Noise, Normalize, Quantile, TensorNorm
from gradserve.specs import Value as ValueSpec
from gradserve.wire import Layout

from .blocks import SUM_CHUNK, Array, RunAll, in_turn, sum_of_squares
from .gradient import Gradient
from .optimizers.rule import real_power

__all__ = ["Seen", "preprocessed"]

NORMS_MIN: Final = 8  # a quantile of fewer says nothing
_GOLDEN: Final = 0x9E3779B97F4A7C15
_MIX: Final = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
UNIT_NORM_MIN: Final = 1e-6  # of a gradient that is divided by


@dataclass(frozen=True, slots=True)
class Seen:
    """What a stage may look at beside the gradient."""

    weights: Array
    layout: Layout
    step: int  # number of this update, from 1
    norms: NDArray[np.float64]  # of the gradients before this one, as they came


@dataclass(slots=True)
class _Stages:
    gradient: Gradient
    vector: Array  # a copy, written in place
    seen: Seen
    run_all: RunAll
    scale: float = 1.0  # product of the factors of the whole gradient

    def tensors(self) -> Iterator[tuple[Array, Array]]:
        """Gradient and weights of each tensor that came, in its shape; of a part of one, flat."""
        layout = self.seen.layout
        for span in self.gradient.spans:
            end = span.weights_start + span.length
            ahead = span.gradient_start - span.weights_start
            for i in range(bisect_left(layout.offsets, span.weights_start), bisect_left(layout.offsets, end)):
                start, size = layout.offsets[i], math.prod(layout.shapes[i])
                if size and start + size <= end:
                    g = self.vector[start + ahead : start + ahead + size].reshape(layout.shapes[i])
                    yield g, self.seen.weights[start : start + size].reshape(layout.shapes[i])

    def norm(self) -> float:
        return math.sqrt(sum_of_squares(self.vector, self.run_all))

    def scale_by(self, factor: float) -> None:
        """The whole gradient times a factor."""
        self.scale *= factor
        if factor != 1.0:
            np.multiply(self.vector, self.vector.dtype.type(factor), self.vector)


def preprocessed(
    clip: Sequence[ClipSpec], gradient: Gradient, seen: Seen, run_all: RunAll = in_turn
) -> tuple[Gradient, Sequence[ClipSpec], float]:
    """The gradient after the stages that are done here, the stages that are left, the factor of the whole gradient."""
    last = max((i for i, spec in enumerate(clip) if spec.name not in ("global_norm", "value")), default=None)
    if last is None or not gradient.vector.size:
        return gradient, clip if last is None else (), 1.0
    stages = _Stages(gradient, gradient.vector.copy(), seen, run_all)
    with np.errstate(all="ignore"):
        for spec in clip[: last + 1]:
            _STAGES[spec.name](spec, stages)
    total = sum_of_squares(stages.vector, run_all)
    return Gradient(stages.vector, gradient.spans, total, math.isfinite(total)), clip[last + 1 :], stages.scale


def _global_norm(spec: GlobalNorm, on: _Stages) -> None:
    size = on.norm() + spec.eps
    on.scale_by(min(1.0, spec.max_norm / size) if size else 1.0)


def _value(spec: ValueSpec, on: _Stages) -> None:
    np.clip(on.vector, -spec.value, spec.value, out=on.vector)


def _tensor_norm(spec: TensorNorm, on: _Stages) -> None:
    for g, _ in on.tensors():
        norm = math.sqrt(sum_of_squares(g.reshape(-1)))
        if norm > spec.max_norm:
            np.multiply(g, g.dtype.type(spec.max_norm / norm), g)


def _block_rms(spec: BlockRms, on: _Stages) -> None:
    for g, _ in on.tensors():
        rms = math.sqrt(sum_of_squares(g.reshape(-1)) / g.size)
        if rms > spec.max_rms:
            np.multiply(g, g.dtype.type(spec.max_rms / rms), g)


def _adaptive(spec: Adaptive, on: _Stages) -> None:
    for g, w in on.tensors():
        largest = np.maximum(_unit_norms(w, spec.layout), spec.eps) * spec.clipping
        norms = _unit_norms(g, spec.layout)
        factors = np.where(norms > largest, largest / np.maximum(norms, UNIT_NORM_MIN), 1.0)
        np.multiply(g, factors.astype(g.dtype), g)


def _unit_norms(x: Array, layout: str) -> NDArray[np.float64]:
    """The norm of each unit, kept as axes of length 1. A vector is one unit."""
    if x.ndim <= 1:
        axes = tuple(range(x.ndim))
    else:
        axes = tuple(range(1, x.ndim)) if layout == "out_in" else tuple(range(x.ndim - 1))
    squares = np.multiply(x, x).astype(np.float64)
    norms: NDArray[np.float64] = np.sqrt(np.add.reduce(squares, axis=axes, keepdims=True) if axes else squares)
    return norms


def _normalize(spec: Normalize, on: _Stages) -> None:
    on.scale_by(spec.norm / (on.norm() + spec.eps))


def _centralize(spec: Centralize, on: _Stages) -> None:
    for g, _ in on.tensors():
        if g.ndim > 1:
            axes = tuple(range(1, g.ndim))
            mean = np.add.reduce(g.astype(np.float64), axis=axes, keepdims=True) / (g.size // g.shape[0])
            np.subtract(g, mean.astype(g.dtype), g)


def _noise(spec: Noise, on: _Stages) -> None:
    """Twelve uniform numbers have the variance 1. They are exact on every machine; normal ones are not."""
    falls = real_power(math.sqrt(on.seen.step), 2.0 * spec.gamma)
    deviation = on.vector.dtype.type(math.sqrt(spec.eta / falls))
    for start in range(0, on.vector.size, SUM_CHUNK):
        part = on.vector[start : start + SUM_CHUNK]
        places = np.arange(start, start + part.size, dtype=np.uint64)
        noise = np.full(part.size, -6.0, np.float32)
        for draw in range(12):
            np.add(noise, _uniform(_mixed(_mixed(_mixed(spec.seed) + on.seen.step) + draw), places), noise)
        np.add(part, noise * deviation, part)


def _uniform(key: int, places: NDArray[np.uint64]) -> NDArray[np.float32]:
    """A number in [0, 1) for each place, from the key alone: splitmix64 (Steele et al. 2014), its upper 24 bits."""
    z = places * np.uint64(_GOLDEN) + np.uint64(key)
    for shift, factor in _MIX:
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def _mixed(x: int) -> int:
    """One step of the same generator, on one number."""
    z = (x + _GOLDEN) % 2**64
    for shift, factor in _MIX:
        z = (z ^ (z >> shift)) * factor % 2**64
    return z ^ (z >> 31)


def _quantile(spec: Quantile, on: _Stages) -> None:
    norms = on.seen.norms[-spec.window :]
    norms = np.sort(norms[np.isfinite(norms)])
    if norms.size < NORMS_MIN:
        return
    largest = float(norms[math.ceil(spec.quantile * norms.size) - 1 if spec.quantile else 0]) * spec.factor
    norm = on.norm()
    if norm > largest:
        on.scale_by(largest / norm)


_STAGES: Final[Mapping[str, Callable[[Any, _Stages], None]]] = {
    "global_norm": _global_norm,
    "value": _value,
    "tensor_norm": _tensor_norm,
    "block_rms": _block_rms,
    "adaptive": _adaptive,
    "normalize": _normalize,
    "centralize": _centralize,
    "noise": _noise,
    "quantile": _quantile,
}
