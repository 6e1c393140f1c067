"""Between clients and servers: requests and answers are late, lost, or come twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

from gradserve.errors import ServerUnreachable
from gradserve.messages import Flow, Request, Response, Sleep
from gradserve.retry import Patience, with_retries
from gradserve.servers import Servers

from .faults import Faults
from .ledger import Ledger
from .loop import VirtualLoop
from .servers import Server

T = TypeVar("T")
LATENCY_SECONDS = 0.01  # mean, each way
STREAM_SECONDS_MAX = 6.0  # after which a stream that breaks does
SILENCE_SECONDS = 8.0  # the longest that a client waits for an answer
PATIENCE_SECONDS = 180.0  # of the SDK with one request; 600 outside


class Network:
    """Carries every request of every client."""

    def __init__(
        self, loop: VirtualLoop, servers: Sequence[Server], faults: Faults, ledger: Ledger, random: Random, trace: Any
    ) -> None:
        self._loop, self._servers, self._faults, self._ledger = loop, servers, faults, ledger
        self._random, self._trace = random, trace

    async def send(self, client: str, request: Request, server: Server) -> Response:
        """One attempt. Raises `ServerUnreachable`."""
        exchange = self._ledger.ask(client, request)
        fault = self._faults.of_request(self._random)
        answer = self._loop.create_future()
        if fault != "request_lost":
            arrived = self._loop.create_future()
            arrived.add_done_callback(lambda done: self._carry_back(done, answer, fault), context=Context())
            self._loop.call_later(self._latency(), server.receive, request, arrived, context=Context())
        if (fault == "copied" and not request.streamed) or (fault == "request_lost" and self._random.random() < 0.5):
            self._send_later(request)
        silence = self._random.uniform(0.5, SILENCE_SECONDS) + request.wait_seconds
        try:
            async with asyncio.timeout(silence):
                response: Response = await answer
        except TimeoutError:
            raise ServerUnreachable(f"{server.name} was silent for {silence:.1f} s") from None
        if response.stream is not None and fault == "copied":  # what breaks a long answer is not one late packet
            later = self._random.uniform(0.0, STREAM_SECONDS_MAX)
            self._loop.call_later(later, response.stream.break_off, "the connection broke", context=Context())
        self._ledger.answered(exchange, response)
        self._trace("told", client, request.method, request.path, response.status)
        return response

    def _carry_back(self, done: asyncio.Future[Response], answer: asyncio.Future[Response], fault: str | None) -> None:
        if fault == "answer_lost":
            done.exception()  # seen by nobody
            return
        self._loop.call_later(self._latency(), _pass_on, done, answer, context=Context())

    def _send_later(self, request: Request) -> None:
        """The bytes arrive (again), maybe long after the client has moved on. Nobody reads the answer."""
        unread = self._loop.create_future()
        unread.add_done_callback(lambda done: done.exception(), context=Context())
        later = self._random.uniform(0.0, self._faults.mix.copy_seconds)
        server = self._random.choice(self._servers)
        self._loop.call_later(later, server.receive, request, unread, context=Context())

    def _latency(self) -> float:
        return self._random.expovariate(1 / LATENCY_SECONDS)

    @property
    def urls(self) -> list[str]:
        """What the SDK is given."""
        return [f"http://{server.name}" for server in self._servers]

    def server(self, number: int) -> Server:
        """The one behind a URL."""
        return self._servers[number]

    def any_server(self, random: Random) -> Server:
        """A server to begin with."""
        return random.choice(self._servers)


def _pass_on(done: asyncio.Future[Response], answer: asyncio.Future[Response]) -> None:
    error = done.exception()
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(done.result())


class Client:
    """Drives the SDK's flows: sends what they yield, sleeps when they say so.

    Which server gets a request: with `homes`, the SDK's own choice (it was given the URLs of all); without, that of
    something between them that knows nothing of runs: mostly the same one, another after trouble.
    """

    def __init__(
        self, name: str, network: Network, loop: VirtualLoop, faults: Faults, random: Random, *, homes: bool = False
    ) -> None:
        self.name = name
        self.random = random
        self._network, self._loop, self._faults = network, loop, faults
        self._server = network.any_server(random)
        self._homes = Servers(network.urls, loop.time) if homes else None

    async def send(self, request: Request) -> Response:
        """One attempt at the present server. Raises `ServerUnreachable`."""
        if self._homes is not None:
            return await self._network.send(self.name, request, self._network.server(self._chosen(request)))
        if self.random.random() < self._faults.mix.other_server:
            self._server = self._network.any_server(self.random)
        try:
            response = await self._network.send(self.name, request, self._server)
        except ServerUnreachable:
            self._server = self._network.any_server(self.random)
            raise
        if response.status == 503:
            self._server = self._network.any_server(self.random)
        return response

    def _chosen(self, request: Request) -> int:
        """The server that the flow names; now and then any, as the home is another for whoever has other URLs."""
        astray = self.random.random() < self._faults.mix.other_server
        return self.random.randrange(len(self._network.urls)) if astray else request.server

    async def attempt(self, request: Request) -> Response:
        """One request of somebody without the SDK, who knows one server and goes to the next when it does not answer.
        Raises `ServerUnreachable`."""
        if self._homes is None:
            return await self.send(request)
        server = self._homes.order(request.path)[0]
        try:
            response = await self.send(replace(request, server=server))
        except ServerUnreachable:
            self._homes.failed(server)
            raise
        if response.status == 503:
            self._homes.failed(server)
        return response

    async def run(self, flow: Flow[T]) -> T:
        """A whole conversation, with the SDK's own retries."""
        patience = Patience(self._loop.time, self.random.random, seconds=PATIENCE_SECONDS)
        return await drive(with_retries(flow, patience, self._homes), self.send)


async def drive(flow: Flow[T], send: Callable[[Request], Any]) -> T:
    """What a driver of flows does; `gradserve.client` does it with sockets."""
    try:
        step = next(flow)
        while True:
            if isinstance(step, Sleep):
                await asyncio.sleep(step.seconds)
                step = flow.send(None)
                continue
            try:
                response = await send(step)
            except ServerUnreachable as error:
                step = flow.throw(error)
            else:
                step = flow.send(response)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
