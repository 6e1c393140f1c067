"""A gradient over HTTP: what may be sent, what comes back, and that a refusal applies nothing."""

from __future__ import annotations

import pytest

from gradserve.wire import JSON_ELEMENTS_MAX, MEDIA_TYPE, MEDIA_TYPES
from gradserve_service.http.documents import PushOutcome, PushWithWeights

PUSH = {"gradients": {"w": [1.0, -2.0, 3.0]}}
WEIGHTS = {"w": [1.0, 2.0, 3.0]}
HOT_HEADERS = (
    "gradserve-version", "gradserve-head", "gradserve-outcome", "gradserve-staleness", "gradserve-lr",
    "gradserve-durability", "gradserve-next-sequence", "gradserve-receipt", "server-timing", "request-id",
)  # fmt: skip


async def test_a_json_push_is_answered_with_its_outcome(server):
    await server.make_run(weights=WEIGHTS)
    answer = await server.push(1, PUSH)
    assert answer.status_code == 200, answer.text
    outcome = answer.json()
    PushOutcome.model_validate(outcome)
    assert (outcome["outcome"], outcome["version"], outcome["next_sequence"], outcome["lr"]) == ("applied", 1, 2, 0.5)
    assert outcome["gradient_norm"] == pytest.approx(14**0.5)


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
async def test_a_safetensors_push_may_be_sent_under_each_of_its_media_types(server, frame, media_type):
    await server.make_run(weights=WEIGHTS)
    answer = await server.push(1, frame(PUSH["gradients"]), Content_Type=media_type)
    assert answer.json()["outcome"] == "applied", answer.text


async def test_every_answer_of_the_hot_path_has_its_headers(server, frame):
    await server.make_run(weights=WEIGHTS)
    for sequence, headers in ((1, {}), (2, {"Prefer": "return=representation"})):
        answer = await server.push(sequence, frame(PUSH["gradients"]), **headers)
        assert all(name in answer.headers for name in HOT_HEADERS), answer.headers
        assert answer.headers["vary"] == "Accept"
        for part in ("receive", "decode", "store", "apply"):
            assert f"{part};dur=" in answer.headers["server-timing"]
    assert "encode;dur=" in answer.headers["server-timing"]


async def test_a_representation_brings_outcome_and_new_weights_in_one_answer(server, frame, tensors):
    """The form of the body decides the form of the answer; both say the same."""
    await server.make_run(weights=WEIGHTS)
    answer = await server.push(1, frame(PUSH["gradients"]), Prefer="return=representation")
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert tensors(answer.content) == {"w": [0.5, 3.0, 1.5]}
    assert answer.headers["content-location"] == "/v1/runs/run/weights"
    assert answer.headers["gradserve-outcome"] == "applied"
    pulled = await server.client.get("/v1/runs/run/weights")
    assert pulled.headers["etag"] == answer.headers["etag"]
    assert pulled.content == answer.content
    answer = await server.push(2, PUSH, Prefer="return=representation")
    PushWithWeights.model_validate(answer.json())
    assert answer.json()["weights"] == {"w": [0.0, 4.0, 0.0]}
    assert answer.headers["etag"].startswith('"2-')


async def test_weights_may_come_back_in_half_the_bytes(server, frame, tensors):
    await server.make_run(weights=WEIGHTS)
    full = await server.push(1, frame(PUSH["gradients"]), Prefer="return=representation")
    path = "/v1/runs/run/workers/w/pushes/2"
    headers = {"Content-Type": MEDIA_TYPE, "Prefer": "return=representation"}
    answer = await server.client.put(f"{path}?dtype=bfloat16", content=frame(PUSH["gradients"]), headers=headers)
    assert tensors(answer.content) == {"w": [0.0, 4.0, 0.0]}
    assert len(answer.content) < len(full.content)


