"""One server process: open the store, listen, serve, and leave in order.

SIGTERM (or Ctrl-C) *drains*: `/readyz` turns red and new gradients get 503 `draining` while the port still answers, so
that workers learn it from an answer and not from a broken connection; what is under way is finished, snapshots are
written, and only then the port closes and the process exits 0. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
import uvicorn

from gradserve_service.http.app import create_app
from gradserve_service.replica import Replicas
from gradserve_service.settings import Settings
from gradserve_service.store import StoreUnavailable, StoreUnfit, open_store

from .connections import connection_within
from .logs import configure_logs

__all__ = ["CannotServe", "run_server"]

BACKLOG = 2048  # connections that wait for accept: as many workers may start at once
PRIVATE = 0o177  # umask of a UNIX socket: only its owner connects, unless there is a token

log = structlog.get_logger("gradserve.serve")

Announce = Callable[[dict[str, Any]], None]


class CannotServe(Exception):
    """The server does not start. The text is the cure."""


def run_server(settings: Settings, *, announce: Announce) -> None:
    """Serve until a signal. `announce` is told the address once the server answers. Raises `CannotServe`."""
    configure_logs(settings)
    try:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ModuleNotFoundError:  # not made for every platform
        runner = asyncio.Runner()
    with runner, listening(settings) as sockets:
        runner.run(_serve(settings, sockets, announce))


async def _serve(settings: Settings, sockets: list[socket.socket], announce: Announce) -> None:
    try:
        store = open_store(settings.store, settings.durability)
        replicas = Replicas(store, limits=settings.limits, durability=settings.durability, retain=settings.retain)
        await replicas.start()
    except StoreUnfit as error:
        raise CannotServe(str(error)) from None
    app = create_app(replicas, settings)
    config = uvicorn.Config(
        app,
        http=connection_within(replicas.limits),
        ws="none",
        lifespan="off",  # this function is the lifespan
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here looks at the client's address
        timeout_keep_alive=replicas.limits.idle_connection_seconds,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
        backlog=BACKLOG,
        uds=None if settings.uds is None else str(settings.uds),
    )
    address = {
        "event": "serving",
        "version": version("gradserve"),
        **_urls(settings, sockets),
        "store": store.url,
        "durability": settings.durability,
        "pid": os.getpid(),
    }

    async def drain() -> None:
        app.state.waits.end()
        try:
            async with asyncio.timeout(settings.drain_seconds):
                await replicas.drain()
        except TimeoutError:
            log.warning("drain_cut_short", seconds=settings.drain_seconds, consequence="the next start replays more")
            await replicas.close()
        except StoreUnavailable as error:
            log.warning("drain_without_store", reason=str(error), consequence="the next start replays more")

    await DrainingServer(config, drain=drain, started=lambda: announce(address)).serve(sockets or None)


class DrainingServer(uvicorn.Server):
    """uvicorn's server, but a signal drains before it closes the port."""

    def __init__(self, config: uvicorn.Config, *, drain: Callable[[], Any], started: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain = drain
        self._started = started
        self._loop = asyncio.get_running_loop()
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        self._started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second ends at once. Nothing is raised again afterwards: the exit code is 0."""
        self._loop.call_soon_threadsafe(self._leave, signal.Signals(sig).name)

    def _leave(self, name: str) -> None:
        if self._draining is not None:
            self.should_exit = self.force_exit = True
            return
        log.info("draining", signal=name)
        self._draining = asyncio.ensure_future(self._drain_and_exit())

    async def _drain_and_exit(self) -> None:
        try:
            await self._drain()
        finally:
            self.should_exit = True


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[list[socket.socket]]:
    """The bound socket of host and port, or none for a UNIX socket, whose place is made ready. Raises `CannotServe`.

    Bound before the store is opened: a port in use must not cost a lock on the database.
    """
    if settings.uds is not None:
        _make_ready(settings.uds, private=settings.token_digest() is None and not settings.insecure)
        try:
            yield []
        finally:
            settings.uds.unlink(missing_ok=True)
        return
    try:
        family, *_, place = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.create_server(place[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise CannotServe(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; choose another --port "
            "(0 picks a free one) or --host"
        ) from None
    with bound:
        yield [bound]


def _make_ready(path: Path, *, private: bool) -> None:
    """Leave a dead socket file behind for uvicorn to replace: it takes over the file's mode."""
    if path.exists() and not path.is_socket():
        raise CannotServe(f"--uds {path}: there is a file of another kind; choose another path")
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
        raise CannotServe(f"--uds {path}: another server listens there; choose another path, or stop it")
    previous = os.umask(PRIVATE if private else 0o111)
    try:
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as placeholder:
            placeholder.bind(str(path))
    except OSError as error:
        raise CannotServe(f"--uds {path}: {error.strerror}; choose a path in a directory that exists") from None
    finally:
        os.umask(previous)


def _urls(settings: Settings, sockets: list[socket.socket]) -> dict[str, Any]:
    if settings.uds is not None:
        place = f"unix://{settings.uds.absolute()}"
        return {"url": place, "docs": f"{place} /docs", "host": None, "port": None, "uds": str(settings.uds)}
    host, port = sockets[0].getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    return {"url": url, "docs": f"{url}/docs", "host": host, "port": port, "uds": None}
