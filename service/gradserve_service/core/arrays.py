"""The large half of a run's state: weights, slots and the rule's memory, and `update`, the arithmetic of one entry.

Weights are a value: each update writes the new ones into another buffer, so readers keep what they hold. Slots and
memory are owned and written in place. If `update` raises, all may be half-written: drop it and restore from the chain.
"""

from __future__ import annotations

import math
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
from .groups import Stretch, group_terms, stretches_of, training
from .history import History, Row
from .measuring import measure, measured_at_step, way
from .optimizers import rule_for
from .optimizers.rule import Memory, Rule
from .preprocess import Seen, preprocessed
from .slots import cut, new_slot, own_layouts
from .trail import NextBuffer, Trail, fresh_buffer
from .update import apply_update

Float32 = NDArray[np.float32]
NAN = float("nan")


@dataclass(slots=True)
class Arrays:
    """Weights float32[N], one float32 buffer a slot, the rule's own numbers, what the updates did.

    A slot is as the weights are, N elements, unless it is in `own_layouts`.
    """

    spec: RunSpec
    layout: Layout | None = None
    weights: Float32 | None = None
    slots: dict[str, Float32] = field(default_factory=dict)
    own_layouts: dict[str, Layout] = field(default_factory=dict)
    memory: Memory = field(default_factory=dict)
    step: int = 0
    version: int = -1
    history: History = field(default_factory=History)
    trail: Trail = field(default_factory=Trail)
    _stretches: tuple[Stretch, ...] | None = None  # of spec and layout, once asked for

    @property
    def rule(self) -> Rule:
        return rule_for(self.spec.optimizer)

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """Which parameters belong to which group; nothing without groups."""
        assert self.layout is not None
        if self._stretches is None:
            self._stretches = stretches_of(self.spec.groups, self.layout)
        return self._stretches

    @property
    def state_bytes(self) -> int:
        """Bytes of weights, slots and history."""
        held = [*self.slots.values(), *([] if self.weights is None else [self.weights])]
        return sum(array.nbytes for array in held) + self.history.nbytes

    def fit(self, spec: RunSpec) -> None:
        """Follow a changed spec: slots and memory of equal name (and layout) are kept, new ones are as they begin."""
        if (spec.optimizer, spec.groups) != (self.spec.optimizer, self.spec.groups):
            self.history.rates = ()  # they were another rule's, or other groups'
        self.spec, self._stretches = spec, None
        if self.layout is None:
            return
        held, self.own_layouts = self.own_layouts, own_layouts(self.rule.slots, self.layout)
        self.slots = {
            slot.name: self.slots[slot.name]
            if slot.name in self.slots and held.get(slot.name) == self.own_layouts.get(slot.name)
            else new_slot(slot, self.slot_layout(slot.name).parameters, self.weights)
            for slot in self.rule.slots
        }
        self.memory = {name: self.memory.get(name, initial) for name, initial in self.rule.memory.items()}

    def slot_layout(self, name: str) -> Layout:
        """Where each tensor lies in a slot."""
        assert self.layout is not None
        return self.own_layouts.get(name, self.layout)


def update(
    arrays: Arrays,
    entry: Entry,
    payload: Gradient | Float32 | None,
    *,
    new_buffer: Callable[[int], Float32] = allocate,
    next_buffer: NextBuffer = fresh_buffer,
    run_all: RunAll = in_turn,
) -> None:
    """Apply one entry. `payload` is the entry's gradient, or the weights of a `load`, in layout order.

    `new_buffer` gives memory for what is loaded, `next_buffer` for the weights after an update.
    """
    if entry.kind == "load":
        assert isinstance(payload, np.ndarray)
        _load(arrays, entry.header, payload, new_buffer)
    elif entry.kind == "configure":
        arrays.fit(RunSpec.model_validate(entry.header["spec"]))
    elif entry.kind == "report" and entry.header["version"] is not None:
        arrays.history.add_report(entry.header["version"], entry.header["values"])
    elif entry.kind == "push" and entry.header["update"] is not None:
        assert isinstance(payload, Gradient)
        _apply(arrays, entry.header, payload, next_buffer, run_all)


