"""Gradients of some rows, and pulls of some rows, over HTTP."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save

from gradserve.wire import MEDIA_TYPE, decode_frame

TABLE = [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
ROWS = {"rows": [2, 0, 2], "values": [[1.0, 2.0], [4.0, 4.0], [1.0, 0.0]]}
AFTER = [[-2.0, -2.0], [1.0, 1.0], [1.0, 1.0], [3.0, 3.0]]


def body_of(ids, values, metadata=None, **tensors):
    """A file of the safetensors library, as any client may write it."""
    metadata = {"rows": json.dumps(["emb"])} if metadata is None else metadata
    emb = {"emb": np.array(values, np.float32)} if values is not None else {}
    rows = {"emb:rows": ids} if ids is not None else {}
    return save({**emb, **rows, **tensors}, metadata)


@pytest.fixture
async def table(online):
    await online.make_run(weights={"emb": TABLE, "w": [1.0]})
    return online


async def test_rows_as_json_change_their_rows(table):
    """Rows of one id are added; a whole tensor may come beside them."""
    answer = await table.push(body={"gradients": {"emb": ROWS, "w": [1.0]}})
    assert answer.status_code == 200, answer.text
    assert answer.json()["gradient_norm"] == np.sqrt(np.float32(4 + 4 + 16 + 16 + 1), dtype=np.float64)
    weights = (await table.client.get("/v1/runs/run/weights", headers={"Accept": "application/json"})).json()
    assert weights["weights"] == {"emb": AFTER, "w": [0.5]}


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint32])
async def test_rows_as_tensors_are_the_same_push(table, dtype):
    """In another form, from another library, with other integers: it is known again."""
    assert (await table.push(body={"gradients": {"emb": ROWS}})).json()["outcome"] == "applied"
    answer = await table.push(body=body_of(np.array(ROWS["rows"], dtype), ROWS["values"]), Accept="application/json")
    assert (answer.status_code, answer.json()["outcome"]) == (200, "duplicate")


async def test_other_rows_under_the_same_sequence_are_another_gradient(table):
    """The ids are in the digest."""
    await table.push(body={"gradients": {"emb": ROWS}})
    answer = await table.push(body={"gradients": {"emb": {**ROWS, "rows": [2, 1, 2]}}})
    assert (answer.status_code, answer.json()["code"]) == (422, "sequence-reused")


ONE = [[1.0, 1.0]]
HOSTILE = {
    "an id out of range": (body_of(np.array([4]), ONE), "layout-mismatch", "has 4 rows in the run: expected ids below"),
    "a huge id": (body_of(np.array([2**62]), ONE), "layout-mismatch", "expected ids below 4"),
    "a negative id": (body_of(np.array([-1]), ONE), "validation-error", "expected ids of rows from 0 on, came -1"),
    "ids of floats": (body_of(np.array([1.0], np.float32), ONE), "dtype-unsupported", "I64, I32 or U32, came 'F32'"),
    "ids of another count": (body_of(np.array([1, 2]), ONE), "malformed-tensors", "expected one id a row"),
    "ids of two dimensions": (body_of(np.array([[1]]), ONE), "malformed-tensors", "expected one id a row"),
    "no ids": (body_of(None, ONE), "malformed-tensors", "expected 'emb:rows' as well"),
    "no rows": (body_of(np.array([1]), None), "malformed-tensors", "expected 'emb' as well"),
    "rows of another width": (body_of(np.array([1]), [[1.0]]), "layout-mismatch", "expected rows of shape [n, 2]"),
    "a scalar": (body_of(np.array([1]), 1.0), "malformed-tensors", "expected one id a row"),
    "ids that nobody declares": (body_of(np.array([1]), ONE, {}), "dtype-unsupported", "came 'I64'"),
    "a declaration that is no list": (body_of(np.array([1]), ONE, {"rows": "emb"}), "malformed-tensors", "JSON list"),
    "a declaration twice": (body_of(np.array([1]), ONE, {"rows": '["emb","emb"]'}), "malformed-tensors", "once"),
    "ids of ids": (
        body_of(np.array([1]), ONE, {"rows": '["emb","emb:rows"]'}, **{"emb:rows:rows": np.array([0])}),
        "malformed-tensors",
        "as well",
    ),
    "rows of a strange tensor": (
        body_of(None, None, {"rows": '["x"]'}, x=np.ones((1, 2), np.float32), **{"x:rows": np.array([0])}),
        "unknown-tensor",
        "the run has no tensor 'x'",
    ),
    "a bad element": (body_of(np.array([3]), [[1.0, np.nan]]), "non-finite-gradient", "emb[3,1]"),
    "json: rows alone": ({"rows": [1]}, "validation-error", "came an object of 'rows'"),
    "json: ids of floats": ({"rows": [1.0], "values": ONE}, "validation-error", "whole numbers from 0 on"),
    "json: a boolean": ({"rows": [True], "values": ONE}, "validation-error", "numbers in lists of equal length"),
    "json: a huge id": ({"rows": [10**30], "values": ONE}, "validation-error", "whole numbers from 0 on"),
    "json: a negative id": ({"rows": [-1], "values": ONE}, "validation-error", "whole numbers from 0 on"),
    "json: another count": ({"rows": [1, 2], "values": ONE}, "validation-error", "2 ids and values of shape [1, 2]"),
    "json: no list": ({"rows": 1, "values": ONE}, "validation-error", "whole numbers from 0 on"),
    "json: nothing": ({}, "validation-error", "came an object of nothing"),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_rows_that_cannot_be_meant_are_refused(table, what):
    """In words, and without a trace."""
    body, code, detail = HOSTILE[what]
    answer = await table.push(body={"gradients": {"emb": body}} if isinstance(body, dict) else body)
    assert (answer.json()["code"], answer.status_code < 500) == (code, True), answer.text
    assert detail in answer.json()["detail"]
    assert (await table.push(body={"gradients": {"w": [1.0]}})).status_code == 200


@pytest.mark.parametrize(
    ("spec", "detail"),
    [
        ({"optimizer": "adan"}, "adan needs the whole gradient"),
        ({"optimizer": "adam"}, "adam as it is set changes rows without a gradient as well"),
        ({"optimizer": {"name": "sgd", "momentum": 0.9}}, "sgd as it is set changes rows without a gradient"),
        ({"optimizer": {"name": "sgd", "weight_decay": 0.1}}, "its weight decay changes rows without a gradient"),
        ({"groups": [{"name": "t", "match": "emb", "weight_decay": 0.1}]}, "its weight decay changes rows"),
        ({"clip": [{"name": "centralize"}]}, "the clip centralize needs the whole gradient"),
    ],
    ids=str,
)
async def test_a_run_whose_rule_touches_all_rows_does_not_take_some(online, spec, detail):
    """Nobody gets another algorithm by accident; a whole tensor is taken as ever."""
    await online.make_run(weights={"emb": TABLE}, **spec)
    answer = await online.push(body={"gradients": {"emb": ROWS}})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation-error")
    assert detail in answer.json()["detail"]
    assert (await online.push(body={"gradients": {"emb": TABLE}})).status_code == 200


@pytest.mark.parametrize(
    "spec",
    [
        {"optimizer": "adam", "sparse_semantics": "lazy"},
        {"optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1}, "sparse_semantics": "lazy"},
        {
            "optimizer": {"name": "sgd", "weight_decay": 0.1},
            "groups": [{"name": "t", "match": "emb", "weight_decay": 0}],
        },
        {"optimizer": "sparse_adam"},
        {"optimizer": "rowwise_adagrad", "clip": [{"name": "global_norm", "max_norm": 1.0}]},
    ],
    ids=str,
)
async def test_a_run_that_says_so_or_has_the_rule_for_it_takes_them(online, spec):
    """Only the touched rows change."""
    await online.make_run(weights={"emb": TABLE}, **spec)
    answer = await online.push(body={"gradients": {"emb": ROWS}})
    assert answer.status_code == 200, answer.text
    weights = (await online.client.get("/v1/runs/run/weights", headers={"Accept": "application/json"})).json()
    changed = [now != before for now, before in zip(weights["weights"]["emb"], TABLE, strict=True)]
    assert changed == [True, False, True, False]


async def test_weights_do_not_come_in_rows(table):
    """They replace all that a run has."""
    content = body_of(np.array([1]), ONE)
    answer = await table.client.put("/v1/runs/run/weights", content=content, headers={"Content-Type": MEDIA_TYPE})
    assert (answer.status_code, answer.json()["code"]) == (422, "dtype-unsupported")
    answer = await table.client.put("/v1/runs/run/weights", json={"weights": {"emb": ROWS}})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation-error")


async def test_some_rows_are_pulled_in_the_order_asked_for(table):
    """A row may be asked for twice."""
    answer = await table.client.get("/v1/runs/run/weights?names=emb&rows=3,0,3")
    frame = decode_frame(answer.content)
    assert frame.layout.views(frame.vector())["emb"].tolist() == [[3.0, 3.0], [0.0, 0.0], [3.0, 3.0]]
    answer = await table.client.get("/v1/runs/run/weights?names=w&rows=0", headers={"Accept": "application/json"})
    assert answer.json()["weights"] == {"w": [1.0]}


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("rows=1", "expected names with the one tensor"),
        ("names=emb,w&rows=1", "expected names with the one tensor that they are of; came 2 of them"),
        ("names=emb&rows=4", "tensor 'emb' has 4, expected ids below 4; came 4"),
        ("names=emb&rows=-1", "expected a whole number"),
        ("names=emb&rows=1,,2", "expected a whole number"),
        ("names=emb&rows=x", "expected a whole number"),
        ("names=emb&rows=" + ",".join(["1"] * 4097), "at most 4096 ids"),
        ("names=nothing&rows=1", "expected tensors of the names"),
    ],
)
async def test_rows_that_cannot_be_pulled_are_refused(table, query, detail):
    answer = await table.client.get(f"/v1/runs/run/weights?{query}")
    assert answer.status_code == 422
    assert detail in answer.json()["detail"]
