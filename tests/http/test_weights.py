"""Weights over HTTP: conditional, long-polled, in pieces, in another dtype."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from gradserve.wire import JSON_ELEMENTS_MAX, MEDIA_TYPE, decode_frame
from gradserve_service.http.documents import WeightsDocument, WeightsLoaded

ST = {"Content-Type": MEDIA_TYPE}
PATH = "/v1/runs/run/weights"
PUSH = {"gradients": {"w": [1.0]}}


async def test_the_first_weights_are_201_and_later_ones_200(server, frame):
    await server.make_run()
    first = await server.client.put(PATH, content=frame({"w": [1.0]}), headers=ST)
    assert first.status_code == 201, first.text
    WeightsLoaded.model_validate(first.json())
    assert first.headers["etag"] == first.json()["etag"]
    second = await server.client.put(PATH, json={"weights": {"w": [2.0]}})
    assert second.status_code == 200, second.text
    assert second.json()["version"] == 1


async def test_the_first_workers_weights_win_and_the_others_need_not_send_theirs(server, frame, problem):
    """412 comes before the body is read: the second body here is not even safetensors."""
    await server.make_run()
    headers = {**ST, "If-None-Match": "*"}
    assert (await server.client.put(PATH, content=frame({"w": [1.0]}), headers=headers)).status_code == 201
    document = problem(await server.client.put(PATH, content=b"never read", headers=headers), "precondition-failed")
    assert document["etag"] == (await server.client.get(PATH)).headers["etag"]


async def test_weights_are_replaced_only_instead_of_those_named(server, frame, problem):
    await server.make_run(weights={"w": [1.0]})
    etag = (await server.client.get(PATH)).headers["etag"]
    assert (
        await server.client.put(PATH, content=frame({"w": [2.0]}), headers={**ST, "If-Match": etag})
    ).status_code == 200
    late = await server.client.put(PATH, content=b"never read", headers={**ST, "If-Match": etag})
    assert problem(late, "precondition-failed")["etag"] != etag
    unusual = await server.client.put(PATH, content=b"", headers={**ST, "If-None-Match": etag})
    problem(unusual, "validation-error")


async def test_an_idempotent_load_is_applied_once(server, frame):
    await server.make_run(weights={"w": [1.0]})
    headers = {**ST, "Idempotency-Key": "one"}
    for _ in range(2):
        answer = await server.client.put(PATH, content=frame({"w": [2.0]}), headers=headers)
        assert (answer.status_code, answer.json()["version"]) == (200, 1)


async def test_weights_that_the_client_holds_are_not_sent_again(server):
    await server.make_run(weights={"w": [1.0]})
    etag = (await server.client.get(PATH)).headers["etag"]
    for held in (etag, f'"0-0", {etag}', f"W/{etag}", "*"):
        answer = await server.client.get(PATH, headers={"If-None-Match": held})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
    assert (await server.client.get(PATH, headers={"If-None-Match": '"0-0000000000000000"'})).status_code == 200


async def test_a_run_without_weights_says_so(server, problem):
    await server.make_run()
    problem(await server.client.get(PATH), "weights-uninitialised")


async def test_a_long_poll_answers_when_newer_weights_come(server, tensors):
    await server.make_run(weights={"w": [1.0]})
    etag = (await server.client.get(PATH)).headers["etag"]
    headers = {"If-None-Match": etag, "Prefer": "wait=60"}
    waiting = asyncio.create_task(server.client.get(PATH, headers=headers))
    await _until(lambda: server.app.state.waits.count == 1)
    await server.push(1, PUSH)
    answer = await waiting
    assert answer.status_code == 200
    assert tensors(answer.content) == {"w": [0.5]}
    assert server.app.state.waits.count == 0


async def test_a_long_poll_waits_for_the_first_weights_too(server, frame):
    await server.make_run()
    waiting = asyncio.create_task(server.client.get(PATH, headers={"Prefer": "wait=60"}))
    await _until(lambda: server.app.state.waits.count == 1)
    await server.client.put(PATH, content=frame({"w": [1.0]}), headers=ST)
    assert (await waiting).status_code == 200


async def test_a_long_poll_whose_time_is_over_is_304(server):
    await server.make_run(weights={"w": [1.0]})
    etag = (await server.client.get(PATH)).headers["etag"]
    answer = await server.client.get(PATH, headers={"If-None-Match": etag, "Prefer": "wait=0.01"})
    assert answer.status_code == 304


async def test_a_server_that_leaves_ends_its_long_polls(server, problem):
    await server.make_run(weights={"w": [1.0]})
    etag = (await server.client.get(PATH)).headers["etag"]
    headers = {"If-None-Match": etag, "Prefer": "wait=60"}
    waiting = asyncio.create_task(server.client.get(PATH, headers=headers))
    await _until(lambda: server.app.state.waits.count == 1)
    server.app.state.waits.end()
    problem(await waiting, "draining")
    problem(await server.client.get(PATH, headers=headers), "draining")
    assert (await server.client.get(PATH)).status_code == 200


async def test_more_long_polls_than_the_limit_are_backpressure(serve, problem):
    async with serve(waiting_requests_max=0) as server:
        await server.make_run(weights={"w": [1.0]})
        problem(await server.client.get(PATH, headers={"Prefer": "wait=1"}), "backpressure")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, MEDIA_TYPE),
        ("*/*", MEDIA_TYPE),
        ("application/json", "application/json"),
        ("application/json, */*;q=0.1", "application/json"),
        (f"{MEDIA_TYPE}, application/json;q=0.1", MEDIA_TYPE),
        ("application/octet-stream", "application/octet-stream"),
        ("application/*", MEDIA_TYPE),
        (f"*/*, {MEDIA_TYPE};q=0", "application/x-safetensors"),
        ("text/html, application/json;q=0.5", "application/json"),
    ],
)
async def test_accept_chooses_the_form(server, accept, expected):
    await server.make_run(weights={"w": [1.0]})
    request = server.client.build_request("GET", PATH)
    del request.headers["accept"]
    if accept is not None:
        request.headers["accept"] = accept
    answer = await server.client.send(request)
    assert answer.headers["content-type"] == expected
    assert answer.headers["vary"] == "Accept"


@pytest.mark.parametrize(
    "accept", ["text/html", "application/json;q=0", "image/*", "application/json;q=nan", "nonsense"]
)
async def test_a_form_that_is_not_there_is_406(server, accept, problem):
    await server.make_run(weights={"w": [1.0]})
    problem(await server.client.get(PATH, headers={"Accept": accept}), "not-acceptable")


async def test_weights_as_json_name_their_version(server):
    await server.make_run(weights={"b": 0.5, "w": [[1.0, 2.0]]})
    document = (await server.client.get(PATH, headers={"Accept": "application/json"})).json()
    WeightsDocument.model_validate(document)
    assert document == {"version": 0, "weights": {"b": 0.5, "w": [[1.0, 2.0]]}}


async def test_large_weights_are_no_json(server, frame, problem):
    await server.make_run()
    await server.client.put(PATH, content=frame({"w": np.zeros(JSON_ELEMENTS_MAX + 1)}), headers=ST)
    problem(await server.client.get(PATH, headers={"Accept": "application/json"}), "json-too-large")


async def test_some_tensors_may_be_asked_for_by_name(server, tensors, problem):
    await server.make_run(weights={"a": [1.0], "b": [2.0, 3.0], "c": 4.0})
    answer = await server.client.get(f"{PATH}?names=c,a")
    assert tensors(answer.content) == {"a": [1.0], "c": 4.0}
    answer = await server.client.get(f"{PATH}?names=b", headers={"Accept": "application/json"})
    assert answer.json()["weights"] == {"b": [2.0, 3.0]}
    problem(await server.client.get(f"{PATH}?names=a,d"), "unknown-tensor")
    problem(await server.client.get(f"{PATH}?name=a"), "validation-error")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
async def test_weights_of_every_dtype_are_the_weights_rounded(server, frame, dtype):
    """Also when the answer is longer than one piece, and when the pieces do not divide it."""
    vector = np.linspace(-3, 3, (1 << 19) + 7, dtype=np.float32)
    await server.make_run()
    await server.client.put(PATH, content=frame({"w": vector}), headers=ST)
    answer = await server.client.get(f"{PATH}?dtype={dtype}")
    found = decode_frame(answer.content)
    assert found.dtype == dtype
    assert int(answer.headers["content-length"]) == len(answer.content)
    expected = decode_frame(frame({"w": vector}, dtype)).vector()
    assert np.array_equal(found.vector(), expected)


async def test_head_says_what_get_would_send(server):
    await server.make_run(weights={"w": [1.0, 2.0]})
    got = await server.client.get(PATH)
    head = await server.client.head(PATH)
    for name in ("etag", "content-length", "content-type", "gradserve-version", "gradserve-head"):
        assert head.headers[name] == got.headers[name]
    assert head.content == b""
    assert (await server.client.head(PATH, headers={"Accept": "application/json"})).content == b""


async def test_the_optimizers_slots_are_named_by_slot_and_tensor(server, tensors, problem):
    await server.make_run(weights={"w": [1.0]}, optimizer={"name": "adam", "lr": 0.1})
    await server.push(1, PUSH)
    answer = await server.client.get("/v1/runs/run/optimizer-state")
    slots = tensors(answer.content)
    assert set(slots) == {"exp_avg/w", "exp_avg_sq/w"}
    assert slots["exp_avg/w"] == pytest.approx([0.1])
    assert answer.headers["etag"].startswith('"1-')
    refused = await server.client.get("/v1/runs/run/optimizer-state", headers={"Accept": "application/json"})
    problem(refused, "not-acceptable")


async def _until(condition):
    while not condition():  # noqa: ASYNC110 - that a request has begun to wait is no event
        await asyncio.sleep(0)


async def test_a_repeated_load_hears_what_the_first_one_made(server, frame, problem):
    """Version, ETag and status, although the run has gone on; other weights under its key are refused."""
    await server.make_run()
    headers = {**ST, "Idempotency-Key": "one"}
    first = await server.client.put(PATH, content=frame({"w": [2.0]}), headers=headers)
    await server.push(1, {"gradients": {"w": [1.0]}})
    again = await server.client.put(PATH, content=frame({"w": [2.0]}), headers=headers)
    assert (again.status_code, again.json()) == (first.status_code, first.json()) == (201, first.json())
    assert again.headers["gradserve-head"] == first.headers["gradserve-head"]
    problem(await server.client.put(PATH, content=frame({"w": [3.0]}), headers=headers), "validation-error")
