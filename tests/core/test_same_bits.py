"""The bits of an update depend on its inputs alone: replay on another machine has to end with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from core.running import Updates, partial
from core.strategies import EACH, label
from gradserve import specs
from gradserve_service.core.blocks import (
    BLOCK_ELEMENTS,
    LANES_MAX,
    SUM_CHUNK,
    RunAll,
    in_turn,
    share_out,
    sum_of_squares,
)
from gradserve_service.core.optimizers.rule import integer_power

CLIP = [specs.GlobalNorm(max_norm=20.0), specs.Value(value=0.2), specs.GlobalNorm(max_norm=5.0)]
SIZE = 3_001
each = pytest.mark.parametrize("spec", EACH, ids=label)


@pytest.fixture(scope="module")
def four_threads() -> Iterator[RunAll]:
    with ThreadPoolExecutor(4) as pool:
        yield lambda tasks: [future.result() for future in [pool.submit(task) for task in tasks]] and None


def backwards(tasks: Sequence[Callable[[], None]]) -> None:
    in_turn(tasks[::-1])


def after_three_updates(spec: Any, **how: Any) -> bytes:
    random = np.random.default_rng(7)
    run = Updates(spec, random.standard_normal(SIZE, dtype=np.float32), CLIP)
    for _ in range(3):
        run.step(random.standard_normal(SIZE, dtype=np.float32), **how)
    return run.state


@each
@pytest.mark.parametrize("block", [1, 3, 1000])
def test_any_block_size_gives_the_same_bits(spec: Any, block: int) -> None:
    """A block is a matter of speed, not of result."""
    assert after_three_updates(spec, block_elements=block) == after_three_updates(spec)


@each
def test_any_sharing_between_threads_gives_the_same_bits(spec: Any, four_threads: RunAll) -> None:
    """Who computes a block, and when, is not part of the result."""
    alone = after_three_updates(spec)
    assert after_three_updates(spec, block_elements=100, run_all=four_threads) == alone
    assert after_three_updates(spec, block_elements=100, run_all=backwards) == alone


@each
def test_shuffling_the_parameters_shuffles_the_result(spec: Any) -> None:
    """Every weight is computed from what has its own index, and from the norm."""
    random = np.random.default_rng(3)
    weights, gradients = random.standard_normal(999), random.standard_normal((3, 999))
    order = random.permutation(999)
    run, shuffled = Updates(spec, weights), Updates(spec, weights[order])
    for g in gradients:
        run.step(g)
        shuffled.step(g[order])
    assert (run.weights[order] == shuffled.weights).all()


@each
def test_one_span_or_many_give_the_same_bits(spec: Any) -> None:
    """Two halves of a tensor are updated as the tensor is."""
    random = np.random.default_rng(3)
    weights, g = random.standard_normal(50), random.standard_normal(50)
    whole, halves = Updates(spec, weights), Updates(spec, weights)
    whole.step(g)
    first = partial([*g[:20], *[None] * 30], np.float64)
    halves.step(first)
    halves.updates, halves.memory = 0, dict(halves.rule.memory)
    halves.step(partial([*[None] * 20, *g[20:]], np.float64))
    assert halves.state == whole.state


def test_a_sum_of_squares_is_the_same_for_any_number_of_threads(four_threads: RunAll) -> None:
    """Chunks are fixed, and their sums are added in index order."""
    x = np.random.default_rng(1).standard_normal(5 * SUM_CHUNK + 17, dtype=np.float32)
    alone = sum_of_squares(x)
    assert alone == sum_of_squares(x, four_threads) == sum_of_squares(x, backwards)
    assert alone == pytest.approx(float((x.astype(np.float64) ** 2).sum()), rel=1e-7)


def test_a_sum_of_squares_adds_chunk_by_chunk() -> None:
    """Chunks of 65,536, in index order: another cut or order changes the bits of every clipped run."""
    chunk = 65_536
    scales = np.repeat(np.random.default_rng(3).uniform(0.1, 10, 9), chunk)[: 8 * chunk + 5]
    x = (np.random.default_rng(2).standard_normal(scales.size) * scales).astype(np.float32)
    total = 0.0
    for start in range(0, x.size, chunk):
        total += float(np.add.reduce((x[start : start + chunk] ** 2).astype(np.float64)))
    assert sum_of_squares(x) == total


def test_the_sum_of_nothing_is_zero() -> None:
    """A vector without elements has the norm 0."""
    assert sum_of_squares(np.empty(0, np.float32)) == 0.0


@pytest.mark.parametrize("count", [0, 1, 2, LANES_MAX, 1000])
def test_every_piece_is_worked_on_once(count: int, four_threads: RunAll) -> None:
    """However many tasks there are, and however they are run."""
    for run_all in (in_turn, backwards, four_threads):
        done: list[int] = []
        share_out(list(range(count)), done.extend, run_all)
        assert sorted(done) == list(range(count))


def test_no_more_tasks_are_made_than_pieces_or_lanes() -> None:
    """A piece alone is worked on here: giving it to a thread costs more than it saves."""
    sizes: list[int] = []
    for count in (1, 2, 3, 100):
        share_out(list(range(count)), list, lambda tasks: sizes.append(len(tasks)))
    assert sizes == [2, 3, LANES_MAX]


def test_powers_are_repeated_multiplications() -> None:
    """β^t, exact to the last places, without the C library's pow; β^0 is 1."""
    for base in (0.0, 0.5, 0.9, 0.999, 0.9999):
        for exponent in (0, 1, 2, 3, 10, 1000, 123_456):
            assert integer_power(base, exponent) == pytest.approx(base**exponent, rel=1e-11, abs=1e-300)
    assert integer_power(0.5, 10) == 2.0**-10


def test_the_default_block_is_one_of_the_measured_sizes() -> None:
    """128 Ki to 256 Ki elements: benchmarks/update_kernel.py."""
    assert 128 << 10 <= BLOCK_ELEMENTS <= 256 << 10
