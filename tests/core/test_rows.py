"""Gradients of some rows of a tensor: what the whole gradient with zeros elsewhere would do, for less."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from core.running import Updates
from gradserve.problems import Refused
from gradserve.specs import RunSpec
from gradserve.wire import Layout, decode_frame, encode_frame
from gradserve_service.core.gradient import Gradient, non_finite_tensors
from gradserve_service.core.groups import GroupTerms, stretches_of
from gradserve_service.core.measuring import measure, way
from gradserve_service.core.optimizers import RULES

RUN = Layout.of({"a": [3], "emb": [50, 4], "w": [2, 2]})
EXACT = [name for name, rule in RULES.items() if rule.sparse == "exact"]
LAZY = [name for name, rule in RULES.items() if rule.sparse == "lazy"]
OWN = [name for name, rule in RULES.items() if rule.sparse == "own"]


def rows_frame(ids, values, dtype="float32", **whole):
    """A push of rows of `emb`, and of whole tensors."""
    tensors = {"emb": np.asarray(values, np.float32), **whole}
    layout = Layout.of({name: np.shape(tensor) for name, tensor in tensors.items()})
    rows = {"emb": np.asarray(ids, np.int64)}
    return decode_frame(b"".join(map(bytes, encode_frame(layout, layout.flatten(tensors), rows=rows, dtype=dtype))),
                        rows=True)  # fmt: skip


def of_rows(ids, values, **whole):
    return Gradient.of(rows_frame(ids, values, **whole), RUN)


def filled_up(ids, values, **whole):
    """The same as a whole gradient of `emb`: zeros where no row came, rows of one id added."""
    table = np.zeros((50, 4), np.float32)
    np.add.at(table, ids, np.asarray(values, np.float32))
    layout = Layout.of({"emb": [50, 4], **{name: np.shape(tensor) for name, tensor in whole.items()}})
    frame = decode_frame(b"".join(map(bytes, encode_frame(layout, layout.flatten({"emb": table, **whole})))))
    return Gradient.of(frame, RUN)


def pushes(count, seed=0):
    """Ids (sorted or not, some of them twice), their rows, and a whole tensor every second time."""
    random = np.random.default_rng(seed)
    for number in range(count):
        ids = random.integers(0, 50, 9)
        values = random.integers(-8, 9, (9, 4)).astype(np.float32)  # their sums are exact in any order
        yield ids, values, {"w": random.normal(size=(2, 2))} if number % 2 else {}


def start(name, **fields):
    weights = np.random.default_rng(1).normal(size=RUN.parameters).astype(np.float32)
    return Updates(RULES[name].model_validate({"lr": 0.05, **fields}), weights, layout=RUN)


@pytest.mark.parametrize("name", EXACT)
def test_an_exact_rule_does_to_rows_what_it_does_to_the_whole_gradient(name):
    """Weights and slots have the same bits."""
    few, whole = start(name), start(name)
    for ids, values, others in pushes(12):
        few.step(of_rows(ids, values, **others))
        whole.step(filled_up(ids, values, **others))
    assert few.state == whole.state


@pytest.mark.parametrize("name", [*LAZY, *OWN])
def test_a_lazy_rule_leaves_untouched_rows_alone_and_does_its_work_on_the_others(name):
    """Where every row comes each time, lazy is the rule itself."""
    few, whole = start(name, weight_decay=0.0), start(name, weight_decay=0.0)
    random = np.random.default_rng(3)
    for _ in range(4):
        values = random.normal(size=(50, 4))
        few.step(of_rows(np.arange(50), values))
        whole.step(filled_up(np.arange(50), values))
    assert few.state == whole.state
    before = RUN.views(few.weights)["emb"].copy()
    slots = {slot: vector.copy() for slot, vector in few.slots.items()}
    few.step(of_rows([7, 3], np.ones((2, 4))))
    after = RUN.views(few.weights)["emb"]
    changed = np.flatnonzero((before != after).any(axis=1))
    assert changed.tolist() == [3, 7]
    for slot, vector in few.slots.items():
        assert np.count_nonzero(slots[slot] != vector) <= 8


def test_rows_of_one_id_are_added():
    gradient = of_rows([5, 2, 5, 5], [[1, 2, 3, 4], [9, 9, 9, 9], [10, 20, 30, 40], [100, 200, 300, 400]])
    (rows,) = gradient.rows
    assert rows.ids.tolist() == [2, 5]
    assert gradient.vector.reshape(2, 4).tolist() == [[9, 9, 9, 9], [111, 222, 333, 444]]
    assert gradient.sum_of_squares == filled_up([5, 2], [[111, 222, 333, 444], [9, 9, 9, 9]]).sum_of_squares


def test_the_sum_of_rows_is_rounded_once():
    """In float32 the small ones would be lost one by one."""
    values = np.full((1 + 2**10, 4), 2.0**-14, np.float32)
    values[0] = 2.0**10
    gradient = of_rows(np.zeros(len(values), np.int64), values)
    assert gradient.vector.tolist() == [2.0**10 + 2.0**-4] * 4


def test_narrow_rows_are_widened_before_they_are_added():
    frame = rows_frame([1, 1], [[1, 1, 1, 1], [2**-9] * 4], "bfloat16")
    assert Gradient.of(frame, RUN).vector.tolist() == [1 + 2**-9] * 4


def test_the_bits_do_not_depend_on_the_order_of_distinct_rows():
    ids, values = np.array([40, 3, 17]), np.random.default_rng(0).normal(size=(3, 4))
    one, other = start("adagrad"), start("adagrad")
    one.step(of_rows(ids, values))
    other.step(of_rows(ids[::-1], values[::-1]))
    assert one.state == other.state


def test_rows_are_in_the_group_of_their_tensor():
    """Its rate and its decay reach the touched rows."""
    spec = RunSpec.model_validate({"optimizer": "sgd", "groups": [{"name": "tables", "match": "emb"}]})
    stretches, terms = stretches_of(spec.groups, RUN), [GroupTerms(0.1, 0.0), GroupTerms(0.5, 0.25)]
    run = Updates(RULES["sgd"](), np.ones(RUN.parameters, np.float32), layout=RUN)
    run.step(of_rows([6], np.ones((1, 4)), a=np.ones(3)), stretches=stretches, terms=terms)
    views = RUN.views(run.weights)
    assert views["a"].tolist() == [np.float32(1) - np.float32(0.1)] * 3
    assert views["emb"][6].tolist() == [1 - 0.5 * 1.25] * 4
    assert (np.delete(views["emb"], 6, axis=0) == 1).all()


def test_rows_of_a_frozen_tensor_are_left_out():
    gradient = of_rows([6], np.ones((1, 4)), w=np.full((2, 2), 2.0))
    kept = gradient.within([(0, 3), (203, 207)])
    assert (kept.rows, kept.vector.tolist()) == ((), [2.0] * 4)
    kept = gradient.within([(3, 203)])
    assert (kept.spans, kept.rows[0].ids.tolist(), kept.sum_of_squares) == ((), [6], 4.0)


@pytest.mark.parametrize(
    ("ids", "width", "message"),
    [
        ([50], 4, "tensor 'emb' has 50 rows in the run: expected ids below 50, came 50"),
        ([1], 3, r"tensor 'emb' is \[50, 4\] in the run, \[1, 3\] here: expected rows of shape \[n, 4\]"),
    ],
)
def test_rows_that_the_run_does_not_have_are_refused(ids, width, message):
    with pytest.raises(Refused, match="layout-mismatch: " + message):
        of_rows(ids, np.ones((1, width)))


def test_rows_of_a_tensor_that_the_run_does_not_have_are_refused():
    with pytest.raises(Refused, match="unknown-tensor: the run has no tensor 'emb'"):
        Gradient.of(rows_frame([1], np.ones((1, 4))), Layout.of({"w": [2, 2]}))


def test_a_scalar_has_no_rows():
    with pytest.raises(Refused, match=r"layout-mismatch: .*expected the scalar, it has no rows"):
        Gradient.of(rows_frame([0], [1.0]), Layout.of({"emb": []}))


def test_a_bad_element_is_named_by_its_row_in_the_run():
    frame = rows_frame([9, 4], [[1, 1, 1, 1], [1, 1, np.nan, 1]])
    assert (Gradient.of(frame, RUN).finite, non_finite_tensors(frame)) == (False, ["emb[4,2]"])


def test_rows_whose_sum_overflows_are_as_bad():
    """Each alone would be fine."""
    frame = rows_frame([9, 9], [[1, 1.2e19, 1, 1], [1, 1.2e19, 1, 1]])
    assert (Gradient.of(frame, RUN).finite, non_finite_tensors(frame)) == (False, ["emb[9,1]"])


@pytest.mark.parametrize(("rowwise", "plain"), [("rowwise_adagrad", "adagrad"), ("rowwise_adam", "adam")])
def test_with_rows_of_one_element_a_row_wise_rule_is_the_plain_one(rowwise, plain):
    one, other = (
        Updates(RULES[name](lr=0.05, eps=1e-8), np.ones(40), layout=Layout.of({"v": [40]})) for name in (rowwise, plain)
    )
    random = np.random.default_rng(0)
    for _ in range(10):
        gradient = random.normal(size=40)
        one.step(gradient)
        other.step(gradient)
    assert np.allclose(one.weights, other.weights, rtol=1e-12)


def test_no_rows_at_all_change_nothing():
    run = start("adagrad")
    before = run.state
    run.step(of_rows([], np.ones((0, 4))))
    assert run.state == before


def test_rows_are_measured_as_the_whole_gradient_would_be():
    """Norm, largest magnitude, share of zeros; and the way that the weights went."""
    ids, values = np.array([3, 40]), np.array([[1, -5, 0, 2], [0.5, 0, 0, 1]])
    few, whole = of_rows(ids, values, w=np.ones((2, 2))), filled_up(ids, values, w=np.ones((2, 2)))
    for found, expected in zip(astuple(measure(few, RUN)), astuple(measure(whole, RUN)), strict=True):
        assert np.allclose(found, expected, equal_nan=True)
    one, other = start("sgd"), start("sgd")
    before = one.weights
    one.step(few)
    other.step(whole)
    assert np.isclose(way(before, one.weights, few, RUN), way(before, other.weights, whole, RUN))
