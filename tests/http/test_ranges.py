"""A download that broke off goes on where it was, and never with bytes of other weights."""

from __future__ import annotations

import numpy as np
import pytest

from gradserve.wire import MEDIA_TYPE

PATH = "/v1/runs/run/weights"


@pytest.fixture
async def large(server, frame):
    """Weights of several pieces."""
    await server.make_run()
    vector = np.arange(600_000, dtype=np.float32)
    await server.client.put(PATH, content=frame({"w": vector}), headers={"Content-Type": MEDIA_TYPE})
    return server


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-99", 10, 100),
        ("bytes=1000000-", 1_000_000, None),
        ("bytes=-7", -7, None),
        ("bytes=1048570-1048640", 1_048_570, 1_048_641),
        ("bytes=5-99999999999", 5, None),
    ],
)
async def test_a_range_is_these_bytes_of_the_whole(large, asked, start, stop, dtype):
    whole = (await large.client.get(f"{PATH}?dtype={dtype}")).content
    answer = await large.client.get(f"{PATH}?dtype={dtype}", headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == whole[start:stop]
    first = range(len(whole))[start]
    last = first + len(answer.content) - 1
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(whole)}"
    assert answer.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize(
    "asked", ["bytes=5-2", "bytes=99999999-", "bytes=-", "bytes=0-1,5-6", "items=0-1", "bytes=-0", "x"]
)
async def test_a_range_that_cannot_be_served_is_answered_with_the_whole(large, asked):
    answer = await large.client.get(PATH, headers={"Range": asked})
    assert answer.status_code == 200
    assert len(answer.content) == int(answer.headers["content-length"]) > 2_400_000


async def test_a_download_is_not_resumed_with_other_weights(large, frame):
    first = await large.client.get(PATH, headers={"Range": "bytes=0-999"})
    assert first.headers["accept-ranges"] == "bytes"
    resume = {"Range": "bytes=1000-", "If-Range": first.headers["etag"]}
    rest = await large.client.get(PATH, headers=resume)
    assert rest.status_code == 206
    assert first.content + rest.content == (await large.client.get(PATH)).content
    await large.push(1, frame({"w": np.ones(600_000)}))
    other = await large.client.get(PATH, headers=resume)
    assert other.status_code == 200
    assert other.headers["etag"] != first.headers["etag"]


async def test_a_small_body_has_ranges_too(server):
    await server.make_run(weights={"w": [1.0, 2.0]})
    whole = (await server.client.get(PATH)).content
    answer = await server.client.get(PATH, headers={"Range": "bytes=-8"})
    assert answer.content == whole[-8:]
