"""Runs and servers through the client, against a real server."""

from __future__ import annotations

import numpy as np
import pytest

import gradserve as gs
from sdk.serving import Server

FIRST = {"w": np.zeros(3)}
ONES = {"w": np.ones(3)}


def test_groups_of_tensors(client, name):
    """Specs or dicts; a worker's rates by group may be NumPy scalars."""
    first = {"w": np.zeros(1), "w.bias": np.zeros(1)}
    groups = [gs.ParameterGroup(name="bias", match="*.bias", lr_scale=0.5)]
    run = client.run(name, init=first, optimizer=gs.SGD(lr=1.0), groups=groups, schedule=gs.ClientOwned())
    with run.worker("w0") as worker:
        worker.step({"w": np.ones(1), "w.bias": np.ones(1)})
        assert [float(x[0]) for x in worker.pull().values()] == [-1.0, -0.5]
        worker.step({"w": np.ones(1), "w.bias": np.ones(1)}, lr={"default": np.float32(0.5), "bias": 0.25})
        assert [float(x[0]) for x in worker.pull().values()] == [-1.5, -0.75]
        with pytest.raises(gs.ValidationError, match="came nobody"):
            worker.step({"w": np.ones(1)}, lr={"nobody": 1.0})
    assert run.configure(groups=[{"match": "*", "frozen": True}])["spec"]["groups"][0]["name"] == "group1"


def test_get_or_create(client, name):
    """The same spec is the same run; another one is refused with the difference; none means it must exist."""
    with pytest.raises(gs.RunNotFound):
        client.run(name)
    made = client.run(name, init=FIRST, optimizer=gs.AdamW(lr=3e-3), clip=gs.GlobalNorm(max_norm=1.0))
    again = client.run(name, optimizer={"name": "AdamW", "lr": 3e-3}, clip=[gs.GlobalNorm(max_norm=1.0)])
    assert made.uid == again.uid == client.run(name).uid
    with pytest.raises(gs.RunExists, match="lr"):
        client.run(name, optimizer=gs.AdamW(lr=0.1))
    spec = gs.RunSpec(optimizer=gs.AdamW(lr=3e-3), clip=(gs.GlobalNorm(max_norm=1.0),))
    assert client.run(name, spec=spec).uid == made.uid


def test_a_spec_is_checked_before_it_is_sent(client, name):
    """With the words of the server."""
    with pytest.raises(gs.ValidationError, match="adamx"):
        client.run(name, optimizer="adamx")
    with pytest.raises(gs.ValidationError, match="optimizer"):
        client.run(name, schedule=gs.Constant())
    with pytest.raises(gs.ValidationError, match="spec or its fields"):
        client.run(name, optimizer="adam", spec={"optimizer": "adam"})


def test_settings_change_while_it_runs(client, name):
    """As one entry of the journal each; the optimizer is merged, the rest replaced."""
    run = client.run(name, init=FIRST, optimizer=gs.SGD(lr=0.5, momentum=0.9))
    description = run.configure(lr=0.25, staleness=gs.Inverse(max_staleness=4))
    assert (description["spec"]["optimizer"]["lr"], description["spec"]["optimizer"]["momentum"]) == (0.25, 0.9)
    assert description["spec"]["staleness"] == {"name": "inverse", "max_staleness": 4}
    with run.worker("w0") as worker:
        assert worker.push(ONES).lr == 0.25
    with pytest.raises(gs.ValidationError, match="lr"):
        run.configure(lr=-1.0)


def test_pause_resume_close(client, name):
    """A paused run refuses gradients and uses up no sequence; a closed one can still be read."""
    run = client.run(name, init=FIRST, optimizer="sgd")
    with run.worker("w0") as worker:
        worker.pull()
        run.pause()
        with pytest.raises(gs.RunPaused):
            worker.step(ONES)
        run.resume()
        assert worker.push(ONES).sequence == 1
        run.close()
        with pytest.raises(gs.RunClosed):
            worker.step(ONES)
        assert worker.pull().version == 1
    assert run.describe()["state"] == "closed"
    assert [r["name"] for r in client.runs("closed") if r["name"] == name] == [name]


