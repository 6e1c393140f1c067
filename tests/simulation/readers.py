"""Who looks on: readers of everything that a run shows, and watchers of its events.

They believe what they are told; whether it was true is checked at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
from random import Random

from gradserve.errors import GradserveError, RunDeleted, ServerUnreachable
from gradserve.events import EventFeed
from gradserve.flows import RunKey
from gradserve.messages import Headers, Request, Response
from gradserve.wire import MEDIA_TYPE

from .ledger import Ledger, Told, Watched
from .network import Client
from .operators import described
from .workers import RUN

PAGES = ("", "/workers", "/optimizer-state", "/history", "/statistics", "/checkpoints", "/journal")
OPEN_AGAIN_SECONDS = 0.5


class Reader:
    """Looks at the run now and then."""

    def __init__(self, client: Client, random: Random) -> None:
        self._client, self._random = client, random
        self._etag: str | None = None

    async def look(self) -> None:
        """One look: mostly at the weights."""
        if self._random.random() < 0.6:
            await self._look_at_weights()
            return
        last = f"/workers/worker0/pushes/{self._random.randint(1, 12)}"
        page = self._random.choice((*PAGES, last))
        response = await self._get(page)
        if page == "/checkpoints" and response is not None and response.status == 200:
            for item in response.json()["checkpoints"][-1:]:
                await self._get(f"/checkpoints/{item['name']}", (("Accept", MEDIA_TYPE),))

    async def _look_at_weights(self) -> None:
        """With and without a condition, with and without waiting for newer ones."""
        headers: Headers = (("Accept", MEDIA_TYPE),)
        if self._etag is not None and self._random.random() < 0.7:
            headers += (("If-None-Match", self._etag),)
        wait = self._random.choice((0.0, 0.0, 1.5))
        if wait:
            headers += (("Prefer", f"wait={wait}"),)
        response = await self._get("/weights", headers, wait)
        if response is not None and response.status == 200:
            self._etag = response.header("etag")

    async def _get(self, path: str, headers: Headers = (), wait_seconds: float = 0.0) -> Response | None:
        request = Request("GET", f"/v1/runs/{RUN}{path}", headers, wait_seconds=wait_seconds)
        try:
            return await self._client.attempt(request)
        except ServerUnreachable:
            return None


class Watcher:
    """The SDK's event feed, from the run's first entry until it is closed, through every broken connection."""

    def __init__(self, name: str, client: Client, ledger: Ledger) -> None:
        self._client = client
        self.watched = Watched(name)
        ledger.watched.append(self.watched)
        self._ledger = ledger

    async def watch(self) -> None:
        """Until the run is closed, or deleted."""
        while True:
            description = await self._client.run(described())
            if description is not None:
                break
            await asyncio.sleep(OPEN_AGAIN_SECONDS)
        with contextlib.suppress(RunDeleted):
            await self._follow(RunKey(RUN, description["uid"]))

    async def _follow(self, run: RunKey) -> None:
        feed = EventFeed(since=0)
        while not self.watched.closed:
            try:
                stream = (await self._client.run(feed.open(run))).pieces()
                async for piece in stream:
                    for event in feed.read(piece):
                        told = Told(self._ledger.tick(), feed.connections, event.id, event.kind, event.fields)
                        self.watched.told.append(told)
                        self.watched.closed = self.watched.closed or event.closes
                        if self.watched.closed:
                            return
            except RunDeleted:
                raise
            except GradserveError:
                await asyncio.sleep(OPEN_AGAIN_SECONDS)
