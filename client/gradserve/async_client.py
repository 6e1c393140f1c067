"""The asyncio client: a second thin driver over the same flows."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from numpy.typing import ArrayLike

from .async_run import AsyncRun
from .client import AskedRun, Connection
from .errors import Closed, ServerUnreachable
from .flows import runs_flow, server_flow
from .messages import Flow, Request, T
from .retry import Patience
from .specs import RunSpec, Spec
from .transport import AsyncHttpTransport

LOG = logging.getLogger("gradserve")


def connect_async(
    url: str | Sequence[str] | None = None,
    token: str | None = None,
    *,
    retry_seconds: float = 600.0,
    verify: ssl.SSLContext | bool = True,
) -> AsyncClient:
    """As `connect`, for asyncio: `async with gs.connect_async(…) as client: …`. Raises `Misuse`."""
    return AsyncClient(url, token, retry_seconds=retry_seconds, verify=verify)


class AsyncClient(Connection[AsyncHttpTransport]):
    """Connections to one server, or to several on one store. Made by `connect_async`; belongs to one event loop.

    Cancelling what it does is safe: a request that may have arrived is asked for again before the next of its worker.
    """

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        token: str | None = None,
        *,
        retry_seconds: float = 600.0,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        super().__init__(AsyncHttpTransport, url, token, retry_seconds=retry_seconds, verify=verify)

    async def run(
        self,
        name: str,
        init: Mapping[str, ArrayLike] | None = None,
        *,
        optimizer: Spec | Mapping[str, Any] | str | None = None,
        spec: RunSpec | Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> AsyncRun:
        """Get the run of that name, or create it. Arguments and errors are those of `Client.run`."""
        asked = AskedRun.of(name, init, spec, {"optimizer": optimizer, **fields})
        return AsyncRun(self, await self.drive(asked.open()), rank=asked.rank)

    async def runs(self, state: str | None = None) -> list[dict[str, Any]]:
        """All runs (or those `running`, `paused`, `closed`), in name order."""
        return await self.drive(runs_flow(state))

    async def server(self) -> dict[str, Any]:
        """What the server is: version, limits, store, durability."""
        return await self.drive(server_flow())

    async def drive(self, flow: Flow[T], patience: Patience | None = None) -> T:
        """Hold the conversation: send each request, sleep each pause, and give what the flow returns."""
        talk = self.talk(flow, patience)
        try:
            step = next(talk)
            while True:
                if isinstance(step, Request):
                    try:
                        response = await self._transports[step.server].send(step)
                    except ServerUnreachable as error:
                        if self.closed:
                            raise Closed(f"this client of {self.url} was closed meanwhile") from error
                        step = talk.throw(error)
                    else:
                        step = talk.send(response)
                else:
                    LOG.warning("%s; trying again in %.1f s", step.reason, step.seconds)
                    await asyncio.sleep(step.seconds)
                    step = talk.send(None)
        except StopIteration as stop:
            answer: T = stop.value
            return answer
        finally:
            talk.close()

    async def aclose(self) -> None:
        """Close all connections; whoever watches a run stops. Closing twice is no error."""
        self.closed = True
        for transport in self._transports:
            await transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
