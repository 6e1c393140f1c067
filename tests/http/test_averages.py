"""Averages of the weights over HTTP: asked for by name, under an ETag of their own."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from gradserve.wire import MEDIA_TYPE, decode_frame

RUN = "/v1/runs/run"
PATH = f"{RUN}/weights"
EMA = {"name": "ema", "decay": 0.5}


def moved(value=1.0):
    """A gradient that takes 0.5 times this off both weights."""
    return {"gradients": {"a": [value], "b": [value]}}


@pytest.fixture
async def averaged(online):
    """A run behind a socket whose weights went [8, 4] → [7, 3] → [6, 2]; its average is [6.5, 2.5]."""
    await online.make_run(weights={"a": [8.0], "b": [4.0]}, average=EMA)
    for sequence in (1, 2):
        await online.push(sequence, moved(2.0))
    return online


@pytest.mark.parametrize("name", ["average", "ema"])
async def test_the_average_is_read_by_its_name(averaged, tensors, name):
    """With the headers of the version that it belongs to, as safetensors and as JSON."""
    raw = await averaged.client.get(f"{PATH}?weights=raw")
    answer = await averaged.client.get(f"{PATH}?weights={name}")
    assert (tensors(raw.content), tensors(answer.content)) == ({"a": [6.0], "b": [2.0]}, {"a": [6.5], "b": [2.5]})
    for header in ("gradserve-version", "gradserve-head", "content-length", "vary"):
        assert answer.headers[header] == raw.headers[header]
    document = await averaged.client.get(f"{PATH}?weights={name}", headers={"Accept": "application/json"})
    assert document.json() == {"version": 2, "weights": {"a": [6.5], "b": [2.5]}}
    state = await averaged.client.get(f"{RUN}/optimizer-state")
    assert tensors(state.content) == {"ema/a": [6.5], "ema/b": [2.5]}


async def test_raw_and_average_are_never_taken_for_each_other(averaged):
    """Each has its ETag; who holds the one is sent the other, and what he holds is not sent again."""
    etags = {name: (await averaged.client.get(f"{PATH}?weights={name}")).headers["etag"] for name in ("raw", "ema")}
    assert etags["raw"] == (await averaged.client.get(PATH)).headers["etag"] != etags["ema"]
    for name, etag in etags.items():
        for held in (etag, f'"0-0", {etag}', "*"):
            answer = await averaged.client.get(f"{PATH}?weights={name}", headers={"If-None-Match": held})
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
        (other,) = set(etags.values()) - {etag}
        assert (
            await averaged.client.get(f"{PATH}?weights={name}", headers={"If-None-Match": other})
        ).status_code == 200
    refused = await averaged.client.put(PATH, json={"weights": {"a": [1.0]}}, headers={"If-Match": etags["ema"]})
    assert refused.status_code == 412


async def test_a_gradient_computed_at_an_average_is_refused(averaged, problem):
    """It would be a gradient of weights that no update is subtracted from; the worker's history is what it was."""
    etag = (await averaged.client.get(f"{PATH}?weights=ema")).headers["etag"]
    document = problem(await averaged.push(3, {**moved(), "base": etag}), "validation-error")
    assert "of an average" in document["detail"]
    raw = (await averaged.client.get(PATH)).headers["etag"]
    assert (await averaged.push(3, {**moved(), "base": raw})).status_code == 200


async def test_names_dtype_head_and_range_work_on_the_average(averaged, tensors):
    answer = await averaged.client.get(f"{PATH}?weights=ema&names=b&dtype=float16")
    assert decode_frame(answer.content).dtype == "float16"
    assert tensors(answer.content) == {"b": [2.5]}
    whole = await averaged.client.get(f"{PATH}?weights=ema")
    head = await averaged.client.head(f"{PATH}?weights=ema")
    assert (head.headers["etag"], head.headers["content-length"]) == (whole.headers["etag"], str(len(whole.content)))
    resume = {"Range": "bytes=-8", "If-Range": whole.headers["etag"]}
    part = await averaged.client.get(f"{PATH}?weights=ema", headers=resume)
    assert (part.status_code, part.content) == (206, whole.content[-8:])
    assert (await averaged.client.get(PATH, headers=resume)).status_code == 200  # the raw weights are others


