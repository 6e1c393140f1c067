"""What readers see of a run: one immutable value, replaced by one assignment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradserve.wire import Layout


@dataclass(frozen=True, slots=True)
class Published:
    """Weights float32[N] and where in the history they stand. Nobody writes `weights` any more."""

    weights: NDArray[np.float32]
    layout: Layout
    version: int
    etag: str  # with its quotes
    position: int
    head: str  # hex
    step: int


@dataclass(frozen=True, slots=True)
class PushAnswer:
    """The answer to a push: the JSON body of its 200, and the weights that a representation would show."""

    outcome: Mapping[str, Any]
    published: Published
    timings: Mapping[str, float]  # seconds, by the names of Server-Timing