@pytest.mark.parametrize("prefer", ["return=minimal", "wait=3", "return", "", "return=representations"])
async def test_another_preference_brings_no_weights(server, prefer):
    await server.make_run(weights=WEIGHTS)
    answer = await server.push(1, PUSH, Prefer=prefer)
    assert "weights" not in answer.json()
    assert "etag" not in answer.headers


async def test_the_same_push_again_is_a_duplicate_and_moves_nothing(server, frame):
    await server.make_run(weights=WEIGHTS)
    first = (await server.push(1, PUSH)).json()
    again = await server.push(1, frame(PUSH["gradients"]), Prefer="return=representation")
    assert again.headers["gradserve-outcome"] == "duplicate"
    assert again.headers["gradserve-version"] == "1"
    third = (await server.push(1, PUSH)).json()
    assert third["original"]["outcome"] == "applied"
    assert third["receipt"] == first["receipt"]
    assert (await server.client.get("/v1/runs/run")).json()["version"] == 1


async def test_the_outcome_of_the_last_push_can_be_asked_for(server, problem):
    await server.make_run(weights=WEIGHTS)
    pushed = (await server.push(1, PUSH)).json()
    path = "/v1/runs/run/workers/w/pushes"
    assert (await server.client.get(f"{path}/1")).json() == pushed
    problem(await server.client.get(f"{path}/2"), "push-not-found")
    problem(await server.client.get("/v1/runs/run/workers/nobody/pushes/1"), "worker-not-found")


async def test_fields_in_json_and_in_metadata_mean_the_same(server, frame, problem):
    run = await server.make_run(weights=WEIGHTS)
    fields = {"base_version": 0, "base": run["etag"], "samples": 32, "loss": 0.7, "cursor": "epoch 1"}
    answer = await server.push(1, frame(PUSH["gradients"], **fields))
    assert answer.json()["outcome"] == "applied", answer.text
    problem(await server.push(2, {**PUSH, **fields, "base": '"0-0000000000000000"'}), "history-rewound")
    problem(await server.push(2, frame(PUSH["gradients"], base='"0-0000000000000000"')), "history-rewound")
    problem(await server.push(2, {**PUSH, "samples": 0}), "validation-error")
    problem(await server.push(2, frame(PUSH["gradients"], samples="many")), "validation-error")
    problem(await server.push(2, {**PUSH, "sample": 1}), "validation-error")


async def test_what_is_no_gradient_is_refused_and_leaves_no_trace(server, frame, problem):
    await server.make_run(weights=WEIGHTS)
    nan = frame({"w": [1.0, float("nan"), 1.0]})
    for body, code in (
        ({}, "validation-error"),
        ({"gradients": []}, "validation-error"),
        ({"gradients": {}}, "validation-error"),
        ({"gradients": {"w": [1.0, [2.0], 3.0]}}, "validation-error"),
        ({"gradients": {"w": [1.0, 2.0]}}, "layout-mismatch"),
        ({"gradients": {"v": [1.0]}}, "unknown-tensor"),
        ({"gradients": {"w": [1.0, 1e300, 1.0]}}, "non-finite-gradient"),
        (nan, "non-finite-gradient"),
        (b"", "malformed-tensors"),
        (b"\x00" * 8, "malformed-tensors"),
        (frame(PUSH["gradients"])[:-1], "malformed-tensors"),
        (frame(PUSH["gradients"]) + b"\x00", "malformed-tensors"),
    ):
        problem(await server.push(1, body), code)
    content = b'{"gradients": {"w": [1.0, NaN, 1.0]}}'
    problem(await server.push(1, content, Content_Type="application/json"), "malformed-json")
    assert (await server.push(1, PUSH)).json()["version"] == 1


