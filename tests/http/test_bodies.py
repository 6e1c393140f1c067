"""Bodies are counted: announced, as they come, and against the layout's exact bound."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import numpy as np

from gradserve.wire import HEADER_BYTES_MAX, MEDIA_TYPE

ST = {"Content-Type": MEDIA_TYPE}
WEIGHTS = {"w": [1.0, 2.0, 3.0]}
PATH = "/v1/runs/run/workers/w/pushes/1"


async def call(
    app, chunks: Sequence[bytes], length: int | None, path: str = PATH, *, end: bool = True
) -> tuple[int, dict]:
    """One PUT straight into the app, in these chunks; what no HTTP client could be made to send."""
    headers = [(b"content-type", MEDIA_TYPE.encode())]
    headers.append((b"transfer-encoding", b"chunked") if length is None else (b"content-length", b"%d" % length))
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "PUT", "path": path,
        "raw_path": path.encode(), "query_string": b"", "headers": headers, "scheme": "http", "root_path": "",
        "server": None, "client": None, "state": {},
    }  # fmt: skip
    messages = [
        {"type": "http.request", "body": chunk, "more_body": not end or place + 1 < len(chunks)}
        for place, chunk in enumerate(chunks)
    ]
    sent: list[dict] = []

    async def receive() -> dict:
        if messages:
            return messages.pop(0)
        return await asyncio.get_running_loop().create_future()  # never: the sender has stalled

    async def send(message: dict) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


async def test_a_body_in_many_pieces_is_one_body(server, frame):
    await server.make_run(weights=WEIGHTS)
    body = frame({"w": [1.0, -2.0, 3.0]})
    status, answer = await call(server.app, [body[place : place + 1] for place in range(len(body))], len(body))
    assert (status, answer["outcome"]) == (200, "applied")


async def test_fewer_bytes_than_announced_are_malformed(server, frame):
    await server.make_run(weights=WEIGHTS)
    body = frame({"w": [1.0, -2.0, 3.0]})
    status, answer = await call(server.app, [body[:-4]], len(body))
    assert (status, answer["code"]) == (400, "malformed-tensors")
    assert str(len(body)) in answer["detail"]


async def test_more_bytes_than_announced_are_too_large(server, frame):
    await server.make_run(weights=WEIGHTS)
    body = frame({"w": [1.0, -2.0, 3.0]})
    status, answer = await call(server.app, [body, b"\x00"], len(body))
    assert (status, answer["code"]) == (413, "too-large")


async def test_the_layout_bounds_what_may_be_announced(server, problem):
    """Nothing is read and nothing allocated: a gigabyte is refused by its Content-Length alone."""
    await server.make_run(weights=WEIGHTS)
    status, answer = await call(server.app, [], 1 << 30)
    assert (status, answer["code"]) == (413, "too-large")
    assert answer["limit"] == 8 + HEADER_BYTES_MAX + 4 * 3


async def test_a_chunked_body_is_counted_against_the_same_bound(server, frame):
    await server.make_run(weights=WEIGHTS)
    body = frame({"w": [1.0, -2.0, 3.0]})
    status, answer = await call(server.app, [body[:100], body[100:]], None)
    assert (status, answer["outcome"]) == (200, "applied")
    piece = bytes(256 << 10)
    status, answer = await call(server.app, [piece] * 5, None)
    assert (status, answer["code"]) == (413, "too-large")


async def test_a_chunked_body_of_first_weights_grows_its_buffer(server, frame, tensors):
    await server.make_run()
    vector = np.arange(1 << 20, dtype=np.float32)
    body = frame({"w": vector})
    pieces = [body[place : place + (300 << 10)] for place in range(0, len(body), 300 << 10)]
    status, _ = await call(server.app, pieces, None, "/v1/runs/run/weights")
    assert status == 201
    answer = await server.client.get("/v1/runs/run/weights")
    assert tensors(answer.content)["w"] == vector.tolist()


async def test_a_json_body_has_a_limit_of_its_own(serve, problem):
    async with serve(json_bytes_max=1000) as server:
        await server.make_run(weights=WEIGHTS)
        document = problem(await server.push(1, {"gradients": {"w": [1.0] * 400}}), "too-large")
        assert document["limit"] == 1000
        spec = {"optimizer": "sgd", "weights": {"w": [1.0] * 400}}
        problem(await server.client.put("/v1/runs/other", json=spec), "too-large")
        headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}

        async def pieces():
            for _ in range(11):
                yield b" " * 100

        problem(await server.client.put("/v1/runs/other", content=pieces(), headers=headers), "too-large")


async def test_a_server_whose_budget_is_held_answers_429_before_it_reads(serve):
    async with serve(bodies_bytes_max=1000) as server:
        await server.make_run(weights=WEIGHTS)
        replica = await server.replicas.open("run")
        with replica.accept_body(900):
            status, answer = await call(server.app, [], 200)
        assert (status, answer["code"]) == (429, "backpressure")


async def test_the_budget_is_given_back_however_the_request_ends(serve, frame):
    async with serve(bodies_bytes_max=1000) as server:
        await server.make_run(weights=WEIGHTS)
        body = frame({"w": [1.0, -2.0, 3.0]})
        for chunks, length, expected in (
            ([body[:-4]], len(body), 400),
            ([body, b"\x00"], len(body), 413),
            ([b"\xff" * 200], 200, 400),
            ([body], len(body), 200),
        ):
            status, _ = await call(server.app, chunks, length)
            assert status == expected
        replica = await server.replicas.open("run")
        with replica.accept_body(1000):
            pass


async def test_a_sender_that_stalls_is_given_up(serve):
    """Below the minimum rate after the grace, which is nothing here."""
    async with serve(receive_grace_seconds=0.0) as server:
        await server.make_run(weights=WEIGHTS)
        status, answer = await call(server.app, [b"\x00" * 10], 1000, end=False)
        assert (status, answer["code"]) == (429, "backpressure")
        assert answer["received"] == 10


async def test_a_sender_that_goes_away_is_forgotten(server, frame):
    """No answer, no error, no budget held, and the push can be sent again."""
    await server.make_run(weights=WEIGHTS)
    body = frame({"w": [1.0, -2.0, 3.0]})
    sent: list[dict] = []
    messages = [{"type": "http.request", "body": body[:50], "more_body": True}, {"type": "http.disconnect"}]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "PUT", "path": PATH,
        "raw_path": PATH.encode(), "query_string": b"", "scheme": "http", "root_path": "", "server": None,
        "client": None, "state": {},
        "headers": [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", b"%d" % len(body))],
    }  # fmt: skip

    async def receive() -> dict:
        return messages.pop(0)

    async def send(message: dict) -> None:
        sent.append(message)

    await server.app(scope, receive, send)
    assert sent == []
    assert (await server.push(1, body)).json()["version"] == 1