def test_a_deleted_run_is_gone_and_its_successor_is_another(client, name):
    """What was opened before stays with the run that was deleted."""
    run = client.run(name, init=FIRST, optimizer="sgd")
    with run.worker("w0") as worker:
        worker.step(ONES)
        run.delete()
        with pytest.raises(gs.RunDeleted):
            worker.step(ONES)
        with pytest.raises(gs.RunDeleted):
            client.run(name)
        successor = client.run(name, init=FIRST, optimizer="sgd")
        assert successor.uid != run.uid
        run.delete()  # again: must not touch the successor
        with pytest.raises(gs.RunDeleted):
            run.describe()
        with pytest.raises(gs.RunDeleted):
            worker.step(ONES)
        assert successor.describe()["version"] == 0


def test_another_network_under_the_same_name_is_found_at_once(client, name):
    """Not in the middle of the first gradient."""
    client.run(name, init=FIRST, optimizer="sgd")
    with pytest.raises(gs.LayoutMismatch, match="'w'"):
        client.run(name, init={"w": np.zeros(4)}, optimizer="sgd")


def test_the_optimizers_state_can_be_read(client, name):
    """Every slot by tensor."""
    run = client.run(name, init=FIRST, optimizer=gs.Adam(lr=0.1))
    with run.worker("w0") as worker:
        worker.step(ONES)
    state = run.optimizer_state()
    assert state["exp_avg/w"] == pytest.approx(np.full(3, 0.1))


def test_lists_and_the_server(client, name):
    """What there is, and who answers."""
    client.run(name, init=FIRST, optimizer="sgd")
    assert name in [run["name"] for run in client.runs()]
    assert client.server()["version"] == gs.__version__


def test_the_environment_names_the_server(server, monkeypatch):
    """$GRADSERVE_URL; an argument counts more."""
    monkeypatch.setenv("GRADSERVE_URL", server.url)
    with gs.connect() as client:
        assert client.server()["version"] == gs.__version__
    monkeypatch.setenv("GRADSERVE_URL", "http://127.0.0.1:1")
    with gs.connect(server.url) as client:
        assert client.server()


def test_a_token_opens_the_door(tmp_path, monkeypatch):
    """Wrong or missing: an error, and no second try."""
    guarded = Server(tmp_path, "--token", "a-long-secret-for-this-test-0123456789").start()
    try:
        with gs.connect(guarded.url) as client, pytest.raises(gs.Unauthorized):
            client.runs()
        with gs.connect(guarded.url, "wrong") as client, pytest.raises(gs.Unauthorized):
            client.run("digits", init=FIRST, optimizer="sgd")
        monkeypatch.setenv("GRADSERVE_TOKEN", "a-long-secret-for-this-test-0123456789")
        with gs.connect(guarded.url) as client, client.run("digits", init=FIRST, optimizer="sgd").worker() as worker:
            assert worker.step(ONES).version == 1
    finally:
        guarded.stop()


def test_a_unix_socket_is_a_url(tmp_path):
    """For workers on the server's own host."""
    local = Server(tmp_path, "--uds", str(tmp_path / "s")).start()
    try:
        assert local.url.startswith("unix://")
        with gs.connect(local.url) as client, client.run("digits", init=FIRST, optimizer="sgd").worker() as worker:
            assert worker.step(ONES).version == 1
    finally:
        local.stop()


@pytest.mark.parametrize("url", ["ftp://host", "host:8970", "http://", "unix://"])
def test_a_url_that_is_none_is_refused(url):
    """At once, not after ten minutes of trying."""
    with pytest.raises(ValueError, match="expected a URL"):
        gs.connect(url)


def test_the_average_of_the_weights_is_pulled_beside_them(client, name):
    """Each is the very same object while it is unchanged, and a pull of the one does not touch the other."""
    run = client.run(name, init=FIRST, optimizer=gs.SGD(lr=1.0), average=gs.Ema(decay=0.5))
    with run.worker("w0") as worker:
        worker.push(ONES)
        worker.push(ONES)
        raw, average = run.pull(), run.pull(weights="average")
        assert (raw["w"].tolist(), average["w"].tolist()) == ([-2.0] * 3, [-1.5] * 3)
        assert (average.version, average.etag == raw.etag) == (2, False)
        assert run.pull() is raw
        assert run.pull(weights="average") is average
        with pytest.raises(gs.ValidationError, match="raw, average or ema"):
            run.pull(weights="slow")
        run.configure(average=gs.SwaAverage())
        worker.push(ONES)
        assert run.pull(weights="swa")["w"].tolist() == [-3.0] * 3
    for wrong in ("a b&dtype=float16", 3):
        with pytest.raises(gs.ValidationError, match="weights: expected"):
            run.pull(weights=wrong)
