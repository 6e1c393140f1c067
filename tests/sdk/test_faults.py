"""What a worker lives through: lost answers, a server that is killed, a store that lost its tail."""

from __future__ import annotations

import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gradserve as gs
from sdk.serving import Server

FIRST = {"w": np.zeros(3)}
ONES = {"w": np.ones(3)}


def steps_through(client: gs.Client, name: str) -> gs.Run:
    return client.run(name, init=FIRST, optimizer=gs.SGD(lr=1.0))


def test_a_push_whose_answer_is_lost_is_applied_once(line, name):
    """The same bytes again, under the same sequence; the server knows them."""
    with gs.connect(line.url, retry_seconds=30) as client, steps_through(client, name).worker("w0") as worker:
        worker.pull()
        line.answers_to_lose = 1
        sent_before = client.bytes_sent
        weights = worker.step(ONES)
        assert worker.last_push.outcome == "duplicate"
        assert (weights.version, weights["w"].tolist()) == (1, [-1.0, -1.0, -1.0])
        assert worker.step(ONES).version == 2
        assert client.bytes_sent > sent_before
    pushes = b"".join(line.requests).split(b"PUT /v1/runs/" + name.encode() + b"/workers/w0/pushes/1 ")[1:]
    assert len(pushes) == 2
    frames = [push.partition(b"\r\n\r\n")[2] for push in pushes]
    assert frames[1].startswith(frames[0])


def test_every_gradient_counts_once_however_many_answers_are_lost(line, name):
    """Four workers, every fifth answer lost: the weights are the sum of all gradients, to the last one."""
    first = {"w": np.zeros(4)}
    line.lose_every = 5

    def train(k: int) -> list[str]:
        with gs.connect(line.url, retry_seconds=60) as client:
            run = client.run(name, init=first, optimizer=gs.SGD(lr=1.0))
            with run.worker(f"w{k}") as worker:
                outcomes = []
                for _ in range(25):
                    worker.step({"w": np.eye(4)[k]})
                    outcomes.append(worker.last_push.outcome)
                return outcomes

    with ThreadPoolExecutor(4) as pool:
        outcomes = [outcome for worker in pool.map(train, range(4)) for outcome in worker]
    line.lose_every = 0
    with gs.connect(line.url) as client:
        weights = client.run(name).pull()
    assert (weights.version, weights["w"].tolist()) == (100, [-25.0] * 4)
    assert set(outcomes) == {"applied", "duplicate"}


@pytest.mark.parametrize("lost", range(1, 4))
def test_opening_and_registering_survive_lost_answers(line, name, lost):
    """Create, upload, describe, register, leave: each can be repeated."""
    with gs.connect(line.url, retry_seconds=30) as client:
        line.answers_to_lose = lost
        run = steps_through(client, name)
        line.answers_to_lose = lost
        with run.worker("w0") as worker:
            line.answers_to_lose = lost
            assert worker.step(ONES).version == 1
            line.answers_to_lose = lost
        assert run.describe()["workers"] == 0


def test_a_killed_server_is_waited_for(own_server, name):
    """kill −9 between two gradients; the training job does not notice more than a pause."""
    with gs.connect(own_server.url, retry_seconds=60) as client, steps_through(client, name).worker("w0") as worker:
        worker.step(ONES)
        own_server.kill()
        back = threading.Thread(target=own_server.start)
        back.start()
        weights = worker.step(ONES)
        back.join()
        assert (weights.version, weights["w"].tolist()) == (2, [-2.0, -2.0, -2.0])


def test_who_leaves_with_an_error_does_not_wait_for_a_server_that_is_away(own_server, name, caplog):
    """Ctrl-C, for instance, with a gradient on its way: it is given up, and the departure is tried once."""
    sent = []

    def leave_by_ctrl_c(worker):
        with worker:
            weights = worker.pull()
            own_server.kill()
            sent.append(worker.submit({"w": weights["w"]}))
            signal.raise_signal(signal.SIGINT)

    with gs.connect(own_server.url, retry_seconds=15) as client:
        with pytest.raises(KeyboardInterrupt):
            leave_by_ctrl_c(steps_through(client, name).worker("w0"))
        with pytest.raises(gs.ServerUnreachable, match="given up"):
            sent[0].result()
    again = [record.message for record in caplog.records if "trying again" in record.message]
    assert all("/pushes/" in message for message in again)


def test_a_draining_server_is_waited_for(own_server, name):
    """SIGTERM: 503 or nobody there, then its successor."""
    with gs.connect(own_server.url, retry_seconds=60) as client, steps_through(client, name).worker("w0") as worker:
        worker.step(ONES)

        def restart() -> None:
            assert own_server.stop() == 0
            own_server.start()

        back = threading.Thread(target=restart)
        back.start()
        versions = [worker.step(ONES).version for _ in range(20)]
        back.join()
        assert versions == list(range(2, 22))


def test_a_store_that_lost_its_tail_is_noticed_and_survived(own_server, name):
    """The acknowledged gradients are gone: the worker is told, drops the one at hand, and goes on from what is left."""
    with gs.connect(own_server.url, retry_seconds=60) as client, steps_through(client, name).worker("w0") as worker:
        worker.step(ONES, cursor="batch 1")
        own_server.stop()
        store = own_server.place / "store"
        shutil.copytree(store, own_server.place / "older")
        own_server.start()
        worker.step(ONES, cursor="batch 2")
        worker.step(ONES, cursor="batch 3")
        own_server.stop()
        shutil.rmtree(store)
        (own_server.place / "older").rename(store)
        own_server.start()
        with pytest.warns(gs.GradserveWarning, match="history-rewound.*not applied"):
            weights = worker.step(ONES, cursor="batch 4")
        assert (worker.last_push.outcome, weights.version, worker.cursor) == ("rewound", 1, "batch 1")
        weights = worker.step(ONES, cursor="batch 5")
        assert (weights.version, weights["w"].tolist()) == (2, [-2.0, -2.0, -2.0])


def test_a_lost_tail_is_told_even_to_a_worker_that_leaves(own_server, name):
    """Its last gradients are gone, and it would otherwise never know."""
    with gs.connect(own_server.url, retry_seconds=60) as client:
        run = steps_through(client, name)
        worker = run.worker("w0").start()
        worker.step(ONES)
        own_server.stop()
        store = own_server.place / "store"
        shutil.copytree(store, own_server.place / "older")
        own_server.start()
        worker.step(ONES)
        own_server.stop()
        shutil.rmtree(store)
        (own_server.place / "older").rename(store)
        own_server.start()
        with pytest.warns(gs.GradserveWarning, match="history-rewound"):
            worker.leave()
        assert run.describe()["workers"] == 0


def test_an_absent_server_ends_the_patience(tmp_path):
    """With an error that says where and why."""
    server = Server(tmp_path).start()
    server.stop()
    with gs.connect(server.url, retry_seconds=0.5) as client, pytest.raises(gs.ServerUnreachable, match=server.url):
        client.server()
