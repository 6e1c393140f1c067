"""A run without a store and without HTTP: the machine's own `decide`, `advance` and `update`, in a loop of one worker.

What is compared is therefore what a server does with a gradient, rule by rule, and not a second implementation.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_hexdigest

from gradserve.problems import Rejection
from gradserve.specs import RunSpec
from gradserve.wire import Layout, allocate
from gradserve_service.core.arrays import Arrays, update
from gradserve_service.core.control import Control, Creation
from gradserve_service.core.entries import Entry, genesis_hash
from gradserve_service.core.gradient import Gradient
from gradserve_service.core.machine import Append, Load, Push, Request, advance, decide

__all__ = ["InMemoryRun", "Refusal"]

NO_SNAPSHOTS = 1 << 62  # journal bytes: nothing is ever written
WORKER = "w0"


class Refusal(Exception):
    """The run does not take the gradient; `code` is that of the table of refusals."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.detail)
        self.code = rejection.code


class InMemoryRun:
    """One run, as its sequencer would hold it. `update_nanoseconds` is the time of each update's arithmetic."""

    def __init__(self, spec: RunSpec, first: Mapping[str, NDArray[Any]]) -> None:
        creation = Creation(spec, NO_SNAPSHOTS, 1).to_bytes()
        self._control = Control.genesis("compare", creation, genesis_hash("compare", creation))
        self._arrays = Arrays(spec)
        self.layout = Layout.of({name: value.shape for name, value in first.items()})
        # Two buffers take turns: the weights that readers could hold are the older ones, and nobody holds them here.
        self._buffers = [allocate(self.layout.parameters) for _ in range(2)]
        self.update_nanoseconds: list[int] = []
        weights = self.layout.flatten(dict(first))
        entry = self._appended(Load(self.layout, "", weights.nbytes, "safetensors"))
        update(self._arrays, entry, weights, new_buffer=self._buffer)

    def parameters(self) -> Mapping[str, NDArray[Any]]:
        """The present weights: views, to be read before the next push."""
        assert self._arrays.weights is not None
        return self.layout.views(self._arrays.weights)

    def push(self, gradients: Mapping[str, NDArray[Any]], loss: float, samples: int) -> None:
        """One gradient, one update. Raises `Refusal`."""
        vector = self.layout.flatten(dict(gradients))
        gradient = Gradient.whole(vector)
        request = Push(
            worker=WORKER,
            sequence=self._control.row(WORKER).next_sequence,
            digest=xxh3_128_hexdigest(vector.data),
            size=vector.nbytes,
            codec="safetensors",
            layout=self.layout,
            non_finite=() if gradient.finite else ("the gradient",),
            base_version=self._control.version,
            samples=float(samples),
            loss=loss,
        )
        entry = self._appended(request)
        began = time.perf_counter_ns()
        update(self._arrays, entry, gradient, next_buffer=lambda size, mark, held: (self._buffer(size), None))
        self.update_nanoseconds.append(time.perf_counter_ns() - began)

    @property
    def bytes_a_parameter(self) -> float:
        """Weights and slots: the rule's own share of what a run holds."""
        vectors = [self._arrays.weights, *self._arrays.slots.values()]
        return sum(vector.nbytes for vector in vectors if vector is not None) / self.layout.parameters

    def _appended(self, request: Request) -> Entry:
        verdict = decide(self._control, request, 0)
        if isinstance(verdict, Rejection):
            raise Refusal(verdict)
        assert isinstance(verdict, Append), "every request here asks for an entry"
        advance(self._control, verdict.entry)
        return verdict.entry

    def _buffer(self, parameters: int) -> NDArray[np.float32]:
        self._buffers.reverse()
        return self._buffers[0]
