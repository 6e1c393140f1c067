"""Checkpoints, restore and branches over HTTP."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from gradserve.wire import MEDIA_TYPE

RUN = "/v1/runs/run"
BEST = f"{RUN}/checkpoints/best"
ADAM = {"name": "adam", "lr": 0.1}
TENSORS = {"Content-Type": MEDIA_TYPE}


async def trained(server, pushes=2):
    await server.make_run(weights={"w": [1.0, 2.0]}, optimizer=ADAM)
    for sequence in range(1, pushes + 1):
        assert (await server.push(sequence, {"gradients": {"w": [0.5, -1.0]}})).status_code == 200


async def test_a_checkpoint_is_saved_listed_read_and_deleted(server, problem):
    """201 and then 200 for the same name, whatever the run does meanwhile; the library reads the file."""
    await trained(server)
    saved = await server.client.put(BEST)
    assert saved.status_code == 201
    await server.push(3, {"gradients": {"w": [0.5, -1.0]}})
    again = await server.client.put(BEST, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()) == (200, saved.json())
    assert (await server.client.get(f"{RUN}/checkpoints")).json() == {"checkpoints": [saved.json()]}
    file = await server.client.get(BEST)
    assert file.headers["content-type"] == MEDIA_TYPE
    assert (file.headers["etag"], len(file.content)) == (saved.json()["etag"], saved.json()["bytes"])
    assert set(load(file.content)) == {"w", "optimizer/exp_avg/w", "optimizer/exp_avg_sq/w"}
    assert (await server.client.head(BEST)).headers["content-length"] == str(len(file.content))
    assert (await server.client.delete(BEST)).status_code == 204
    for method in ("GET", "DELETE"):
        problem(await server.client.request(method, BEST), "checkpoint-not-found")
    assert (await server.client.get(f"{RUN}/checkpoints")).json() == {"checkpoints": []}


async def test_a_restore_goes_back_and_on(server, problem):
    """To a checkpoint and to a version: weights and step of then, a version that rises, gradients of before stale."""
    await trained(server)
    then = (await server.client.get(f"{RUN}/weights", headers={"Accept": "application/json"})).json()
    await server.client.put(BEST)
    await server.push(3, {"gradients": {"w": [0.5, -1.0]}})
    for body in ({"checkpoint": "best"}, {"version": 2}):
        before = (await server.client.get(RUN)).json()
        answer = await server.client.post(f"{RUN}/restore", json=body)
        assert answer.status_code == 200, answer.text
        now = (await server.client.get(RUN)).json()
        assert answer.json() == {key: now[key] for key in ("version", "etag", "step", "position")}
        assert (now["version"], now["step"]) == (before["version"] + 1, 2)
        weights = (await server.client.get(f"{RUN}/weights", headers={"Accept": "application/json"})).json()
        assert weights["weights"] == then["weights"]
    problem(await server.push(4, {"gradients": {"w": [1.0, 1.0]}, "base_version": 3}), "stale-gradient")
    document = problem(await server.client.post(f"{RUN}/restore", json={"version": 99}), "version-not-kept")
    assert (document["oldest"], document["newest"]) == (0, 5)


async def test_a_restore_that_is_sent_again_happens_once(server, problem):
    """With its key; the key of another request is refused, also after the checkpoint is gone."""
    await trained(server)
    await server.client.put(BEST)
    key = {"Idempotency-Key": "k"}
    first = await server.client.post(f"{RUN}/restore", json={"checkpoint": "best"}, headers=key)
    await server.client.delete(BEST)
    again = await server.client.post(f"{RUN}/restore", json={"checkpoint": "best"}, headers=key)
    assert again.json() == first.json()
    problem(await server.client.patch(RUN, json={"optimizer": {"lr": 1.0}}, headers=key), "validation-error")


@pytest.mark.parametrize(
    "body",
    [{}, {"checkpoint": "a", "version": 1}, {"version": -1}, {"version": True}, {"checkpoint": "a b"}, {"name": "a"}],
)
async def test_a_restore_names_one_state(server, problem, body):
    """A checkpoint or a version."""
    await trained(server)
    problem(await server.client.post(f"{RUN}/restore", json=body), "validation-error")


async def test_a_file_from_outside_becomes_a_checkpoint(server, problem):
    """Weights alone or a downloaded file; what does not fit the run is refused and leaves nothing."""
    await trained(server)
    weights = save({"w": np.asarray([7.0, 8.0], np.float32)})
    made = await server.client.put(BEST, content=weights, headers=TENSORS)
    assert made.status_code == 201, made.text
    assert (made.json()["version"], made.json()["step"]) == (None, 0)
    restored = await server.client.post(f"{RUN}/restore", json={"checkpoint": "best"})
    assert restored.json()["step"] == 0
    shown = (await server.client.get(f"{RUN}/weights", headers={"Accept": "application/json"})).json()
    assert shown["weights"] == {"w": [7.0, 8.0]}
    file = (await server.client.get(BEST)).content
    assert (await server.client.put(f"{RUN}/checkpoints/copy", content=file, headers=TENSORS)).status_code == 201
    for name, tensors, code in [
        ("a", {"w": np.ones(3, np.float32)}, "layout-mismatch"),
        ("b", {"v": np.ones(2, np.float32)}, "unknown-tensor"),
        ("c", {"w": np.asarray([np.nan, 1], np.float32)}, "validation-error"),
        ("d", {"w": np.ones(2, np.float64)}, "dtype-unsupported"),
    ]:
        answer = await server.client.put(f"{RUN}/checkpoints/{name}", content=save(tensors), headers=TENSORS)
        problem(answer, code)
    problem(await server.client.put(f"{RUN}/checkpoints/e", content=b"junk", headers=TENSORS), "malformed-tensors")
    problem(await server.client.put(f"{RUN}/checkpoints/f", json={"w": [1.0]}), "unsupported-media-type")
    huge = {**TENSORS, "Content-Length": str(1 << 30)}
    problem(await server.client.put(f"{RUN}/checkpoints/g", content=b"", headers=huge), "too-large")
    names = [each["name"] for each in (await server.client.get(f"{RUN}/checkpoints")).json()["checkpoints"]]
    assert names == ["best", "copy"]


async def test_a_run_without_weights_has_no_state(server, problem):
    """Its checkpoints can only come from outside."""
    await server.make_run()
    problem(await server.client.put(BEST), "weights-uninitialised")
    problem(await server.client.post(f"{RUN}/restore", json={"version": 0}), "version-not-kept")
    weights = save({"w": np.asarray([7.0], np.float32)})
    assert (await server.client.put(BEST, content=weights, headers=TENSORS)).status_code == 201
    assert (await server.client.post(f"{RUN}/restore", json={"checkpoint": "best"})).json()["version"] == 0


async def test_a_branch_is_a_run_of_its_own(server, problem):
    """Created with the optimizer of the checkpoint, said again with 200, and another one with 409."""
    await trained(server)
    await server.client.put(BEST)
    branch = {"branch": {"run": "run", "checkpoint": "best"}}
    made = await server.client.put("/v1/runs/other", json=branch)
    assert made.status_code == 201, made.text
    there, here = (await server.client.get(RUN)).json(), made.json()
    assert here["spec"] == {**there["spec"], **branch}
    assert (here["version"], here["step"], here["workers"]) == (0, there["step"], 0)
    assert here["uid"] != there["uid"]
    pushes = [await server.push(n, {"gradients": {"w": [0.5, 1.0]}}, run) for run, n in (("run", 3), ("other", 1))]
    assert [answer.status_code for answer in pushes] == [200, 200]
    shown = [await server.client.get(f"/v1/runs/{run}/weights") for run in ("run", "other")]
    assert load(shown[0].content)["w"].tobytes() == load(shown[1].content)["w"].tobytes()
    assert (await server.client.put("/v1/runs/other", json=branch)).status_code == 200
    problem(await server.client.put("/v1/runs/other", json={**branch, "optimizer": "sgd"}), "run-exists")
    problem(await server.client.put("/v1/runs/other", json={"optimizer": ADAM}), "run-exists")
    problem(await server.client.put("/v1/runs/run", json=branch), "run-exists")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"branch": {"run": "none", "checkpoint": "best"}}, "run-not-found"),
        ({"branch": {"run": "run", "checkpoint": "none"}}, "checkpoint-not-found"),
        ({"branch": {"run": "run"}}, "validation-error"),
        ({"branch": "run"}, "validation-error"),
        ({"branch": {"run": "run", "checkpoint": "best"}, "weights": {"w": [1.0]}}, "validation-error"),
        ({"branch": {"run": "run", "checkpoint": "best"}, "speed": 1}, "validation-error"),
        ({"branch": None}, "validation-error"),
    ],
)
async def test_a_branch_from_nowhere_leaves_no_run(server, problem, body, code):
    """A refused request creates nothing."""
    await trained(server)
    await server.client.put(BEST)
    problem(await server.client.put("/v1/runs/other", json=body), code)
    problem(await server.client.get("/v1/runs/other"), "run-not-found")


async def test_a_large_checkpoint_comes_in_pieces(online):
    """Over a socket: what is downloaded is what another run can start from."""
    weights = {"w": np.arange(600_000, dtype=np.float32)}
    await online.make_run(optimizer=ADAM)
    await online.client.put(f"{RUN}/weights", content=save(weights), headers=TENSORS)
    assert (await online.client.put(BEST)).status_code == 201
    file = (await online.client.get(BEST)).content
    assert load(file)["w"].tobytes() == weights["w"].tobytes()
    size = int.from_bytes(file[:8], "little")
    assert json.loads(file[8 : 8 + size])["__metadata__"]["step"] == "0"
    await online.make_run("second", optimizer=ADAM)
    put = await online.client.put("/v1/runs/second/checkpoints/start", content=file, headers=TENSORS)
    assert put.status_code == 201, put.text
    assert (await online.client.post("/v1/runs/second/restore", json={"checkpoint": "start"})).status_code == 200


async def test_a_repeated_restore_hears_what_the_first_one_made(server, problem):
    """Also behind many reports, and later updates; another body under its key is refused."""
    await trained(server)
    await server.client.put(BEST)
    key = {"Idempotency-Key": "k"}
    first = await server.client.post(f"{RUN}/restore", json={"checkpoint": "best"}, headers=key)
    for number in range(70):
        await server.client.post(f"{RUN}/metrics", json={"values": {"loss": number}})
    await server.push(4, {"gradients": {"w": [1.0, 1.0]}})
    weights = (await server.client.get(f"{RUN}/weights")).content
    again = await server.client.post(f"{RUN}/restore", json={"checkpoint": "best"}, headers=key)
    assert again.json() == first.json()
    problem(await server.client.post(f"{RUN}/restore", json={"version": 0}, headers=key), "validation-error")
    assert (await server.client.get(f"{RUN}/weights")).content == weights


W = np.ones(2, np.float32)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"optimizer//w": W}, {}),
        ({"optimizer/exp_avg_sq/w": -W}, {}),
        ({"optimizer/exp_avg/w": np.asarray([np.nan, 0], np.float32)}, {}),
        ({}, {"memory": '{"anything": 1.0}'}),
        ({}, {"memory": '{"mu_product": NaN}'}),
        ({}, {"step": str(2**53 - 1)}),
        ({}, {"samples_seen": "1e308"}),
        ({}, {"plateau": '{"scale": -1}'}),
        ({}, {"plateau": '{"scale": 1e300}'}),
    ],
)
async def test_a_file_that_no_rule_could_have_left_is_refused(server, problem, tensors, said):
    """Slots, numbers and counts, each by what the rules declare."""
    await trained(server)
    body = save({"w": W, **tensors}, metadata=said or None)
    problem(await server.client.put(BEST, content=body, headers=TENSORS), "validation-error")


async def test_a_file_without_bytes_is_no_present_state(server, problem):
    """Only a request that brings nothing and says so asks for that."""
    await trained(server)
    problem(await server.client.put(BEST, content=b"", headers=TENSORS), "malformed-tensors")
    assert (await server.client.put(BEST)).status_code == 201
