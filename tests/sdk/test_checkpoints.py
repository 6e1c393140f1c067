"""Named states of a run, on a real server: kept, carried away as files, gone back to, gone on from."""

from __future__ import annotations

import numpy as np
import pytest

import gradserve as gs
from gradserve.wire import decode_frame

FIRST = {"w": np.zeros(3)}
ONES = {"w": np.ones(3)}


@pytest.fixture
def run(client, name) -> gs.Run:
    """A run with momentum, so that its slots matter, after two updates."""
    made = client.run(name, init=FIRST, optimizer=gs.SGD(lr=0.5, momentum=0.5))
    with made.worker("w0") as worker:
        worker.step(ONES)
        worker.step(ONES)
    return made


def test_a_checkpoint_keeps_weights_slots_and_step(run):
    """Immutable: under a name that is taken nothing changes."""
    kept = run.checkpoint("early")
    assert (kept["name"], kept["version"], kept["step"]) == ("early", 2, 2)
    with run.worker("w0") as worker:
        after = worker.step(ONES)["w"].tolist()
    assert run.checkpoint("early")["version"] == 2
    assert [row["name"] for row in run.checkpoints()] == ["early"]
    restored = run.restore("early")
    assert (restored["version"], restored["step"]) == (4, 2)
    with run.worker("w0") as worker:
        assert worker.step(ONES)["w"].tolist() == after
    run.delete_checkpoint("early")
    run.delete_checkpoint("early")
    assert run.checkpoints() == []
    with pytest.raises(gs.CheckpointNotFound):
        run.restore("early")


def test_a_file_brings_it_to_another_run(client, run, name, tmp_path):
    """Written by one run, read by another: weights and momentum are there."""
    run.checkpoint("final")
    path = run.download("final", tmp_path / "final.safetensors")
    frame = decode_frame(path.read_bytes())
    assert frame.layout.views(frame.vector())["w"].tolist() == run.pull()["w"].tolist()
    assert list(tmp_path.iterdir()) == [path]
    other = client.run(f"{name}.2", init=FIRST, optimizer=gs.SGD(lr=0.5, momentum=0.5))
    other.upload_checkpoint("imported", path)
    other.restore("imported")
    assert other.pull()["w"].tolist() == run.pull()["w"].tolist()
    with run.worker() as here, other.worker() as there:
        assert here.step(ONES)["w"].tolist() == there.step(ONES)["w"].tolist()


def test_a_download_that_fails_leaves_no_file(run, tmp_path):
    """Neither a part under its name nor one under another."""
    with pytest.raises(gs.CheckpointNotFound):
        run.download("absent", tmp_path / "absent.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_version_can_be_gone_back_to(run):
    """What is no longer kept is told with the kept range."""
    with pytest.raises(gs.VersionNotKept, match="kept"):
        run.restore(version=1_000_000)


def test_a_branch_without_a_checkpoint_starts_from_the_present_state_each_time(client, run, name):
    """Also where a branch of that name was made, and deleted, before; one that is there is `RunExists`."""
    first = run.branch(f"{name}.again")
    first.delete()
    with run.worker() as worker:
        worker.push(ONES)
    second = run.branch(f"{name}.again")
    assert second.pull()["w"].tolist() == run.pull()["w"].tolist()
    with pytest.raises(gs.RunExists):
        run.branch(f"{name}.again")
    assert run.checkpoints() == []


def test_a_branch_goes_on_beside(client, run, name):
    """With another learning rate, from the same weights; the first run does not notice."""
    branch = run.branch(f"{name}.hot", optimizer=gs.SGD(lr=5.0, momentum=0.5))
    assert branch.pull()["w"].tolist() == run.pull()["w"].tolist()
    with branch.worker() as worker:
        worker.step(ONES)
    assert branch.describe()["spec"]["optimizer"]["lr"] == 5.0
    assert run.describe()["version"] == 2
    assert run.checkpoints() == []  # it passed through one
    run.checkpoint("here")
    inherited = run.branch(f"{name}.same", "here")
    assert inherited.describe()["spec"]["optimizer"]["lr"] == 0.5


async def test_the_same_in_a_loop(server, run, tmp_path):
    """Kept, downloaded, gone back to."""
    async with gs.connect_async(server.url) as client:
        same = await client.run(run.name)
        await same.checkpoint("here")
        path = await same.download("here", tmp_path / "here.safetensors")
        await same.upload_checkpoint("there", path)
        assert sorted(row["name"] for row in await same.checkpoints()) == ["here", "there"]
        assert (await same.restore("there"))["version"] == 3
        branch = await same.branch(f"{run.name}.b", "here")
        assert (await branch.pull())["w"].tolist() == run.pull()["w"].tolist()
