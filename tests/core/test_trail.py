"""The next weights begin as the buffer of some updates ago: the same bits as from a copy, for less."""

from __future__ import annotations

import numpy as np
import pytest

import gradserve_service.core.trail
from gradserve.specs import RunSpec
from gradserve.wire import Buffers, Layout, decode_frame, encode_frame
from gradserve_service.core.arrays import Arrays, update
from gradserve_service.core.entries import Entry
from gradserve_service.core.gradient import Gradient
from gradserve_service.core.trail import fresh_buffer

RUN = Layout.of({"b": [1000], "emb": [5000, 64], "w": [70, 10]})  # large enough for the pool
SPEC = RunSpec.model_validate({"optimizer": {"name": "adagrad", "lr": 0.1}})


class Chain:
    """Updates on one state."""

    def __init__(self, next_buffer=fresh_buffer):
        self.arrays, self.next_buffer = Arrays(SPEC), next_buffer
        first = np.random.default_rng(0).normal(size=RUN.parameters).astype(np.float32)
        shapes = dict(zip(RUN.names, RUN.shapes, strict=True))
        update(self.arrays, Entry({"kind": "load", "layout": shapes}, b"", b""), first)

    def push(self, gradient):
        header = {"kind": "push", "update": {"lr": 0.1, "momentum": None}, "weight": 1.0, "loss": None, "base": 0,
                  "samples": 1, "at": 0}  # fmt: skip
        update(self.arrays, Entry(header, b"", b""), gradient, next_buffer=self.next_buffer)
        return self.arrays.weights


def gradient_of(random, kind):
    """Rows, rows and a whole tensor, a whole tensor alone, or everything."""
    tensors, rows = {}, {}
    if kind in ("rows", "both"):
        ids = random.integers(0, 5000, 20)
        tensors["emb"], rows["emb"] = random.normal(size=(20, 64)), ids
    if kind in ("both", "whole"):
        tensors["w"] = random.normal(size=(70, 10))
    if kind == "all":
        tensors = {name: random.normal(size=shape) for name, shape in zip(RUN.names, RUN.shapes, strict=True)}
    layout = Layout.of({name: np.shape(tensor) for name, tensor in tensors.items()})
    pieces = encode_frame(layout, layout.flatten(tensors), rows=rows)
    return Gradient.of(decode_frame(b"".join(map(bytes, pieces)), rows=bool(rows)), RUN)


@pytest.fixture
def copies(monkeypatch):
    """Counts the copies of all weights."""
    made, copy_all = [], gradserve_service.core.trail._copy_all

    def counting(*given):
        made.append(1)  # not what was given: that would keep the buffers
        copy_all(*given)

    monkeypatch.setattr(gradserve_service.core.trail, "_copy_all", counting)
    return made


def test_in_steady_state_nothing_but_what_changed_is_copied(copies):
    """Two buffers take turns: the first updates fill them."""
    chain, random = Chain(Buffers(spare=4).lend_again), np.random.default_rng(1)
    for _ in range(20):
        chain.push(gradient_of(random, "rows"))
    assert len(copies) == 2


@pytest.mark.parametrize("seed", range(4))
def test_any_pushes_in_any_order_give_the_bits_of_plain_copies(seed):
    """Slow readers keep some buffers, others take memory from the pool and write on it."""
    buffers, random = Buffers(spare=4), np.random.default_rng(seed)
    reused, plain, readers = Chain(buffers.lend_again), Chain(), []
    for _ in range(40):
        kind = random.choice(["rows", "rows", "rows", "both", "whole", "all"])
        gradient = gradient_of(random, kind)
        weights = reused.push(gradient)
        assert (weights == plain.push(gradient)).all()
        if random.random() < 0.3:
            readers.append((weights, weights.copy()))
        if readers and random.random() < 0.3:
            kept, expected = readers.pop(int(random.integers(len(readers))))
            assert (kept == expected).all()
            del kept
        if random.random() < 0.2:
            buffers.lend(RUN.parameters).fill(np.nan)
        del weights
    assert all((kept == expected).all() for kept, expected in readers)


def test_loaded_weights_are_not_mixed_with_older_ones(copies):
    """After a load nothing of before is a beginning of what comes."""
    chain, random = Chain(Buffers(spare=4).lend_again), np.random.default_rng(1)
    for _ in range(4):
        chain.push(gradient_of(random, "rows"))
    loaded = np.full(RUN.parameters, 7, np.float32)
    update(chain.arrays, Entry({"kind": "load", "layout": None}, b"", b""), loaded)
    gradient = gradient_of(random, "rows")
    weights = chain.push(gradient)
    touched = np.zeros(RUN.parameters, bool)
    touched[RUN.span("emb")].reshape(5000, 64)[gradient.rows[0].ids] = True
    assert (weights[~touched] == 7).all()
    assert len(copies) == 3
