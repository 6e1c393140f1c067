"""Habits that every route shares, and races between requests."""

from __future__ import annotations

import asyncio

import pytest

from gradserve_service.http.app import create_app
from gradserve_service.settings import Settings

SPEC = {"optimizer": {"name": "sgd", "lr": 0.5}}


def paths_with(method: str) -> list[str]:
    """Every path of the document that takes the method, with names that exist."""
    places = {"run": "run", "worker": "w", "sequence": "1", "code": "fenced", "name": "c", "checkpoint": "c"}
    paths = create_app(None, Settings()).openapi()["paths"]
    return sorted(path.format_map(places) for path, operations in paths.items() if method in operations)


@pytest.mark.parametrize("path", paths_with("get"))
async def test_no_route_passes_over_a_query_that_it_does_not_know(server, problem, path):
    """A typo must not be taken for the default."""
    await server.make_run(weights={"w": [1.0]})
    await server.push(1, {"gradients": {"w": [1.0]}})
    document = problem(await server.client.get(path, params={"wrong": "1"}), "validation-error")
    assert "wrong" in document["detail"]


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", ""), ("PATCH", ""), ("DELETE", ""), ("PUT", "/weights"), ("PUT", "/workers/w")]
)
async def test_neither_does_one_that_changes_something(server, problem, method, path):
    await server.make_run(weights={"w": [1.0]})
    answer = await server.client.request(method, f"/v1/runs/run{path}?dry=1", json={})
    assert "dry" in problem(answer, "validation-error")["detail"]


async def test_a_parameter_that_comes_twice_is_refused(server, problem):
    problem(await server.client.get("/v1/runs?limit=1&limit=2"), "validation-error")


STREAMS = ("/events", "/metrics")  # without an end, or different at every look


@pytest.mark.parametrize("path", [path for path in paths_with("get") if not path.endswith(STREAMS)])
async def test_head_answers_as_get_does_without_the_body(server, path):
    await server.make_run(weights={"w": [1.0]})
    await server.push(1, {"gradients": {"w": [1.0]}})
    await server.client.put("/v1/runs/run/checkpoints/c")
    got, head = await server.client.get(path), await server.client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    assert head.headers.get("content-length") == got.headers.get("content-length")


async def test_safetensors_answers_tell_all_of_the_outcome(server, frame):
    await server.make_run(weights={"w": [1.0, 1.0]}, clip=[{"name": "global_norm", "max_norm": 1.0, "eps": 0.0}])
    answer = await server.push(1, frame({"w": [3.0, 4.0]}), Prefer="return=representation")
    told = {name: float(answer.headers[f"gradserve-{name}"]) for name in ("step", "gradient-norm", "clip-scale")}
    assert told == {"step": 1, "gradient-norm": 5.0, "clip-scale": pytest.approx(0.2)}


async def test_a_base_and_a_base_version_that_disagree_are_refused(server, problem):
    run = await server.make_run(weights={"w": [1.0]})
    gradient = {"gradients": {"w": [1.0]}, "base": run["etag"]}
    refused = problem(await server.push(1, {**gradient, "base_version": 7}), "validation-error")
    assert "base_version" in refused["detail"]
    assert (await server.push(1, {**gradient, "base_version": 0})).json()["outcome"] == "applied"


async def test_a_put_that_means_another_run_creates_none(server, problem):
    problem(await server.client.put("/v1/runs/run", json=SPEC, headers={"Gradserve-Run": "0"}), "run-not-found")
    uid = (await server.make_run())["uid"]
    same = await server.client.put("/v1/runs/run", json=SPEC, headers={"Gradserve-Run": uid})
    assert (same.status_code, same.json()["uid"]) == (200, uid)
    problem(await server.client.put("/v1/runs/run", json=SPEC, headers={"Gradserve-Run": "0"}), "run-deleted")
    await server.client.delete("/v1/runs/run")
    problem(await server.client.put("/v1/runs/run", json=SPEC, headers={"Gradserve-Run": uid}), "run-deleted")


async def test_creating_and_deleting_one_name_at_once_leaves_nobody_without_an_answer(server):
    """Who creates gets a run, however often others delete it; who deletes gets rid of one, or finds none."""

    async def create() -> int:
        return (await server.client.put("/v1/runs/r", json={**SPEC, "weights": {"w": [1.0]}})).status_code

    async def delete() -> int:
        return (await server.client.delete("/v1/runs/r")).status_code

    for _ in range(10):
        created = [create() for _ in range(4)]
        deleted = [delete() for _ in range(4)]
        statuses = await asyncio.gather(*(one for pair in zip(created, deleted, strict=True) for one in pair))
        assert set(statuses[::2]) <= {200, 201}, statuses
        assert set(statuses[1::2]) <= {204, 404, 410}, statuses