async def test_a_long_poll_waits_for_a_newer_average(averaged, tensors):
    etag = (await averaged.client.get(f"{PATH}?weights=ema")).headers["etag"]
    headers = {"If-None-Match": etag, "Prefer": "wait=60"}
    waiting = asyncio.create_task(averaged.client.get(f"{PATH}?weights=ema", headers=headers))
    while averaged.app.state.waits.count == 0:  # noqa: ASYNC110 - that a request has begun to wait is no event
        await asyncio.sleep(0.001)
    await averaged.push(3, moved(1.0))
    assert tensors((await waiting).content) == {"a": [6.0], "b": [2.0]}


async def test_a_patch_sets_exchanges_and_ends_an_average(server, tensors, problem):
    """As `clip`: what is sent is what holds. A new one starts at the present weights."""
    await server.make_run(weights={"a": [8.0], "b": [4.0]})
    await server.push(1, moved(2.0))
    answer = await server.client.patch(RUN, json={"average": EMA})
    assert answer.json()["spec"]["average"] == {**EMA, "debias": False, "every": 1, "warmup": False}
    first = await server.client.get(f"{PATH}?weights=ema")
    assert tensors(first.content) == {"a": [7.0], "b": [3.0]}
    await server.client.patch(RUN, json={"average": {"name": "lookahead", "sync_period": 1}})
    await server.push(2, moved(2.0))
    for name in ("raw", "average", "slow"):
        assert tensors((await server.client.get(f"{PATH}?weights={name}")).content) == {"a": [6.5], "b": [2.5]}
    assert "average" not in (await server.client.patch(RUN, json={"average": None})).json()["spec"]
    refused = await server.client.get(f"{PATH}?weights=average", headers={"If-None-Match": first.headers["etag"]})
    problem(refused, "validation-error")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("swa", "expected raw, average or ema, which this run has, came swa"),
        ("ax", "expected raw, average or ema, which this run has, came ax"),
        ("mean", "expected one of raw, average, ema, swa, slow, x, ax; came 'mean'"),
        ("", "expected one of raw, average, ema, swa, slow, x, ax; came ''"),
    ],
)
async def test_an_average_that_the_run_has_not_is_refused_with_what_it_has(server, problem, name, words):
    await server.make_run(weights={"w": [1.0]}, average="ema")
    document = problem(await server.client.get(f"{PATH}?weights={name}"), "validation-error")
    assert words in document["detail"]


async def test_a_run_without_weights_has_no_average_either(server, problem):
    await server.make_run(average="ema")
    problem(await server.client.get(f"{PATH}?weights=ema"), "weights-uninitialised")


async def test_a_file_from_outside_may_bring_an_average(server, frame, tensors, problem):
    """Under `optimizer/ema/…`, with its numbers; what they say cannot stop the run."""
    await server.make_run(weights={"w": [1.0]}, average=EMA)
    body = {"w": [2.0], "optimizer/ema/w": [4.0]}
    for number, told in enumerate(('{"ema_updates": 7}', '{"ema_updates": -1, "reset_at": 1e300, "ema_left": 9}')):
        kept = f"{RUN}/checkpoints/file{number}"
        answer = await server.client.put(kept, content=frame(body, memory=told), headers={"Content-Type": MEDIA_TYPE})
        assert answer.status_code == 201, answer.text
        answer = await server.client.post(f"{RUN}/restore", json={"checkpoint": f"file{number}"})
        assert answer.status_code == 200, answer.text
        assert tensors((await server.client.get(f"{PATH}?weights=ema")).content) == {"w": [4.0]}
        await server.push(number + 1, {"gradients": {"w": [0.0]}})
        found = decode_frame((await server.client.get(f"{PATH}?weights=ema")).content).vector()
        assert found.tolist() == ([3.0] if number == 0 else [2.0])
        assert np.isfinite(found).all()
    unknown = frame(body, memory='{"ema_steps": 1}')
    answer = await server.client.put(f"{RUN}/checkpoints/x", content=unknown, headers={"Content-Type": MEDIA_TYPE})
    problem(answer, "validation-error")
