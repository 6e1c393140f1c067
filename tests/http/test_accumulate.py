"""Batches, zeros and loss scales over HTTP."""

from __future__ import annotations

import json

import pytest

from gradserve_service.http.documents import PushOutcome, PushWithWeights, RunDescription

WEIGHTS = {"w": [0.0, 0.0]}


def pushed(*values: float, **fields: object) -> dict[str, object]:
    return {"gradients": {"w": list(values)}, **fields}


async def test_a_contribution_changes_nothing_and_the_last_one_everything(server):
    await server.make_run(weights=WEIGHTS, accumulate={"pushes": 2})
    before = (await server.client.get("/v1/runs/run/weights")).headers["etag"]
    first = await server.push(1, pushed(1, 0, samples=3, loss=2), Prefer="return=representation", Accept="*/*")
    assert first.status_code == 200, first.text
    PushWithWeights.model_validate(first.json())
    assert (first.json()["outcome"], first.headers["etag"]) == ("contributed", before)
    assert first.json()["weights"] == WEIGHTS
    assert first.json()["batch"] == {"pushes": 1, "samples": 3.0, "target": {"pushes": 2}}
    run = (await server.client.get("/v1/runs/run")).json()
    RunDescription.model_validate(run)
    assert (run["batch"]["pushes"], run["version"], run["updates"]) == (1, 0, 0)
    last = (await server.push(2, pushed(0, 4, loss=6))).json()
    PushOutcome.model_validate(last)
    assert (last["outcome"], last["version"], last["batch"]["samples"]) == ("applied", 1, 4.0)
    weights = (await server.client.get("/v1/runs/run/weights", headers={"Accept": "application/json"})).json()
    assert weights["weights"] == {"w": [-0.375, -0.5]}
    history = (await server.client.get("/v1/runs/run/history")).json()
    assert (history["samples"], history["loss"]) == ([4.0], [3.0])
    run = (await server.client.get("/v1/runs/run")).json()
    assert (run["batch"]["pushes"], run["updates"], run["samples_seen"]) == (0, 1, 4.0)


async def test_a_safetensors_answer_tells_the_batch_in_its_headers(server, frame):
    await server.make_run(weights=WEIGHTS, accumulate={"samples": 8})
    answer = await server.push(1, frame({"w": [1, 1]}, samples=2), Prefer="return=representation")
    assert (answer.headers["gradserve-outcome"], answer.headers["gradserve-finite"]) == ("contributed", "true")
    expected = {"pushes": 1, "samples": 2.0, "target": {"samples": 8.0}}
    assert json.loads(answer.headers["gradserve-batch"]) == expected


async def test_a_patch_changes_the_target_of_an_open_batch(server):
    await server.make_run(weights=WEIGHTS, accumulate={"pushes": 3})
    await server.push(1, pushed(1, 1))
    run = await server.client.patch("/v1/runs/run", json={"accumulate": {"pushes": 2}})
    assert run.json()["batch"] == {"pushes": 1, "samples": 1.0, "target": {"pushes": 2}}
    assert (await server.push(2, pushed(1, 1))).json()["outcome"] == "applied"
    assert (await server.client.patch("/v1/runs/run", json={"accumulate": None})).json()["batch"] is None
    answer = (await server.push(3, pushed(1, 1))).json()
    assert (answer["outcome"], answer["batch"]) == ("applied", None)


@pytest.mark.parametrize("form", ["json", "safetensors"])
async def test_a_gradient_is_divided_by_its_loss_scale(server, frame, form):
    """What overflows only because of the scale is a finite gradient."""
    await server.make_run(weights=WEIGHTS)
    body = pushed(1e22, 0, loss_scale=1e22) if form == "json" else frame({"w": [1e22, 0]}, loss_scale=1e22)
    answer = (await server.push(1, body)).json()
    assert (answer["outcome"], answer["finite"], answer["gradient_norm"]) == ("applied", True, 1.0)


@pytest.mark.parametrize("scale", [0, -1, 1e-300, 1e39, True, "2"])
async def test_a_loss_scale_is_a_number_that_float32_can_divide_by(server, scale):
    await server.make_run(weights=WEIGHTS)
    answer = await server.push(1, pushed(1, 1, loss_scale=scale))
    assert (answer.status_code, answer.json()["code"]) == (422, "validation-error")
    assert "loss_scale: expected a number" in answer.json()["detail"]


async def test_a_worker_hears_whether_its_gradient_was_finite_and_why_the_run_rests(server):
    await server.make_run(weights=WEIGHTS, non_finite={"policy": "skip", "max_consecutive": 2})
    first, second = [(await server.push(n, pushed(1e30, n, loss_scale=1.0))).json() for n in (1, 2)]
    assert (first["outcome"], first["finite"], second["finite"]) == ("skipped", False, False)
    refused = await server.push(3, pushed(1, 1))
    assert (refused.status_code, refused.json()["code"], refused.json()["bad_gradients"]) == (409, "run-paused", 2)
    assert '{"state": "running"}' in refused.json()["detail"]
    await server.client.patch("/v1/runs/run", json={"state": "running"})
    assert (await server.push(3, pushed(1, 1))).json()["outcome"] == "applied"


async def test_samples_too_few_to_weigh_are_refused_only_where_they_weigh(server):
    await server.make_run(weights=WEIGHTS)
    assert (await server.push(1, pushed(1, 1, samples=1e-30))).status_code == 200
    await server.client.patch("/v1/runs/run", json={"accumulate": {"pushes": 2}})
    answer = await server.push(2, pushed(1, 1, samples=1e-30))
    assert (answer.status_code, answer.json()["code"]) == (422, "validation-error")
    assert "samples: expected at least" in answer.json()["detail"]
