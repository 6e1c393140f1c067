"""The hot routes: plain ASGI inside the FastAPI app (a dependency costs 130 µs, a FastAPI route 50 more than this).

An endpoint is `async def name(incoming, send)`; OpenAPI learns about it in `openapi.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gradserve_service.replica import Replica

from .parameters import Incoming

__all__ = ["hot_route", "open_run"]

Endpoint = Callable[[Incoming, Send], Awaitable[None]]


class MethodTable:
    """One path's endpoints by method. An instance, not a function: Starlette calls it as ASGI, without a Request."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self.endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.endpoints[scope["method"]](Incoming(scope, receive), send)


def hot_route(path: str, **endpoints: Endpoint) -> Route:
    """A route of plain ASGI endpoints: `hot_route("/v1/…", GET=read, PUT=write)`. HEAD is answered by GET."""
    table = {"HEAD": endpoints["GET"], **endpoints} if "GET" in endpoints else endpoints
    return Route(path, MethodTable(table), methods=list(table), include_in_schema=False)


async def open_run(incoming: Incoming) -> Replica:
    """The run that the path names. Raises `run-not-found`, and `run-deleted` for another uid than Gradserve-Run's."""
    return await incoming.replicas.open(incoming.name("run"), incoming.header(b"gradserve-run"))
