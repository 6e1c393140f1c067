"""Rules with sums and shapes: the same bits however they are computed, and slots that are not as the weights are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from core.running import Updates, tensors_of
from core.strategies import label
from core.tensor_strategies import EACH
from gradserve import specs
from gradserve.wire import Layout
from gradserve_service.core.blocks import SUM_CHUNK, RunAll, in_turn
from gradserve_service.core.groups import GroupTerms, Stretch
from gradserve_service.core.optimizers import rule_for
from gradserve_service.core.slots import cut, own_layouts

SHAPES = [(1200,), (), (40, 70), (0, 3), (3, 4, 6)]
SIZE = sum(math.prod(shape) for shape in SHAPES)
CLIP = [specs.GlobalNorm(max_norm=20.0), specs.Value(value=0.2), specs.GlobalNorm(max_norm=5.0)]
each = pytest.mark.parametrize("spec", EACH, ids=label)


@pytest.fixture(scope="module")
def four_threads() -> Iterator[RunAll]:
    with ThreadPoolExecutor(4) as pool:
        yield lambda tasks: [future.result() for future in [pool.submit(task) for task in tasks]] and None


def backwards(tasks: Sequence[Callable[[], None]]) -> None:
    in_turn(tasks[::-1])


def after_three_updates(spec: Any, shapes: Any = SHAPES, clip: Any = CLIP, **how: Any) -> bytes:
    random, size = np.random.default_rng(7), sum(math.prod(shape) for shape in shapes)
    run = Updates(spec, random.standard_normal(size, dtype=np.float32), clip, layout=tensors_of(shapes))
    for _ in range(3):
        run.step(random.standard_normal(size, dtype=np.float32), **how)
    return run.state


@each
def test_any_sharing_between_threads_gives_the_same_bits(spec: Any, four_threads: RunAll) -> None:
    """Who computes a tensor, and in what blocks, is not part of the result."""
    alone = after_three_updates(spec)
    assert after_three_updates(spec, block_elements=100) == alone
    assert after_three_updates(spec, run_all=four_threads) == alone
    assert after_three_updates(spec, run_all=backwards) == alone


def test_sums_over_long_tensors_are_added_chunk_by_chunk(four_threads: RunAll) -> None:
    """A tensor of several chunks: the same bits for any threads, and the norm that it should have."""
    spec, shapes = specs.Fromage(lr=0.5), [(SUM_CHUNK + 7,), (2 * SUM_CHUNK + 1,)]
    assert after_three_updates(spec, shapes, (), run_all=four_threads) == after_three_updates(spec, shapes, ())
    w, g = np.full(3 * SUM_CHUNK + 8, 2.0), np.full(3 * SUM_CHUNK + 8, 0.5)
    run = Updates(spec, w, layout=tensors_of(shapes))
    run.step(g)
    assert run.weights == pytest.approx((w - 0.5 * w) / math.sqrt(1.25), rel=1e-14)  # r g = w where both are constant


@each
def test_tensors_without_a_gradient_stay_with_their_slots(spec: Any) -> None:
    """The same bytes of weights and slots as before."""
    random = np.random.default_rng(3)
    run = Updates(spec, random.standard_normal(SIZE), layout=tensors_of(SHAPES))
    run.step(random.standard_normal(SIZE))
    before = run.weights, {name: slot.copy() for name, slot in run.slots.items()}
    run.step(run.gradient_of(random.standard_normal(SIZE), [True, True, False, True, True]))
    own = own_layouts(run.rule.slots, run.layout)
    assert np.array_equal(run.weights[run.layout.span("02")], before[0][run.layout.span("02")])
    assert not np.array_equal(run.weights, before[0])
    for name, slot in run.slots.items():
        layout = own.get(name, run.layout)
        if "02" in layout:
            assert np.array_equal(slot[layout.span("02")], before[1][name][layout.span("02")])


@pytest.mark.parametrize("spec", [spec for spec in EACH if rule_for(spec).kind != "whole_run"], ids=label)
def test_each_group_has_its_rate_and_its_decay(spec: Any) -> None:
    """Two groups are as two runs."""
    random, layout = np.random.default_rng(3), tensors_of([(5, 3), (4,)])
    weights, g = random.standard_normal(19), random.standard_normal((2, 19))
    whole = Updates(spec, weights, layout=layout)
    parts = [
        Updates(spec, weights[:15], layout=tensors_of([(5, 3)])),
        Updates(spec.model_copy(update={"weight_decay": 0.2}), weights[15:], layout=tensors_of([(4,)])),
    ]
    terms = [GroupTerms(0.1, spec.weight_decay), GroupTerms(0.03, 0.2)]
    for pushed in g:
        whole.step(pushed, terms=terms, stretches=(Stretch(0, 15, 0), Stretch(15, 19, 1)))
        parts[0].step(pushed[:15], terms=terms[:1])
        parts[1].step(pushed[15:], terms=terms[1:])
    assert np.array_equal(whole.weights, np.concatenate([part.weights for part in parts]))


def test_a_slot_of_its_own_shape_has_the_tensors_that_it_is_for() -> None:
    """SM3 keeps a number for each row and column, NovoGrad one for each tensor."""
    layout = Layout.of({"kernel": [40, 70], "bias": [7], "scale": []})
    sm3, novograd = (Updates(spec, np.ones(2808), layout=layout) for spec in (specs.Sm3(), specs.Novograd()))
    assert own_layouts(sm3.rule.slots, layout)["accumulators"] == Layout.of(
        {"kernel": [110], "bias": [7], "scale": [1]}
    )
    assert {name: slot.size for name, slot in sm3.slots.items()} == {"accumulators": 118, "exp_avg": 2808}
    assert {name: slot.size for name, slot in novograd.slots.items()} == {"exp_avg": 2808, "exp_avg_sq": 3}


def test_vectors_end_to_end_come_apart_where_they_were_put_together() -> None:
    """And nothing may be left over."""
    assert [part.tolist() for part in cut(np.arange(6), [1, 0, 5])] == [[0], [], [1, 2, 3, 4, 5]]
    with pytest.raises(AssertionError):
        cut(np.arange(6), [1, 4])
