"""People and programs beside the workers: who changes settings, who brings new weights, who looks on."""

from __future__ import annotations

import asyncio
import contextlib
from random import Random
from typing import Any

import numpy as np

from gradserve.errors import GradserveError, RunDeleted, ServerUnreachable
from gradserve.flows import RunKey, configure_flow, delete_flow, pull_flow
from gradserve.messages import Flow, Headers, Request, Response, ask
from gradserve.wire import MEDIA_TYPE, encode_frame

from .ledger import Ledger
from .network import Client
from .workers import RUN


class Operator:
    """Changes the learning rate, pauses and resumes, replaces the weights; every change with a key of its own."""

    def __init__(self, client: Client, ledger: Ledger, random: Random, *, no_copies: bool) -> None:
        self._client, self._ledger, self._random = client, ledger, random
        self._no_copies = no_copies  # the network delivers what is sent once at most once
        self._changes = 0
        self._numbers = np.random.default_rng(random.getrandbits(63))

    async def change(self) -> None:
        """One change of some kind. A refusal ends it: somebody was faster, or the run has no weights."""
        description = await self._client.run(described())
        if description is None or not description["initialised"]:
            return
        run = RunKey(RUN, description["uid"])
        kind = self._random.choice(("lr", "if-match", "keyed", "pause", *(["bare"] * 4 if self._no_copies else [])))
        try:
            if kind == "lr":
                await self._client.run(configure_flow(run, {"optimizer": {"lr": self._lr()}}, self._key(run)))
            elif kind == "pause":
                await self._client.run(configure_flow(run, {"state": "paused"}, self._key(run)))
                await asyncio.sleep(self._random.uniform(0.0, 1.0))
            else:
                await self._replace_weights(run, kind)
        except GradserveError as error:
            if isinstance(error, ServerUnreachable):
                raise
        if kind == "pause":
            await self.resume(run)

    async def delete(self) -> None:
        """Delete the run; the workers make it anew. That somebody was faster is as good."""
        description = await self._client.run(described())
        if description is not None:
            run = RunKey(RUN, description["uid"])
            self._ledger.deletions.append(run.uid)
            await self._client.run(delete_flow(run))

    async def resume(self, run: RunKey) -> None:
        """Take care that the run is not left paused."""
        with contextlib.suppress(RunDeleted):
            await self._client.run(configure_flow(run, {"state": "running"}, self._key(run)))

    async def settle(self) -> None:
        """After all faults: a pause may have outlived the loss of its resume."""
        description = await self._client.run(described())
        if description is not None and description["state"] != "running":
            await self.resume(RunKey(RUN, description["uid"]))

    async def _replace_weights(self, run: RunKey, kind: str) -> None:
        """New weights, repeated until they are answered; bare ones (no key, no condition) are sent once."""
        held = await self._client.run(pull_flow(run))
        vector = self._numbers.standard_normal(held.layout.parameters).astype(np.float32)
        headers: Headers = (("Content-Type", MEDIA_TYPE), ("Accept", "application/json"), *run.guard)
        if kind == "keyed":
            headers += (("Idempotency-Key", self._key(run)),)
        elif kind == "if-match":
            headers += (("If-Match", held.etag),)
        request = Request("PUT", f"{run.path}/weights", headers, tuple(encode_frame(held.layout, vector)))
        if kind != "bare":
            await self._client.run(ask(request))
            return
        with contextlib.suppress(ServerUnreachable):
            await self._client.send(request)

    def _lr(self) -> float:
        return round(self._random.uniform(0.001, 0.1), 6)

    def _key(self, run: RunKey) -> str:
        self._changes += 1
        key = f"{self._client.name}-{self._changes}"
        self._ledger.keys[key] = run.uid
        return key


def described() -> Flow[dict[str, Any] | None]:
    """GET run; None when it is not there yet."""
    response: Response = yield from ask(Request("GET", f"/v1/runs/{RUN}", (("Accept", "application/json"),)))
    return response.json() if response.status == 200 else None


class Reader:
    """Looks at the run now and then; believes nothing but what it is told. What it was shown is checked at the end."""

    def __init__(self, client: Client, random: Random) -> None:
        self._client, self._random = client, random
        self._etag: str | None = None

    async def look(self) -> None:
        """One look: mostly at the weights."""
        if self._random.random() < 0.7:
            await self._look_at_weights()
        else:
            last = f"/workers/worker0/pushes/{self._random.randint(1, 12)}"
            await self._get(self._random.choice(("", "/workers", "/optimizer-state", last)))

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
        try:
            return await self._client.send(Request("GET", f"/v1/runs/{RUN}{path}", headers, wait_seconds=wait_seconds))
        except ServerUnreachable:
            return None
