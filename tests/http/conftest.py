"""The real app over a real store, in memory or behind a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from gradserve.problems import PROBLEMS
from gradserve.wire import MEDIA_TYPE, Layout, decode_frame, encode_frame
from gradserve_service.http.app import create_app
from gradserve_service.http.documents import ProblemDocument
from gradserve_service.limits import Limits
from gradserve_service.replica import Replicas
from gradserve_service.settings import Settings
from gradserve_service.store import open_store


@dataclass
class Served:
    """An app, its runs and a client that speaks to it."""

    app: FastAPI
    replicas: Replicas
    client: httpx.AsyncClient
    port: int = 0
    _uid: str = field(default="", repr=False)

    async def push(self, sequence: int = 1, body: Any = None, run: str = "run", **headers: str) -> httpx.Response:
        """PUT a push of worker `w`: JSON for a dict, else safetensors. `Some_Header="…"` sends Some-Header."""
        path = f"/v1/runs/{run}/workers/w/pushes/{sequence}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, dict):
            return await self.client.put(path, json=body, headers=named)
        return await self.client.put(path, content=body, headers={"Content-Type": MEDIA_TYPE, **named})

    async def make_run(self, name: str = "run", weights: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
        """A run with SGD at lr 0.5 and one tensor, unless said otherwise."""
        body: dict[str, Any] = {"optimizer": {"name": "sgd", "lr": 0.5}, **spec}
        if weights is not None:
            body["weights"] = weights
        answer = await self.client.put(f"/v1/runs/{name}", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()


@pytest.fixture(autouse=True)
def _no_settings_of_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of these tests are the defaults, whatever the shell that runs them says."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"GRADSERVE_{name.upper()}", raising=False)


@pytest.fixture
def replicas_of(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Replicas]]:
    """Started replicas over an embedded store in the test's own directory."""

    @asynccontextmanager
    async def make(**limits: Any) -> AsyncIterator[Replicas]:
        store = open_store(f"sqlite:///{tmp_path / 'gradserve.db'}", "memory")
        replicas = Replicas(store, limits=Limits(**limits))
        await replicas.start()
        try:
            yield replicas
        finally:
            await replicas.close()

    return make


@pytest.fixture
def serve(replicas_of: Callable[..., Any]) -> Callable[..., AbstractAsyncContextManager[Served]]:
    """The app called in memory, where a socket would add nothing."""

    @asynccontextmanager
    async def make(settings: Settings | None = None, **limits: Any) -> AsyncIterator[Served]:
        async with replicas_of(**limits) as replicas:
            app = create_app(replicas, settings or Settings())
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
                yield Served(app, replicas, client)

    return make


@pytest.fixture
async def server(serve: Callable[..., Any]) -> AsyncIterator[Served]:
    """The app in memory, as it comes."""
    async with serve() as served:
        yield served


@pytest.fixture
async def online(replicas_of: Callable[..., Any]) -> AsyncIterator[Served]:
    """The app behind uvicorn and a real socket."""
    async with replicas_of() as replicas:
        app = create_app(replicas, Settings())
        bound = socket.create_server(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        config = uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False)
        uvicorn_server = uvicorn.Server(config)
        serving = asyncio.create_task(uvicorn_server.serve([bound]))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield Served(app, replicas, client, port)
        uvicorn_server.should_exit = True
        await serving


@pytest.fixture
def frame() -> Callable[..., bytes]:
    """A safetensors body: `frame({"w": [1.0]}, base_version=0)`."""

    def make(tensors: Mapping[str, Any], dtype: str = "float32", **metadata: Any) -> bytes:
        layout = Layout.of({name: np.shape(tensor) for name, tensor in tensors.items()})
        said = {name: str(value) for name, value in metadata.items()}
        return b"".join(bytes(piece) for piece in encode_frame(layout, layout.flatten(tensors), said, dtype=dtype))

    return make


@pytest.fixture
def tensors() -> Callable[[bytes], dict[str, Any]]:
    """The tensors of a safetensors body as nested lists."""

    def read(body: bytes) -> dict[str, Any]:
        found = decode_frame(body)
        return {name: view.tolist() for name, view in found.layout.views(found.vector()).items()}

    return read


@pytest.fixture
def problem() -> Callable[[httpx.Response, str], dict[str, Any]]:
    """The document of a refusal, after checking all that holds for every one of them."""

    def read(answer: httpx.Response, code: str) -> dict[str, Any]:
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        document: dict[str, Any] = answer.json()
        ProblemDocument.model_validate(document)
        assert document["code"] == code, document
        assert answer.status_code == document["status"] == PROBLEMS[code].status
        assert document["type"] == f"/problems/{code}"
        assert document["title"] == PROBLEMS[code].title
        assert document["request_id"] == answer.headers["request-id"]
        assert document["detail"]
        assert ("retry-after" in answer.headers) == (answer.status_code in (429, 503))
        return document

    return read
