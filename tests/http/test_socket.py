"""Over a real socket: what only a connection can show."""

from __future__ import annotations

import asyncio

import httpx
import numpy as np

from gradserve.wire import MEDIA_TYPE, decode_frame

ST = {"Content-Type": MEDIA_TYPE}


async def test_a_training_step_over_the_wire(online, frame, tensors):
    await online.make_run(weights={"w": [1.0, 2.0, 3.0]})
    answer = await online.push(1, frame({"w": [1.0, -2.0, 3.0]}), Prefer="return=representation")
    assert tensors(answer.content) == {"w": [0.5, 3.0, 1.5]}


async def test_large_bodies_go_up_and_come_down_whole(online, frame):
    """16 MB each way: many reads, many pieces, one Content-Length."""
    vector = np.random.default_rng(1).standard_normal(4_000_003, dtype=np.float32)
    await online.make_run()
    loaded = await online.client.put("/v1/runs/run/weights", content=frame({"w": vector}), headers=ST)
    assert loaded.status_code == 201, loaded.text
    gradient = np.ones_like(vector)
    answer = await online.push(1, frame({"w": gradient}), Prefer="return=representation")
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert np.array_equal(decode_frame(answer.content).vector(), vector - np.float32(0.5))


async def test_a_chunked_upload_needs_no_length(online, frame):
    body = frame({"w": np.ones(100_000)})

    async def pieces():
        for place in range(0, len(body), 30_000):
            yield body[place : place + 30_000]

    await online.make_run()
    answer = await online.client.put("/v1/runs/run/weights", content=pieces(), headers=ST)
    assert answer.status_code == 201, answer.text


async def test_one_connection_carries_refusals_and_answers_alike(online, frame):
    """A refusal before the body is read leaves the connection in order for the next request."""
    await online.make_run(weights={"w": [1.0]})
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(base_url=online.client.base_url, limits=limits) as client:
        for _ in range(3):
            refused = await client.put(
                "/v1/runs/run/weights", content=bytes(500_000), headers={**ST, "If-None-Match": "*"}
            )
            assert refused.status_code == 412
            assert (await client.get("/v1/runs/run/weights")).status_code == 200


async def test_a_412_comes_before_the_body_is_asked_for(online):
    """With Expect: 100-continue the client never sends the weights that lost the race."""
    await online.make_run(weights={"w": [1.0]})
    reader, writer = await asyncio.open_connection("127.0.0.1", online.port)
    writer.write(
        b"PUT /v1/runs/run/weights HTTP/1.1\r\nHost: x\r\nContent-Type: application/vnd.safetensors\r\n"
        b"Content-Length: 1000000\r\nExpect: 100-continue\r\nIf-None-Match: *\r\n\r\n"
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 412 ")
    writer.close()
    await writer.wait_closed()


async def test_head_and_304_have_no_body(online):
    await online.make_run(weights={"w": [1.0]})
    head = await online.client.head("/v1/runs/run/weights")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "68")
    unchanged = await online.client.get("/v1/runs/run/weights", headers={"If-None-Match": head.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")


async def test_a_reader_that_leaves_half_way_disturbs_nobody(online, frame):
    await online.make_run()
    await online.client.put("/v1/runs/run/weights", content=frame({"w": np.ones(4_000_000)}), headers=ST)
    reader, writer = await asyncio.open_connection("127.0.0.1", online.port)
    writer.write(b"GET /v1/runs/run/weights HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await writer.wait_closed()
    answer = await online.push(1, frame({"w": np.ones(4_000_000)}))
    assert answer.json()["outcome"] == "applied"


async def test_eight_workers_at_once_are_each_applied_once(online, frame):
    await online.make_run(weights={"w": [0.0]}, optimizer={"name": "sgd", "lr": 1.0})
    body = frame({"w": [1.0]})

    async def work(worker: int) -> None:
        for sequence in range(1, 11):
            answer = await online.client.put(
                f"/v1/runs/run/workers/w{worker}/pushes/{sequence}", content=body, headers=ST
            )
            assert answer.json()["outcome"] == "applied", answer.text

    await asyncio.gather(*(work(worker) for worker in range(8)))
    answer = await online.client.get("/v1/runs/run/weights", headers={"Accept": "application/json"})
    assert answer.json() == {"version": 80, "weights": {"w": [-80.0]}}
