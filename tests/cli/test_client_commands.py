"""`status`, `pull`: what the commands say about runs of a real server."""

from __future__ import annotations

import json

import httpx
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

PUSH = {"gradients": {"b": [0.25], "a": [1.0, -1.0]}}


@pytest.fixture
def training(serve, tmp_path):
    """A server with run `r` at version 1 (worker `w`) and the paused run `other`; the environment of its clients."""
    server = serve("--store", f"sqlite:///{tmp_path / 'store' / 'x.db'}", GRADSERVE_TOKEN="a-token")
    url = server.address["url"]
    with httpx.Client(base_url=url, headers={"Authorization": "Bearer a-token"}) as client:
        spec = {"optimizer": {"name": "sgd", "lr": 0.5}, "weights": {"b": [0.5], "a": [1.0, 2.0]}}
        client.put("/v1/runs/r", json=spec).raise_for_status()
        client.put("/v1/runs/r/workers/w/pushes/1", json=PUSH).raise_for_status()
        client.put("/v1/runs/other", json={"optimizer": "adam"}).raise_for_status()
        client.patch("/v1/runs/other", json={"state": "paused"}).raise_for_status()
    return {"GRADSERVE_URL": url, "GRADSERVE_TOKEN": "a-token"}


def test_status_lists_the_runs(gradserve, training):
    shown = gradserve("status", **training)
    assert shown.returncode == 0, shown.stderr
    header, other, r = shown.stdout.splitlines()
    assert header.split()[:4] == ["name", "state", "version", "step"]
    assert other.split()[:3] == ["other", "paused", "-"]
    assert r.split()[:5] == ["r", "running", "1", "1", "0.5"]


def test_status_for_scripts_is_the_servers_own_descriptions(gradserve, training):
    other, r = json.loads(gradserve("status", "--json", **training).stdout)
    assert (other["name"], r["name"], r["version"]) == ("other", "r", 1)
    assert r["spec"]["optimizer"]["name"] == "sgd"


def test_status_of_one_run_names_its_workers(gradserve, training):
    found = json.loads(gradserve("status", "r", "--json", **training).stdout)
    assert [worker["name"] for worker in found["workers"]] == ["w"]
    text = gradserve("status", "r", **training).stdout
    assert any(line.split()[0] == "w" for line in text.splitlines() if line.strip())


def test_flags_win_over_the_environment(gradserve, training):
    shown = gradserve(
        *("status", "--url", training["GRADSERVE_URL"], "--token", training["GRADSERVE_TOKEN"]),
        GRADSERVE_URL="http://127.0.0.1:1", GRADSERVE_TOKEN="another",
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr


def test_pull_writes_an_average_when_it_is_asked_for(gradserve, training, tmp_path):
    """And says which weights the file has; a run without one is a line of complaint."""
    missing = gradserve("pull", "r", "-o", "x.safetensors", "--weights", "average", **training)
    assert missing.returncode != 0
    assert "expected raw, which this run has, came average" in missing.stderr
    headers = {"Authorization": "Bearer a-token"}
    with httpx.Client(base_url=training["GRADSERVE_URL"], headers=headers) as client:
        client.patch("/v1/runs/r", json={"average": {"name": "ema", "decay": 0.5}}).raise_for_status()
        for sequence in (2, 3):
            client.put(f"/v1/runs/r/workers/w/pushes/{sequence}", json=PUSH).raise_for_status()
    written = gradserve("pull", "r", "-o", "x.safetensors", "--weights", "ema", **training)
    assert written.returncode == 0, written.stderr
    np.testing.assert_array_equal(load_file(tmp_path / "x.safetensors")["a"], np.float32([-0.25, 3.25]))
    with safe_open(tmp_path / "x.safetensors", "numpy") as file:
        assert (file.metadata()["weights"], file.metadata()["version"]) == ("ema", "3")


def test_pull_writes_the_weights_as_a_whole_file(gradserve, training, tmp_path):
    written = gradserve("pull", "r", "-o", "weights.safetensors", "--json", **training)
    assert written.returncode == 0, written.stderr
    assert json.loads(written.stdout)["version"] == 1
    weights = load_file(tmp_path / "weights.safetensors")
    np.testing.assert_array_equal(weights["a"], np.float32([0.5, 2.5]))
    np.testing.assert_array_equal(weights["b"], np.float32([0.375]))
    with safe_open(tmp_path / "weights.safetensors", "numpy") as file:
        assert (file.metadata()["run"], file.metadata()["version"]) == ("r", "1")
    assert [path.name for path in tmp_path.glob(".*partial")] == []


REFUSED = {
    "a run that is not there": (("status", "nobody"), {}, "there is no run 'nobody'"),
    "a run without weights": (("pull", "other", "-o", "x"), {}, "has no weights yet"),
    "a folder that is not there": (("pull", "r", "-o", "no/where/x"), {}, "no/where"),
    "no token": (("status",), {"GRADSERVE_TOKEN": ""}, "oken"),
    "a wrong token": (("status",), {"GRADSERVE_TOKEN": "wrong"}, "oken"),
    "no server": (("status",), {"GRADSERVE_URL": "http://127.0.0.1:1"}, "127.0.0.1:1"),
    "no URL": (("status",), {"GRADSERVE_URL": "nonsense"}, "nonsense"),
}


@pytest.mark.parametrize(("words", "changed", "said"), REFUSED.values(), ids=REFUSED)
def test_what_goes_wrong_is_one_line_and_an_exit_code(gradserve, training, words, changed, said):
    """Never a traceback."""
    refused = gradserve(*words, **{**training, **changed})
    assert (refused.returncode, refused.stdout) == (1, ""), refused.stdout
    assert refused.stderr.startswith("gradserve: ")
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_watch_prints_what_happened_and_ends_with_the_run(gradserve, training):
    """From the beginning on: the first weights, the update, and the end of the run."""
    headers = {"Authorization": "Bearer a-token"}
    closed = {"state": "closed"}
    httpx.patch(f"{training['GRADSERVE_URL']}/v1/runs/r", json=closed, headers=headers).raise_for_status()
    seen = gradserve("watch", "r", "--since", "0", "--json", **training)
    assert seen.returncode == 0, seen.stderr
    events = [json.loads(line) for line in seen.stdout.splitlines()]
    assert "update" in [event["event"] for event in events]
    assert (events[-1]["event"], events[-1]["state"]) == ("configure", "closed")
