"""Workers without the SDK: loops around curl, with what their authors left out.

    plain         no `after`, no generation, sometimes no base; repeats the same bytes until they are answered
    recomputing   each attempt brings a newly computed gradient under the same sequence; sends `after`, no generation
    visiting      as plain, always with a base; comes for a push or two and leaves for good

The API promises less to who says less. What is promised to all: no gradient twice, and what is acknowledged stays.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from random import Random
from typing import Any, Literal

import numpy as np

from gradserve.errors import ServerUnreachable
from gradserve.messages import Request, Response
from gradserve.weights import Weights
from gradserve.wire import frame_from_json

from .ledger import Gradient, Ledger
from .network import Client
from .workers import ITEMS_AFTERWARDS, RUN, THINK_SECONDS, Settlement, gradient_of

JSON = (("Content-Type", "application/json"),)
Habit = Literal["plain", "recomputing", "visiting"]


class ScriptWorker:
    """One loop around curl. It is never killed; nothing fences it."""

    def __init__(
        self, name: str, habit: Habit, seed: str, ledger: Ledger, settlement: Settlement, client: Client
    ) -> None:
        self.name = name
        self._habit, self._ledger, self._settlement, self._client = habit, ledger, settlement, client
        self._random = Random(f"{seed} {name}")
        self._numbers = np.random.default_rng(self._random.getrandbits(63))
        self._sequence = 1
        self._receipt: str | None = None
        self._item = 1
        self._says_base = habit != "plain" or self._random.random() < 0.6
        self._path = f"/v1/runs/{RUN}/workers/{name}"
        settlement.enter(name)

    async def work(self) -> None:
        """Push until the faults are over, and a few more."""
        if self._habit == "recomputing":
            await self._look()
        left = ITEMS_AFTERWARDS
        while left:
            await self._push_one()
            left -= self._settlement.faults_over.is_set()
        if self._habit == "plain":
            await self._insist("DELETE", f"{self._path}?next_sequence={self._sequence}")
        self._settlement.done(self.name)

    async def visit(self) -> None:
        """One push or two, and away for good."""
        for _ in range(self._random.randint(1, 2)):
            await self._push_one()
        await self._insist("DELETE", f"{self._path}?next_sequence={self._sequence}", gone_is_done=True)
        self._settlement.done(self.name)

    async def _push_one(self) -> None:
        """One item, under one sequence. The plain script gives a gradient up when it is refused: under another
        sequence it could be applied twice."""
        base = await self._pull()
        await asyncio.sleep(self._random.expovariate(1 / THINK_SECONDS))
        body, digest = self._computed(base)
        while True:
            response = await self._attempt("PUT", f"{self._path}/pushes/{self._sequence}", body)
            if response is not None and response.status < 500 and response.status != 429:
                code = "" if response.status == 200 else response.json()["code"]
                if code not in ("run-paused", "run-deleted", "weights-uninitialised"):
                    break
            await asyncio.sleep(self._random.uniform(0.1, 1.0))
            if self._habit == "recomputing":
                base = await self._pull()
                body, digest = self._computed(base)
        await self._settled(response, code, digest)

    async def _settled(self, response: Response, code: str, digest: str) -> None:
        answer = response.json()
        if not code:
            self._ledger.acknowledged(digest, answer["outcome"])
            self._sequence, self._receipt = answer["next_sequence"], answer["receipt"]
            self._item += 1
            return
        if code == "history-rewound":
            self._ledger.notice(self.name, None, "rewound")
        if code != "stale-gradient":
            assert code in ("history-rewound", "sequence-reused"), f"{self.name} was told {code}"
            self._sequence = answer["next_sequence"]
            if self._habit == "recomputing":
                await self._look()

    async def _look(self) -> None:
        """Register, to be told where the run stands. Always the same instance: this never fences anybody."""
        response = await self._insist("PUT", self._path, {"instance": self.name})
        row = response.json()
        self._sequence, self._receipt = row["next_sequence"], row["receipt"]
        self._ledger.notice(self.name, None, "registered")

    def _computed(self, base: Weights) -> tuple[dict[str, Any], str]:
        tensors = gradient_of(base.layout, self._numbers, partly=self._random.random() < 0.3)
        body: dict[str, Any] = {"gradients": {name: tensor.tolist() for name, tensor in tensors.items()}}
        if self._says_base:
            body |= {"base": base.etag, "base_version": base.version}
        if self._habit == "recomputing" and self._receipt is not None:
            body["after"] = self._receipt
        digest = frame_from_json(body["gradients"]).digest
        self._ledger.gradients[digest] = Gradient(
            digest, self.name, None, self._sequence, self._item,
            base.etag if self._says_base else None, base.vector.tobytes() if self._says_base else None,
            says_after=self._habit == "recomputing",
        )  # fmt: skip
        return body, digest

    async def _pull(self) -> Weights:
        while True:
            headers = (("Accept", "application/vnd.safetensors"),)
            response = await self._attempt("GET", f"/v1/runs/{RUN}/weights", headers=headers)
            if response is not None and response.status == 200:
                return Weights.of_response(response)
            await asyncio.sleep(self._random.uniform(0.1, 1.0))

    async def _insist(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, gone_is_done: bool = False
    ) -> Response:
        """The same request until it is answered; a refusal that says "not now" is no answer."""
        while True:
            response = await self._attempt(method, path, body)
            if response is not None and (response.status < 300 or (gone_is_done and response.status == 404)):
                return response
            if response is not None and response.status == 409 and response.json()["code"] == "history-rewound":
                self._ledger.notice(self.name, None, "rewound")
                return response
            await asyncio.sleep(self._random.uniform(0.1, 1.0))

    async def _attempt(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> Response | None:
        content = () if body is None else (json.dumps(body).encode(),)
        try:
            return await self._client.attempt(Request(method, path, (*headers, *(JSON if content else ())), content))
        except ServerUnreachable:
            return None
