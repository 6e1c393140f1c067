"""What a run has done and does, asked of a real server."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import gradserve as gs

FIRST = {"w": np.zeros(3)}
ONES = {"w": np.ones(3)}


@pytest.fixture
def trained(client, name) -> gs.Run:
    """A run with three updates, one of them without a loss, and an evaluation."""
    run = client.run(name, init=FIRST, optimizer=gs.SGD(lr=0.5))
    with run.worker("w0") as worker:
        worker.step(ONES, loss=3.0)
        worker.step(ONES)
        worker.step(ONES, loss=1.0)
    run.report({"accuracy": 0.75})
    return run


def test_history_is_columns_of_one_length(trained):
    """Losses where one was said, NaN where not; only what was asked for; only what came after."""
    columns = trained.history()
    losses = columns["loss"][~np.isnan(columns["loss"])]
    assert losses.tolist() == [3.0, 1.0]
    assert 0.75 in columns["metrics/accuracy"].tolist()
    assert len({len(column) for column in columns.values()}) == 1
    some = trained.history(["loss", "lr"], since=1)
    assert some["version"].min() > 1
    assert "gradient_norm" not in some
    assert len(trained.history("loss", max_points=2)["loss"]) <= 2


def test_statistics_say_where_training_stands(trained):
    """Steps, and a row for each tensor."""
    statistics = trained.statistics()
    assert (statistics["step"], [row["name"] for row in statistics["tensors"]]) == (3, ["w"])


def test_the_journal_says_who_did_what(trained):
    """In order, without a gap, from where it was asked."""
    entries = trained.journal()
    positions = [entry["position"] for entry in entries]
    assert positions == list(range(positions[0], positions[0] + len(positions)))
    assert [entry["position"] for entry in trained.journal(positions[2])] == positions[3:]


def test_watching_from_the_beginning_to_the_end(trained):
    """Everything that is kept, then what is new, until the run is closed."""
    seen: list[gs.Event] = []
    begun = threading.Event()

    def watch() -> None:
        for event in trained.watch(since=0):
            seen.append(event)
            begun.set()

    watching = threading.Thread(target=watch)
    watching.start()
    assert begun.wait(60)
    trained.configure(lr=0.25)
    trained.close()
    watching.join(60)
    assert not watching.is_alive()
    kinds = [event.kind for event in seen]
    assert kinds.count("update") == 3
    assert kinds[-2:] == ["configure", "configure"]
    assert list(trained.watch()) == []  # what begins after the end is over
    assert [event.id for event in seen] == sorted(event.id for event in seen)


async def test_watching_in_a_loop(server, trained):
    """The same feed with asyncio."""
    async with gs.connect_async(server.url) as client:
        run = await client.run(trained.name)
        async with run.watch(since=0) as events:
            kinds = []
            async for event in events:
                kinds.append(event.kind)
                if kinds.count("update") == 3:
                    break
    assert "worker" in kinds
