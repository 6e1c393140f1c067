"""Reports of measured values, and the schedule that lives on them."""

from __future__ import annotations

import pytest

METRICS = "/v1/runs/run/metrics"


async def lr_now(server):
    return (await server.client.get("/v1/runs/run")).json()["lr"]


async def test_reports_that_do_not_improve_lower_the_rate(server):
    """GET run shows the rate of the next update, and the next push gets it."""
    schedule = {"name": "reduce_on_plateau", "patience": 1, "factor": 0.5}
    await server.make_run(weights={"w": [1.0]}, schedule=schedule)
    for value, lr in [(1.0, 0.5), (1.0, 0.5), (1.0, 0.25)]:
        answer = await server.client.post(METRICS, json={"values": {"loss": value, "accuracy": 0.5}})
        assert (answer.status_code, answer.content) == (204, b"")
        assert await lr_now(server) == lr
    assert (await server.push(1, {"gradients": {"w": [1.0]}})).json()["lr"] == 0.25


async def test_a_report_that_is_sent_again_counts_once(server):
    """With the same Idempotency-Key; without one each is a report of its own."""
    schedule = {"name": "reduce_on_plateau", "patience": 1, "factor": 0.5}
    await server.make_run(weights={"w": [1.0]}, schedule=schedule)
    for _ in range(5):
        await server.client.post(METRICS, json={"values": {"loss": 1.0}}, headers={"Idempotency-Key": "once"})
    assert await lr_now(server) == 0.5
    assert (await server.client.get("/v1/runs/run")).json()["position"] == 2


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"values": {}},
        {"values": {"loss": "low"}},
        {"values": {"loss": True}},
        {"values": {"": 1.0}},
        {"values": {"two words": 1.0}},
        {"values": {"n" * 101: 1.0}},
        {"values": {f"n{i}": 1.0 for i in range(101)}},
        {"values": {"loss": 1.0}, "version": -1},
        {"values": {"loss": 1.0}, "version": 7},
        {"values": {"loss": 1.0}, "step": 7},
    ],
)
async def test_what_is_no_report_is_refused(server, problem, body):
    """At most a hundred finite numbers under plain names, of a version that there is."""
    await server.make_run(weights={"w": [1.0]})
    problem(await server.client.post(METRICS, json=body), "validation-error")
    assert (await server.client.get("/v1/runs/run")).json()["position"] == 1


async def test_a_number_that_json_does_not_have_is_refused(server, problem):
    """NaN is no measurement; neither is a number beyond what a double holds."""
    await server.make_run(weights={"w": [1.0]})
    for text in (b'{"values": {"loss": NaN}}', b'{"values": {"loss": 1e999}}'):
        answer = await server.client.post(METRICS, content=text, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422)


async def test_a_key_stands_for_one_kind_of_request(server, problem):
    """A PATCH with the key of a PUT is told so instead of being answered as if it had been done."""
    await server.make_run(weights={"w": [1.0]})
    headers = {"Idempotency-Key": "k"}
    assert (await server.client.put("/v1/runs/run/weights", json={"weights": {"w": [2.0]}}, headers=headers)).is_success
    patch = {"optimizer": {"lr": 0.1}}
    document = problem(await server.client.patch("/v1/runs/run", json=patch, headers=headers), "validation-error")
    assert document["used_for"] == "load"
    assert await lr_now(server) == 0.5