def _load(arrays: Arrays, header: Mapping[str, Any], weights: Float32, new_buffer: Callable[[int], Float32]) -> None:
    first = header["layout"] is not None
    arrays.trail = Trail()
    if first:
        arrays.layout = Layout.of(header["layout"])
    # A copy: the payload may lie in the buffer of a request body, or in the journal's own bytes.
    state = header.get("state")
    if state is None:
        arrays.weights = _copied(weights, new_buffer)
        if first:
            arrays.fit(arrays.spec)
    else:
        _restore(arrays, state, weights, new_buffer)
    arrays.version += 1


def _restore(arrays: Arrays, state: Mapping[str, Any], vectors: Float32, new_buffer: Callable[[int], Float32]) -> None:
    """A whole state: the vector holds the weights and then each slot of the rule that it was saved with."""
    assert arrays.layout is not None
    arrays.own_layouts = {name: Layout.of(shapes) for name, shapes in state["slots"].items() if shapes is not None}
    sizes = [arrays.slot_layout(name).parameters for name in state["slots"]]
    weights, *slots = cut(vectors, [arrays.layout.parameters, *sizes])
    arrays.weights = _copied(weights, new_buffer)
    arrays.slots = {name: _copied(slot, new_buffer) for name, slot in zip(state["slots"], slots, strict=True)}
    arrays.memory = dict(state["memory"])
    arrays.step = state["step"]
    arrays.history.rates = ()
    arrays.fit(arrays.spec)  # the present rule may have other slots than the one that left these


def _copied(vector: Float32, new_buffer: Callable[[int], Float32]) -> Float32:
    copy = new_buffer(vector.size)
    np.copyto(copy, vector)
    return copy


def _apply(
    arrays: Arrays,
    header: Mapping[str, Any],
    gradient: Gradient,
    next_buffer: NextBuffer,
    run_all: RunAll,
) -> None:
    assert arrays.weights is not None
    assert arrays.layout is not None
    spec = arrays.spec
    kept = training(spec.groups, arrays.stretches)
    if kept is not None:
        gradient = gradient.within(kept, run_all)
    came = gradient
    next_weights, rest_is_there = arrays.trail.next_weights(arrays.weights, came, arrays.layout, next_buffer, run_all)
    seen = Seen(arrays.weights, arrays.layout, arrays.step + 1, arrays.history.column("gradient_norm"))
    gradient, clip, scale = preprocessed(spec.clip, came, seen, run_all)
    terms = group_terms(spec.optimizer, spec.groups, header["update"], header["weight"])
    statistics = apply_update(
        arrays.rule,
        clip,
        weights=arrays.weights,
        next_weights=next_weights,
        slots=arrays.slots,
        memory=arrays.memory,
        gradient=gradient,
        terms=terms,
        stretches=arrays.stretches,
        layout=arrays.layout,
        momentum=header["update"]["momentum"],
        step=arrays.step + 1,
        loss=header["loss"],
        rest_is_there=rest_is_there,
        run_all=run_all,
    )
    base_version = arrays.version
    arrays.step += 1
    arrays.version += 1
    moved = _measure(arrays, came, next_weights, run_all)
    arrays.weights = next_weights
    loss = header["loss"]
    arrays.history.rates = tuple(each.lr for each in terms)
    arrays.history.add(
        Row(
            version=arrays.version,
            step=arrays.step,
            loss=NAN if loss is None else loss,
            lr=header["update"]["lr"],
            gradient_norm=math.sqrt(came.sum_of_squares),
            update_norm=moved,
            clip_scale=statistics.clip_scale * scale,
            staleness=base_version - header["base"],
            samples=header["samples"],
            time=header["at"] / 1000,
        )
    )


def _measure(arrays: Arrays, gradient: Gradient, next_weights: Float32, run_all: RunAll) -> float:
    """The gradient by tensor and the way that the weights go (returned), where this update is one to measure."""
    assert arrays.layout is not None
    assert arrays.weights is not None
    if not measured_at_step(arrays.step, arrays.layout):
        return NAN
    arrays.history.add_measurement(arrays.version, arrays.layout.names, measure(gradient, arrays.layout, run_all))
    moved = way(arrays.weights, next_weights, gradient, arrays.layout, run_all)
    arrays.history.watch_weights(arrays.version, moved)
    return moved
