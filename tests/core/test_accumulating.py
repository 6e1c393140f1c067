"""Several pushes, one update: the mean of their gradients, and nothing else."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.test_same_bits import backwards
from gradserve.specs import Accumulate, RunSpec
from gradserve.wire import Layout
from gradserve_service.core import accumulating
from gradserve_service.core.accumulating import Accumulator
from gradserve_service.core.arrays import Arrays, update
from gradserve_service.core.batches import EMPTY, Batch
from gradserve_service.core.blocks import in_turn
from gradserve_service.core.entries import write_entry
from gradserve_service.core.gradient import Gradient

LAYOUT = Layout.of({"a": [2, 2], "b": [], "c": [0, 3], "d": [3]})
SHAPES = dict(zip(LAYOUT.names, LAYOUT.shapes, strict=True))
TINY, LARGE = sys.float_info.min, sys.float_info.max

elements = st.floats(-100, 100, width=32)
pushes = st.lists(
    st.tuples(
        st.floats(2**-20, 2**20),
        st.dictionaries(st.sampled_from(LAYOUT.names), st.lists(elements, min_size=4, max_size=4), min_size=1),
    ),
    min_size=1,
    max_size=6,
)


def gradient_of(tensors: dict[str, Sequence[float]]) -> Gradient:
    """The push of these tensors; what a shape has too many is cut off."""
    sent = LAYOUT.subset(tensors)
    vector = np.concatenate([np.float32(tensors[name])[: math.prod(SHAPES[name])] for name in sent.names])
    return Gradient.whole(vector.astype(np.float32)).placed(sent, LAYOUT)


@given(pushes)
def test_the_fast_sum_equals_the_dumb_one(batch: list[tuple[float, dict[str, list[float]]]]) -> None:
    """Element by element, in doubles: the sum of n g over those who sent its tensor, divided by their n."""
    accumulator = Accumulator.empty(LAYOUT)
    for samples, tensors in batch:
        accumulator.add(gradient_of(tensors), samples, LAYOUT)
    mean = accumulator.mean(LAYOUT)
    found: dict[int, float] = {}
    for span in mean.spans:
        for i in range(span.length):
            found[span.weights_start + i] = float(mean.vector[span.gradient_start + i])
    expected = {}
    for name in LAYOUT.names:
        sent = [(samples, tensors[name]) for samples, tensors in batch if name in tensors]
        for i in range(math.prod(SHAPES[name])):
            if sent:
                total = sum(samples * values[i] for samples, values in sent)
                expected[LAYOUT.offsets[LAYOUT.names.index(name)] + i] = total / sum(samples for samples, _ in sent)
    assert found.keys() == expected.keys()
    assert all(math.isclose(found[i], expected[i], rel_tol=1e-5, abs_tol=1e-4) for i in found)
    assert mean.sum_of_squares == pytest.approx(sum(x * x for x in found.values()))


@pytest.mark.parametrize("block", [1, 3, 1000])
@pytest.mark.parametrize("run_all", [in_turn, backwards], ids=["forwards", "backwards"])
def test_blocks_and_threads_do_not_change_the_bits(block: int, run_all: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each element is added in the order of the pushes, whoever adds it."""

    def after_three_pushes() -> bytes:
        random, accumulator = np.random.default_rng(1), Accumulator.empty(LAYOUT)
        for samples in (3.0, 0.7, 1e6):
            whole = Gradient.whole(random.standard_normal(LAYOUT.parameters, dtype=np.float32))
            accumulator.add(whole, samples, LAYOUT, run_all=run_all)
        return accumulator.mean(LAYOUT, run_all).vector.tobytes()

    alone = after_three_pushes()
    monkeypatch.setattr(accumulating, "BLOCK_ELEMENTS", block)
    assert after_three_pushes() == alone


def an_entry(base: int, samples: float, loss: float | None, batch: Batch | None, complete: bool) -> Any:
    header = {
        "position": 1, "kind": "push", "base": base, "samples": samples, "loss": loss, "weight": 1.0, "at": 0,
        "outcome": "applied" if complete else "contributed",
        "update": {"lr": 0.1, "momentum": None} if complete else None,
    }  # fmt: skip
    return write_entry(b"", header if batch is None else {**header, "batch": batch.to_json()})


@pytest.mark.parametrize("optimizer", ["adam", {"name": "sgd", "momentum": 0.9}, "lamb", "polyak_sgd", "sm3"], ids=str)
def test_weighted_shards_are_one_full_batch(optimizer: Any) -> None:
    """Five updates from shards of 1, 7 and 24 samples end where five updates from all 32 at once end."""
    random = np.random.default_rng(5)
    spec = RunSpec(optimizer=optimizer, accumulate=Accumulate(samples=32), clip={"name": "global_norm", "max_norm": 1})
    first = random.standard_normal(LAYOUT.parameters).astype(np.float32)
    whole, sharded = (Arrays(spec, LAYOUT, first.copy(), version=0) for _ in range(2))
    whole.fit(spec)
    sharded.fit(spec)
    for version in range(5):
        samples = random.standard_normal((32, LAYOUT.parameters))
        losses = random.random(32)
        mean = Gradient.whole(samples.mean(axis=0).astype(np.float32))
        update(whole, an_entry(version, 32.0, losses.mean(), None, True), mean)
        batch = EMPTY
        for start, stop in ((0, 1), (1, 8), (8, 32)):
            size, loss = float(stop - start), losses[start:stop].mean()
            batch = batch.with_push(size, 1.0, 0, loss)
            shard = Gradient.whole(samples[start:stop].mean(axis=0).astype(np.float32))
            update(sharded, an_entry(version, size, loss, batch, batch.reached(spec.accumulate)), shard)
    assert (sharded.step, sharded.version, sharded.accumulator) == (5, 5, None)
    assert whole.weights is not None
    assert sharded.weights is not None
    distance = np.abs(whole.weights - first).max()
    assert np.abs(sharded.weights - whole.weights).max() < 1e-6 * distance + 1e-6
    rows = [arrays.history.row(5) for arrays in (whole, sharded)]
    assert rows[0] == pytest.approx(rows[1], rel=1e-5)


def test_the_largest_numbers_leave_no_mean() -> None:
    """Losses near the end of all doubles have a mean; the largest batch of the largest gradients has one too."""
    batch = EMPTY.with_push(TINY, 1.0, 0, LARGE).with_push(LARGE / 4, 0.5, 3, LARGE).with_push(1.0, 1.0, 1, None)
    assert batch.loss == pytest.approx(LARGE)
    assert (batch.pushes, batch.staleness, batch.weight) == (3, 3, 0.5)
    accumulator, largest = Accumulator.empty(LAYOUT), np.full(LAYOUT.parameters, 1.8e19, np.float32)
    for _ in range(1_025):
        accumulator.add(Gradient.whole(largest), 2.0**53, LAYOUT)
    assert accumulator.mean(LAYOUT).finite
