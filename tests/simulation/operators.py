"""People and programs beside the workers: who changes settings, brings new weights, evaluates, keeps states and goes
back to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

import numpy as np

from gradserve.checkpoints import (
    branch_flow,
    checkpoints_flow,
    delete_checkpoint_flow,
    restore_flow,
    save_checkpoint_flow,
)
from gradserve.errors import GradserveError, RunDeleted, ServerUnreachable, ValidationError
from gradserve.flows import RunKey, configure_flow, delete_flow, pull_flow
from gradserve.messages import Flow, Headers, Request, Response, ask
from gradserve.records import report_flow
from gradserve.wire import MEDIA_TYPE, encode_frame

from .ledger import Ledger
from .network import Client
from .workers import RUN

MONITORED = "validation_loss"  # what the schedule `reduce_on_plateau` of these runs follows
NAMES_OF_STATES = ("best", "last", "before-lunch")
BRANCHES_MAX = 2


class Operator:
    """Changes settings, replaces weights, reports, keeps states and goes back; every change with a key of its own."""

    def __init__(
        self, client: Client, ledger: Ledger, random: Random, *, no_copies: bool, batches: Sequence[dict[str, Any]] = ()
    ) -> None:
        self._client, self._ledger, self._random = client, ledger, random
        self._batches = (*batches, None) if batches else ()
        self._no_copies = no_copies  # the network delivers what is sent once at most once
        self._changes = self._branches = 0
        self._last_key: tuple[str, str] | None = None  # and the run that it was for
        self._numbers = np.random.default_rng(random.getrandbits(63))

    async def change(self) -> None:
        """One change of some kind. A refusal ends it: somebody was faster, or the run has no weights."""
        description = await self._client.run(described())
        if description is None or not description["initialised"]:
            return
        run = RunKey(RUN, description["uid"])
        changes: dict[str, Callable[[RunKey], Awaitable[None]]] = {
            "settings": self._change_settings, "pause": self._pause, "weights": self._replace_weights,
            "report": self._report, "keep": self._keep, "restore": self._restore, "branch": self._branch,
            "mistake": self._use_a_key_again,
        }  # fmt: skip
        kinds = tuple(changes) + ("weights",) * (5 if self._no_copies else 1) + ("report", "keep", "restore")
        kind = self._random.choice(kinds)
        try:
            await changes[kind](run)
        except GradserveError as error:
            if isinstance(error, ServerUnreachable):
                raise
        finally:
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
        with contextlib.suppress(RunDeleted, ValidationError):  # a mistaken program may have taken the key
            await self._client.run(configure_flow(run, {"state": "running"}, self._key(run)))

    async def close(self) -> None:
        """Close the run: from here on nothing may change it but reports."""
        description = await self._client.run(described())
        if description is None or not description["initialised"]:
            return
        run = RunKey(RUN, description["uid"])
        await self._client.run(configure_flow(run, {"state": "closed"}, self._key(run)))
        for refused in (self.resume, self._replace_weights, self._restore, self._change_settings):
            with contextlib.suppress(GradserveError):
                await refused(run)
        await self._report(run)

    async def settle(self) -> None:
        """After all faults: a pause may have outlived the loss of its resume."""
        description = await self._client.run(described())
        if description is not None and description["state"] != "running":
            await self.resume(RunKey(RUN, description["uid"]))

    async def _change_settings(self, run: RunKey) -> None:
        """Another rate, or other groups."""
        group = {"name": "half", "match": [self._random.choice(("dense*", "bias"))], "lr_scale": 0.5,
                 "frozen": self._random.random() < 0.3}  # fmt: skip
        changes: tuple[dict[str, Any], ...] = ({"optimizer": {"lr": self._lr()}}, {"groups": [group]}, {"groups": []},
                                              *({"accumulate": batch} for batch in self._batches))  # fmt: skip
        await self._client.run(configure_flow(run, self._random.choice(changes), self._key(run)))

    async def _pause(self, run: RunKey) -> None:
        await self._client.run(configure_flow(run, {"state": "paused"}, self._key(run)))
        await asyncio.sleep(self._random.uniform(0.0, 1.0))

    async def _report(self, run: RunKey) -> None:
        """An evaluation: better than the last, or not."""
        values = {MONITORED: round(self._random.uniform(0.1, 2.0), 6), "accuracy": self._random.random()}
        await self._client.run(report_flow(run, values, None, self._key(run)))

    async def _keep(self, run: RunKey) -> None:
        """Keep the state under a name, which may be taken; now and then drop one, or import one from outside."""
        name = self._random.choice(NAMES_OF_STATES)
        what = self._random.random()
        if what < 0.15:
            await self._client.run(delete_checkpoint_flow(run, name))
            return
        content: tuple[bytes | memoryview, ...] = ()
        if what > 0.85:
            held = await self._client.run(pull_flow(run))
            vector = self._numbers.standard_normal(held.layout.parameters).astype(np.float32)
            content = tuple(encode_frame(held.layout, vector))
        await self._client.run(save_checkpoint_flow(run, name, content, self._key(run)))

    async def _restore(self, run: RunKey) -> None:
        """Go back to a kept state, or to a version of a while ago."""
        description = await self._client.run(described())
        if description is None or not description["initialised"]:
            return
        version = max(0, description["version"] - self._random.randint(0, 5))
        name = await self._kept(run) if self._random.random() < 0.6 else None
        await self._client.run(restore_flow(run, name, version if name is None else None, self._key(run)))

    async def _branch(self, run: RunKey) -> None:
        """Another run, from a kept state; asked for again and again until it is there."""
        state = await self._kept(run)
        if self._branches == BRANCHES_MAX or state is None:
            return
        self._branches += 1
        name, settings = f"{RUN}-branch{self._branches}", {"staleness": {"name": "none"}}
        opened = await self._client.run(branch_flow(run, name, state, settings, self._key(run)))
        self._ledger.branched.append(opened.key.uid)

    async def _kept(self, run: RunKey) -> str | None:
        """The name of a checkpoint that was there a moment ago."""
        listed = await self._client.run(checkpoints_flow(run))
        return str(self._random.choice(listed)["name"]) if listed else None

    async def _use_a_key_again(self, run: RunKey) -> None:
        """A program with a mistake: the key of its last change comes with another one."""
        if self._last_key is not None and self._last_key[1] == run.uid:
            report = report_flow(run, {"mistaken": 1.0}, None, self._last_key[0])
            await self._client.run(report)

    async def _replace_weights(self, run: RunKey) -> None:
        """New weights, repeated until they are answered; bare ones (no key, no condition) are sent once."""
        kind = self._random.choice(("if-match", "keyed", *(["bare"] * 4 if self._no_copies else [])))
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
            await self._client.attempt(request)

    def _lr(self) -> float:
        return round(self._random.uniform(0.001, 0.1), 6)

    def _key(self, run: RunKey) -> str:
        self._changes += 1
        key = f"{self._client.name}-{self._changes}"
        self._ledger.keys[key] = run.uid
        self._last_key = (key, run.uid)
        return key


def described() -> Flow[dict[str, Any] | None]:
    """GET run; None when it is not there yet."""
    response: Response = yield from ask(Request("GET", f"/v1/runs/{RUN}", (("Accept", "application/json"),)))
    return response.json() if response.status == 200 else None
