"""kill −9 after reports, a checkpoint, a restore and a branch: what comes back is what was there, byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest

from faults.gradients import first_weights, gradient, layout_of
from faults.processes import Server, serving
from gradserve.wire import MEDIA_TYPE, encode_frame

SEED = 5
PLATEAU = {"name": "reduce_on_plateau", "monitor": "validation", "patience": 0, "factor": 0.5}
SPEC = {"optimizer": {"name": "nadam", "lr": 0.1}, "schedule": PLATEAU, "dataset_size": 100}
SHOWN = ("head", "position", "version", "step", "updates", "samples_seen", "epoch", "lr", "etag", "spec")


def ask(server: Server, method: str, path: str, value: Any = None) -> Any:
    """One JSON request that is taken; what it answers."""
    body = None if value is None else json.dumps(value).encode()
    answer = server.answer(method, f"/v1/runs/{path}", body, Content_Type="application/json")
    assert answer.status < 300, answer.body
    return json.loads(answer.body) if answer.body else None


def push(server: Server, run: str, sequence: int, parameters: int) -> None:
    """Push of worker `w`, eight samples."""
    layout = layout_of(parameters)
    body = b"".join(encode_frame(layout, gradient(layout, SEED, 0, sequence), {"samples": "8"}))
    path = f"/v1/runs/{run}/workers/w/pushes/{sequence}"
    answer = server.answer("PUT", path, body, Content_Type=MEDIA_TYPE)
    assert answer.status == 200, answer.body


def report(server: Server, run: str, value: float) -> None:
    """A validation loss, for the schedule."""
    ask(server, "POST", f"{run}/metrics", {"values": {"validation": value}})


def everything(server: Server, run: str) -> dict[str, Any]:
    """Head, counts and rate, and the bytes of weights, slots, history and checkpoints."""
    said = ask(server, "GET", run)
    names = [item["name"] for item in ask(server, "GET", f"{run}/checkpoints")["checkpoints"]]
    paths = ["weights", "optimizer-state", "history", *(f"checkpoints/{name}" for name in names)]
    bodies = {path: server.answer("GET", f"/v1/runs/{run}/{path}").body for path in paths}
    return {**{name: said[name] for name in SHOWN}, **bodies}


@pytest.mark.parametrize("module", ["gradserve_service", "faults.small_snapshots"])
@pytest.mark.parametrize("parameters", [1_003, 20_000])  # inside the entry, and as an object
def test_restored_and_branched_runs_outlive_the_server(store_url, tmp_path, parameters, module):
    """From the journal alone, and from snapshots of every position; both then go on alike."""
    with serving(store_url, tmp_path, module=module) as server:
        layout = layout_of(parameters)
        ask(server, "PUT", "run", SPEC)
        weights = b"".join(encode_frame(layout, first_weights(layout, SEED)))
        assert server.answer("PUT", "/v1/runs/run/weights", weights, Content_Type=MEDIA_TYPE).status == 201
        push(server, "run", 1, parameters)
        for value in (1.0, 2.0):  # the second is worse: half the rate
            report(server, "run", value)
        push(server, "run", 2, parameters)
        ask(server, "PUT", "run/checkpoints/best")
        push(server, "run", 3, parameters)
        report(server, "run", 3.0)  # a quarter, until the restore
        ask(server, "POST", "run/restore", {"checkpoint": "best"})
        ask(server, "PUT", "other", {"branch": {"run": "run", "checkpoint": "best"}})
        before = [everything(server, run) for run in ("run", "other")]
        assert [(said["step"], said["samples_seen"], said["lr"]) for said in before] == [(2, 16, 0.05)] * 2
        server.kill()
        server.start()
        assert [everything(server, run) for run in ("run", "other")] == before
        push(server, "run", 4, parameters)
        ask(server, "DELETE", "run/checkpoints/best")
        before = [everything(server, run) for run in ("run", "other")]
        server.kill()
        server.start()
        assert [everything(server, run) for run in ("run", "other")] == before
