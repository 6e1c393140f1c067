"""The large half of a run's state: weights, slots and the rule's memory, and `update`, the arithmetic of one entry.

Weights are a value: each update writes the new ones into another buffer, so readers keep what they hold. Slots and
memory are owned and written in place. If `update` raises, all may be half-written: drop it and restore from the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradserve.specs import RunSpec
from gradserve.wire import Layout, allocate

from .blocks import RunAll, in_turn
from .entries import Entry
from .gradient import Gradient
from .optimizers import rule_for
from .optimizers.rule import Memory, Rule
from .update import apply_update

Float32 = NDArray[np.float32]
RESULTS_KEPT = 1_024  # as many versions as ETags are kept for: a duplicate's answer needs them


@dataclass(slots=True)
class Arrays:
    """Weights float32[N], one float32[N] buffer a slot, the rule's own numbers, the results of the latest updates."""

    spec: RunSpec
    layout: Layout | None = None
    weights: Float32 | None = None
    slots: dict[str, Float32] = field(default_factory=dict)
    memory: Memory = field(default_factory=dict)
    step: int = 0
    version: int = -1
    results: dict[int, tuple[float, float]] = field(default_factory=dict)  # version → (gradient norm, clip scale)

    @property
    def rule(self) -> Rule:
        return rule_for(self.spec.optimizer)

    @property
    def state_bytes(self) -> int:
        """Bytes of weights and slots."""
        held = [*self.slots.values(), *([] if self.weights is None else [self.weights])]
        return sum(array.nbytes for array in held)

    def fit(self, spec: RunSpec) -> None:
        """Follow a changed spec: slots and memory of equal name are kept, new ones start at their initial value."""
        self.spec = spec
        if self.layout is None:
            return
        wanted = {slot.name: slot.initial for slot in self.rule.slots}
        self.slots = {name: self.slots[name] if name in self.slots else self._slot(wanted[name]) for name in wanted}
        self.memory = {name: self.memory.get(name, initial) for name, initial in self.rule.memory.items()}

    def _slot(self, initial: float) -> Float32:
        assert self.layout is not None
        slot = allocate(self.layout.parameters)
        slot.fill(initial)
        return slot


def update(
    arrays: Arrays,
    entry: Entry,
    payload: Gradient | Float32 | None,
    *,
    new_buffer: Callable[[int], Float32] = allocate,
    run_all: RunAll = in_turn,
) -> None:
    """Apply one entry. `payload` is the entry's gradient, or the weights of a `load`, in layout order."""
    if entry.kind == "load":
        assert isinstance(payload, np.ndarray)
        _load(arrays, entry.header, payload, new_buffer)
    elif entry.kind == "configure":
        arrays.fit(RunSpec.model_validate(entry.header["spec"]))
    elif entry.kind == "push" and entry.header["update"] is not None:
        assert isinstance(payload, Gradient)
        _apply(arrays, entry.header, payload, new_buffer, run_all)


def _load(arrays: Arrays, header: Mapping[str, Any], weights: Float32, new_buffer: Callable[[int], Float32]) -> None:
    if header["layout"] is not None:
        arrays.layout = Layout.of(header["layout"])
        arrays.fit(arrays.spec)
    # A copy: the payload may lie in the buffer of a request body, or in the journal's own bytes.
    arrays.weights = new_buffer(weights.size)
    np.copyto(arrays.weights, weights)
    arrays.version += 1


def _apply(
    arrays: Arrays,
    header: Mapping[str, Any],
    gradient: Gradient,
    new_buffer: Callable[[int], Float32],
    run_all: RunAll,
) -> None:
    assert arrays.weights is not None
    next_weights = new_buffer(arrays.weights.size)
    statistics = apply_update(
        arrays.rule,
        arrays.spec.clip,
        weights=arrays.weights,
        next_weights=next_weights,
        slots=arrays.slots,
        memory=arrays.memory,
        gradient=gradient,
        lr=header["update"]["lr"] * header["weight"],
        momentum=header["update"]["momentum"],
        step=arrays.step + 1,
        run_all=run_all,
    )
    arrays.weights = next_weights
    arrays.step += 1
    arrays.version += 1
    arrays.results[arrays.version] = (statistics.gradient_norm, statistics.clip_scale)
    if len(arrays.results) > RESULTS_KEPT:
        del arrays.results[next(iter(arrays.results))]