async def test_an_answer_that_cannot_be_given_is_refused_before_anything_is_applied(server, frame, problem):
    """406 after the gradient was applied would be a gradient whose sender believes it was not."""
    size = JSON_ELEMENTS_MAX + 1
    await server.make_run()
    body = frame({"w": [0.0] * size})
    assert (
        await server.client.put("/v1/runs/run/weights", content=body, headers={"Content-Type": MEDIA_TYPE})
    ).is_success
    wanted = {"Prefer": "return=representation"}
    document = problem(await server.push(1, body, Accept="application/json", **wanted), "json-too-large")
    assert document["limit"] == JSON_ELEMENTS_MAX
    assert "safetensors" in document["detail"]
    problem(await server.push(1, body, Accept="text/html"), "not-acceptable")
    path = "/v1/runs/run/workers/w/pushes/1"
    headers = {"Content-Type": MEDIA_TYPE, **wanted}
    problem(await server.client.put(f"{path}?dtype=float64", content=body, headers=headers), "dtype-unsupported")
    problem(await server.client.put(f"{path}?dtyp=float16", content=body, headers=headers), "validation-error")
    assert (await server.push(1, body)).json()["version"] == 1


async def test_a_json_body_with_more_elements_than_json_may_hold(server, frame, problem):
    await server.make_run()
    body = {"weights": {"w": [0.0] * (JSON_ELEMENTS_MAX + 1)}}
    document = problem(await server.client.put("/v1/runs/run/weights", json=body), "too-large")
    assert document["limit"] == JSON_ELEMENTS_MAX
    assert MEDIA_TYPE in document["detail"]


async def test_weights_that_have_diverged_are_still_an_answer(server, tensors):
    """JSON has no Infinity: the gradient is applied, so the answer says null and not 503."""
    await server.make_run(weights={"w": [1.0]}, optimizer={"name": "sgd", "lr": 1e30})
    answer = await server.push(1, {"gradients": {"w": [-1e10]}}, Prefer="return=representation")
    assert answer.status_code == 200, answer.text
    assert answer.json()["weights"] == {"w": [None]}
    assert tensors((await server.client.get("/v1/runs/run/weights")).content) == {"w": [float("inf")]}


async def test_a_push_for_the_run_that_had_this_name_before_is_410(server, problem):
    run = await server.make_run(weights=WEIGHTS)
    problem(await server.push(1, PUSH, Gradserve_Run="0" * 32), "run-deleted")
    assert (await server.push(1, PUSH, Gradserve_Run=run["uid"])).status_code == 200


async def test_a_run_without_weights_takes_no_gradient(server, problem):
    await server.make_run()
    problem(await server.push(1, PUSH), "weights-uninitialised")


async def test_a_draining_server_refuses_new_gradients_and_still_knows_the_last(server, problem):
    await server.make_run(weights=WEIGHTS)
    await server.push(1, PUSH)
    server.replicas.draining = True
    problem(await server.push(2, PUSH), "draining")
    assert (await server.push(1, PUSH)).json()["outcome"] == "duplicate"
    problem(await server.client.get("/readyz"), "draining")


async def test_replicas_may_be_exchanged_under_the_app(server, replicas_of):
    """A simulator restarts a server by giving its app other replicas."""
    await server.make_run(weights=WEIGHTS)
    await server.push(1, PUSH)
    await server.replicas.close()
    async with replicas_of() as successor:
        server.app.state.replicas = successor
        assert (await server.push(1, PUSH)).json()["outcome"] == "duplicate"
        assert (await server.push(2, PUSH)).json()["version"] == 2


async def test_with_the_schedule_client_each_push_names_its_rate(server, frame):
    """In JSON or in a frame's metadata; a push that names none gets the optimizer's."""
    await server.make_run(weights=WEIGHTS, schedule="client")
    rates = []
    rates.append((await server.push(1, {**PUSH, "lr": 0.25})).json()["lr"])
    rates.append((await server.push(2, frame(PUSH["gradients"], lr="0.125"))).json()["lr"])
    rates.append((await server.push(3, PUSH)).json()["lr"])
    assert rates == [0.25, 0.125, 0.5]
