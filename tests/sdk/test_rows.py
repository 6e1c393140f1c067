"""Gradients of some rows through the SDK, against a real server."""

from __future__ import annotations

import numpy as np
import pytest

import gradserve as gs
from sdk.serving import Server

TABLE = {"emb": np.arange(8.0).reshape(4, 2), "w": np.zeros(3)}


def test_rows_are_pushed_and_pulled(client, name):
    """The worker never holds the whole table."""
    run = client.run(name, init=TABLE, optimizer=gs.SGD(lr=0.5))
    with run.worker("w0") as worker:
        rows = worker.pull_part(["emb"], rows=[3, 1])
        assert rows["emb"].tolist() == [[6, 7], [2, 3]]
        result = worker.push({"emb": gs.Rows([3, 1, 3], np.ones((3, 2)))})
        assert (result.outcome, result.version, result.staleness) == ("applied", 1, 0)
    assert run.pull_part(["emb"], rows=np.array([0, 1, 3]))["emb"].tolist() == [[0, 1], [1.5, 2.5], [5, 6]]
    assert run.pull_part(["w"])["w"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("whole_first", [False, True])
def test_what_was_pulled_last_does_not_say_what_may_be_pushed(client, name, whole_first):
    """A table by its rows and the layers behind it: in whichever order they were pulled, both can be pushed."""
    with client.run(name, init=TABLE, optimizer=gs.SGD(lr=0.5)).worker("w0") as worker:
        if whole_first:
            worker.pull()
        worker.pull_part(["w"])
        worker.pull_part(["emb"], rows=[2])
        assert worker.push({"emb": gs.Rows([2], [[1.0, 1.0]]), "w": np.ones(3)}).version == 1
        with pytest.raises(gs.LayoutMismatch, match="'w'"):
            worker.push({"w": np.ones(4)})
        with pytest.raises(gs.UnknownTensor, match="'x'"):
            worker.push({"x": np.ones(4)})
        with pytest.raises(gs.ValidationError, match="expected a dict of arrays, came a vector"):
            worker.push(np.ones(11, np.float32))
        assert worker.pull()["w"].tolist() == [-0.5] * 3


def test_rows_and_whole_tensors_go_together(client, name):
    """And the answer may bring the new weights, whole."""
    with client.run(name, init=TABLE, optimizer=gs.SGD(lr=0.5)).worker("w0") as worker:
        weights = worker.step({"emb": gs.Rows(np.array([2], np.int32), [[1.0, 1.0]]), "w": np.ones(3)})
        assert weights["emb"].tolist() == [[0, 1], [2, 3], [3.5, 4.5], [6, 7]]
        assert weights["w"].tolist() == [-0.5] * 3
        submitted = worker.submit({"emb": gs.Rows([], np.ones((0, 2)))})
        assert (submitted.result()["emb"] == weights["emb"]).all()


@pytest.mark.parametrize(
    ("gradient", "error", "message"),
    [
        (gs.Rows([1.5], np.ones((1, 2))), gs.ValidationError, "expected ids of rows, a vector of integers"),
        (gs.Rows([[1]], np.ones((1, 2))), gs.ValidationError, "expected ids of rows, a vector of integers"),
        (gs.Rows([1, 2], np.ones((1, 2))), gs.ValidationError, "expected one id a row"),
        (gs.Rows([1], np.float32(1)), gs.ValidationError, "expected one id a row"),
        (gs.Rows([-1], np.ones((1, 2))), gs.ValidationError, "from 0 on, came -1"),
        (gs.Rows([4], np.ones((1, 2))), gs.LayoutMismatch, "has 4 rows"),
    ],
    ids=["floats", "a-matrix", "too-many", "a-scalar", "negative", "too-large"],
)
def test_rows_that_cannot_be_meant_are_refused(client, name, gradient, error, message):
    with client.run(name, init=TABLE, optimizer="sgd").worker("w0") as worker:
        worker.pull()
        with pytest.raises(error, match=message):
            worker.push({"emb": gradient})
        assert worker.push({"emb": gs.Rows([1], np.ones((1, 2)))}).outcome == "applied"


@pytest.mark.parametrize(
    ("names", "rows", "message"),
    [
        ("emb", None, "expected a list of tensor names"),
        ([], None, "expected a list of tensor names"),
        (["a,b"], None, "a name with a comma"),
        (["emb"], [[1]], "expected a vector of row ids"),
        (["emb", "w"], [1], "expected a vector of row ids of one tensor"),
        (["emb"], [1.5], "expected a vector of row ids"),
    ],
    ids=["text", "none", "a-comma", "a-matrix", "two", "floats"],
)
def test_a_part_that_cannot_be_meant_is_refused(client, name, names, rows, message):
    with pytest.raises(gs.ValidationError, match=message):
        client.run(name, init=TABLE, optimizer="sgd").pull_part(names, rows)


def test_a_server_that_is_killed_has_the_same_table_again(tmp_path):
    """Bit for bit, weights and slots: the journal holds the rows as they came."""
    random = np.random.default_rng(0)
    server = Server(tmp_path).start()
    try:
        with gs.connect(server.url) as client:
            run = client.run("r", init={"emb": random.normal(size=(200, 3))}, optimizer="adam", sparse_semantics="lazy")
            with run.worker("w0") as worker:
                for _ in range(10):
                    worker.push({"emb": gs.Rows(random.integers(0, 200, 30), random.normal(size=(30, 3)))})
                weights, slots = run.pull().vector.tobytes(), run.optimizer_state().vector.tobytes()
                server.kill()
                server.start()
                again = client.run("r")
                assert again.pull().vector.tobytes() == weights
                assert again.optimizer_state().vector.tobytes() == slots
                assert worker.push({"emb": gs.Rows([5], np.ones((1, 3)))}).version == 11
    finally:
        server.kill()
