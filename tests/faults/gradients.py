"""Gradients that follow from (seed, worker, number): no two are equal, and an auditor can make each of them again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradserve.wire import Frame, Layout, decode_frame, encode_frame

LR = 1e-3


def layout_of(parameters: int) -> Layout:
    """A run of that many parameters in two tensors."""
    return Layout.of({"bias": (3,), "kernel": (parameters - 3,)})


def gradient(layout: Layout, seed: int, worker: int, number: int) -> NDArray[np.float32]:
    """float32[N] in layout order."""
    return np.random.default_rng([seed, worker, number]).standard_normal(layout.parameters, np.float32)


def first_weights(layout: Layout, seed: int) -> NDArray[np.float32]:
    """float32[N]: what the run starts from."""
    return np.random.default_rng([seed, 1 << 20]).standard_normal(layout.parameters, np.float32)


def framed(layout: Layout, vector: NDArray[np.float32]) -> Frame:
    """The vector as the server sees it on the wire; its digest is the one in the journal."""
    return decode_frame(b"".join(encode_frame(layout, vector)))
