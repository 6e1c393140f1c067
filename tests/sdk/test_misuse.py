"""What a caller can do wrong says what was expected, in the SDK's own errors; nothing of it is sent."""

from __future__ import annotations

import os

import numpy as np
import pytest

import gradserve as gs

FIRST = {"w": np.zeros(3)}
ONES = {"w": np.ones(3)}


class Array:
    """Something that is no array, and says so in its own way: a tensor that needs `.detach()` is one."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")


WRONG = [
    None, 3, "w", [np.ones(3)], {"w": "text"}, {"w": None}, {"w": {}}, {"w": Array()}, {3: np.ones(3)},
    {"w": [[1.0], [1.0, 2.0]]}, {"w": gs.Rows([0], [[1.0], [1.0, 2.0]])},
    {"w": gs.Rows([[0], [0, 1]], [1.0, 1.0])}, {"w": gs.Rows(Array(), [1.0])}, {"w": gs.Rows([0], Array())},
    np.ones(3, np.complex64), np.array(["1"] * 3),
]  # fmt: skip


@pytest.mark.parametrize("gradients", WRONG, ids=lambda given: type(given).__name__)
@pytest.mark.parametrize("verb", ["push", "step", "submit"])
def test_gradients_of_a_wrong_kind(client, gradients, verb):
    """Said at the call, or where its result is asked for; no sequence is used up."""

    def use(worker: gs.Worker) -> None:
        sent = getattr(worker, verb)(gradients)
        sent.result()

    run = client.run("misuse", init=FIRST, optimizer="sgd")
    with run.worker("w0") as worker:
        worker.pull()
        before = worker.push(ONES).sequence
        with pytest.raises(gs.Invalid, match="expected"):
            use(worker)
        assert worker.push(ONES).sequence == before + 1


@pytest.mark.parametrize(
    "said",
    [
        {"samples": "many"}, {"samples": -1}, {"loss": []}, {"cursor": 3}, {"cursor": "x" * 2000}, {"lr": "high"},
        {"on_stale": "ignore"}, {"base": 3}, {"base": FIRST}, {"weight": 1},
        {"base_version": 1}, {"generation": 1}, {"after": "r1"},
    ],
    ids=lambda said: next(iter(said)),
)  # fmt: skip
def test_what_is_said_of_a_gradient(client, said):
    """Each field by its name."""
    run = client.run("misuse", init=FIRST, optimizer="sgd")
    with run.worker("w0") as worker, pytest.raises(gs.ValidationError, match=r"expected"):
        worker.push(ONES, **said)


def test_settings_and_names_of_a_wrong_kind(client, name):
    """Of runs, workers and clients."""
    with pytest.raises(gs.ValidationError, match="run name"):
        client.run(None, optimizer="sgd")
    with pytest.raises(gs.ValidationError, match="expected"):
        client.run(name, init=[1.0], optimizer="sgd")
    with pytest.raises(gs.ValidationError, match="expected"):
        client.run(name, init={"w": "text"}, optimizer="sgd")
    run = client.run(name, init=FIRST, optimizer="sgd")
    with pytest.raises(gs.ValidationError, match="worker name"):
        run.worker("a/b")
    with pytest.raises(gs.ValidationError, match="on_stale"):
        run.worker(on_stale="ignore")
    with pytest.raises(gs.ValidationError, match="heartbeat_seconds"):
        run.worker(heartbeat_seconds=0)
    with pytest.raises(gs.ValidationError, match="wait_seconds"):
        run.pull(wait_seconds=-1)
    with pytest.raises(gs.ValidationError, match="since"):
        run.journal(since="x")
    for source in ({"w": Array()}, {"w": [[1.0], [1.0, 2.0]]}, {"w": "text"}):
        with pytest.raises(gs.ValidationError, match="expected"):
            run.upload_checkpoint("brought", source)
    for seconds in (-1, float("nan"), "60"):
        with pytest.raises(gs.Misuse, match="retry_seconds"):
            gs.connect(client.url, retry_seconds=seconds)


def test_numpys_numbers_are_numbers(client, name):
    """In a spec, in a change, of a gradient."""
    run = client.run(name, init=FIRST, optimizer=gs.SGD(lr=np.float32(0.5)), clip=gs.Value(value=np.int64(10)))
    assert run.configure(lr=np.float32(0.25))["spec"]["optimizer"]["lr"] == 0.25
    with run.worker() as worker:
        assert worker.push(ONES, samples=np.int32(4), loss=np.float32(0.5)).lr == 0.25


def test_use_after_the_end(server, name):
    """A worker that has left, a client that is closed; leaving and closing twice are no errors."""
    client = gs.connect(server.url)
    run = client.run(name, init=FIRST, optimizer="sgd")
    with run.worker() as worker:
        worker.pull()
    worker.leave()
    with pytest.raises(gs.Closed, match="has left"):
        worker.push(ONES)
    client.close()
    client.close()
    for use in (run.pull, run.describe, client.runs):
        with pytest.raises(gs.Closed, match="is closed"):
            use()


def in_a_forked_child(work) -> bytes:
    """What the work says in a child of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"nothing"
        try:
            said = repr(work()).encode()
        except gs.GradserveError as error:
            said = f"{type(error).__name__}: {error}".encode()
        finally:
            os.write(writing, said)
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return said


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 warns of forking with threads
def test_a_forked_child(client, name):
    """Has connections of its own; its parent's workers are not its own, and go on undisturbed."""
    run = client.run(name, init=FIRST, optimizer=gs.SGD(lr=0.5))
    with run.worker() as worker:
        worker.step(ONES)
        assert in_a_forked_child(lambda: run.describe()["version"]) == b"1"
        assert in_a_forked_child(lambda: worker.push(ONES)).startswith(b"Forked: worker")
        assert in_a_forked_child(worker.leave) == b"None"
        assert worker.step(ONES).version == 2

    def work_there() -> int:
        with run.worker() as own:
            return own.step(ONES).version

    assert in_a_forked_child(work_there) == b"3"
