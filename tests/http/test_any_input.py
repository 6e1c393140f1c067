"""No route answers 500, whatever is sent: each answer is a success or a problem document."""

from __future__ import annotations

import asyncio
import json
import string
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradserve_service.http.app import create_app
from gradserve_service.replica import Replicas
from gradserve_service.settings import Settings
from gradserve_service.store import open_store

WORDS = st.sampled_from(
    ["run", "w", "1", "weights", "workers", "pushes", "optimizer-state", "v1", "runs", "..", "%00", "%FF", "é", "", "0"]
)
PATHS = st.one_of(
    st.lists(WORDS, max_size=8).map(lambda words: "/v1/runs/" + "/".join(words)),
    st.lists(WORDS, max_size=4).map(lambda words: "/" + "/".join(words)),
    st.sampled_from(
        [
            "/v1/runs/run",
            "/v1/runs/run/weights",
            "/v1/runs/run/workers/w",
            "/v1/runs/run/workers/w/pushes/1",
            "/v1/runs",
        ]
    ),
)
TEXT = st.text(
    string.printable.replace("\r", "").replace("\n", "").replace("\x0b", "").replace("\x0c", ""), max_size=30
)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["Accept", "Prefer", "If-Match", "If-None-Match", "Idempotency-Key", "Gradserve-Run", "Content-Encoding"]
    ),
    st.one_of(TEXT, st.sampled_from(["*", "return=representation", "wait=0", "*/*;q=x", ",", '"']))
)  # fmt: skip
TYPES = st.sampled_from(
    ["application/json", "application/vnd.safetensors", "text/plain", "", "application/json; charset=x"]
)
KEYS = st.sampled_from(["optimizer", "name", "weights", "w", "gradients", "state", "instance"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | KEYS, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
BODIES = st.one_of(
    st.binary(max_size=200),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.integers(0, 2**64 - 1).map(lambda length: length.to_bytes(8, "little") + b'{"w":{"dtype":"F32"}}'),
)


class World:
    """A server with one small run, and a loop of its own: Hypothesis calls synchronous tests."""

    def __init__(self, folder: Path, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.replicas = Replicas(open_store(f"sqlite:///{folder / 'gradserve.db'}", "memory"))
        transport = httpx.ASGITransport(create_app(self.replicas, Settings()))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://server")

    async def start(self) -> None:
        await self.replicas.start()
        spec = {"optimizer": "sgd", "weights": {"w": [1.0]}}
        assert (await self.client.put("/v1/runs/run", json=spec)).status_code == 201

    def ask(self, method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> httpx.Response:
        async def send() -> httpx.Response:
            url = httpx.URL("http://server").copy_with(raw_path=f"{quote(path, safe='/%')}?{quote(query)}".encode())
            return await self.client.request(method, url, headers=headers, content=body)

        return self.runner.run(send())

    async def end(self) -> None:
        await self.client.aclose()
        await self.replicas.close()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with TemporaryDirectory() as folder, asyncio.Runner() as runner:
        world = World(Path(folder), runner)
        runner.run(world.start())
        yield world
        runner.run(world.end())


@given(
    method=st.sampled_from(["GET", "PUT", "PATCH", "DELETE", "POST", "HEAD", "OPTIONS", "TRACE", "BREW"]),
    path=PATHS, query=TEXT, headers=HEADERS, content_type=TYPES, body=BODIES,
)  # fmt: skip
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_answer_is_a_success_or_a_problem(world, method, path, query, headers, content_type, body):
    answer = world.ask(method, path, query, {**headers, "Content-Type": content_type}, body)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400 and method != "HEAD":
        assert answer.headers["content-type"] == "application/problem+json"
