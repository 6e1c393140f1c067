"""Connections that never come to a request."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn

from gradserve.problems import PROBLEMS
from gradserve_service.cli.connections import connection_within
from gradserve_service.http.app import create_app
from gradserve_service.http.documents import ProblemDocument
from gradserve_service.limits import Limits
from gradserve_service.replica import Replicas
from gradserve_service.settings import Settings
from gradserve_service.store import open_store


@asynccontextmanager
async def port_of(place: Path, **limits: float) -> AsyncIterator[int]:
    """A server whose connections keep these limits."""
    replicas = Replicas(open_store(f"sqlite:///{place / 'gradserve.db'}", "memory"), limits=Limits(**limits))
    await replicas.start()
    with socket.create_server(("127.0.0.1", 0)) as bound:
        config = uvicorn.Config(
            create_app(replicas, Settings.model_construct()), http=connection_within(replicas.limits), ws="none",
            lifespan="off", log_config=None, access_log=False,
        )  # fmt: skip
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([bound]))
        yield bound.getsockname()[1]
        server.should_exit = True
        await serving
    await replicas.close()


async def exchange(port: int, *pieces: bytes) -> bytes:
    """All that the server says until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    answer = await reader.read()
    writer.close()
    return answer


def problem(answer: bytes, code: str) -> None:
    """The answer is the problem document of the code, and the last of its connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0].startswith(f"http/1.1 {PROBLEMS[code].status} ")
    assert {"content-type: application/problem+json", "connection: close", f"content-length: {len(body)}"} <= {*lines}
    document = json.loads(body)
    ProblemDocument.model_validate(document)
    assert (document["code"], document["status"]) == (code, PROBLEMS[code].status)
    assert f"request-id: {document['request_id']}" in lines


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET http:// HTTP/1.1\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused_with_a_problem_document(tmp_path, junk):
    async with port_of(tmp_path) as port:
        problem(await exchange(port, junk), "malformed-request")


async def test_a_head_that_is_too_large_is_refused_before_the_app_sees_it(tmp_path):
    """In one piece, in many, and when it has no end."""
    line = b"X-Long: " + b"x" * 4000 + b"\r\n"
    start, end = b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"\r\n"
    async with port_of(tmp_path, request_head_bytes_max=8000) as port:
        problem(await exchange(port, start + 2 * line + end), "head-too-large")
        problem(await exchange(port, start, line, line, line), "head-too-large")
        problem(await exchange(port, b"GET /" + b"a" * 9000), "head-too-large")


async def test_a_head_within_the_limit_passes_and_the_next_one_is_counted_anew(tmp_path):
    line = b"X-Long: " + b"x" * 4000 + b"\r\n"
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n"
    last = request.replace(b"Host: x", b"Connection: close")
    async with port_of(tmp_path, request_head_bytes_max=6000) as port:
        assert (await exchange(port, request, request, last)).count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost:"])
async def test_a_connection_that_never_finishes_its_head_is_closed(tmp_path, sent):
    """The read ends: the server closed it, without an answer."""
    async with port_of(tmp_path, request_head_seconds_max=0.05) as port:
        assert await exchange(port, sent) == b""


async def test_a_connection_between_two_requests_may_be_silent(tmp_path):
    """Its answer came; only the next head has a time limit, from its first byte on."""
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    async with port_of(tmp_path, request_head_seconds_max=0.05) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(request)
            assert (await reader.readuntil(b'{"status":"live"}')).startswith(b"HTTP/1.1 200 ")
            looked = asyncio.Event()
            asyncio.get_running_loop().call_later(0.2, looked.set)  # past the watch's next look
            await looked.wait()
        writer.write(b"GET /hea")
        assert await reader.read() == b""
        writer.close()
