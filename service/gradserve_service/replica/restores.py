"""Whole states that become a run's: a rollback to a checkpoint or an older version, the beginning of a branch.

Each is a `load` entry that brings its own payload, weights and then slots: whatever it was made of may be deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gradserve.problems import Refused, Rejection, refuse
from gradserve.wire import Frame

from ..core.checkpoint import SavedState, payload_frame, saved_state
from ..core.machine import Look, Restore, Verdict, repeated
from ..limits import Limits
from ..store.records import ObjectRef
from .budget import Budget
from .checkpoints import Checkpoints
from .recovery import State, Workshop
from .sequencer import Proposal, Sequencer


@dataclass(slots=True)
class Restores:
    """What gives one run a state that it did not reach by updates."""

    sequencer: Sequencer
    shop: Workshop
    limits: Limits
    budget: Budget
    new_key: Callable[[], str]
    upload: Callable[[Frame], Awaitable[tuple[ObjectRef, float]]]
    store_errors: Callable[[], contextlib.AbstractContextManager[None]]

    async def from_checkpoint(self, checkpoints: Checkpoints, name: str, key: str | None) -> dict[str, Any]:
        """Go back to a checkpoint; answers where the run stands then. The version goes on rising."""
        if (known := await self._repeated(key)) is not None:
            return known
        async with checkpoints.state(name) as saved:
            return await self.adopt(saved, {"checkpoint": name}, key=key)

    async def from_version(self, version: int, key: str | None) -> dict[str, Any]:
        """Go back to a version that can be rebuilt. Raises `version-not-kept` with the range that can."""
        if (known := await self._repeated(key)) is not None:
            return known
        with self.budget.hold(self.sequencer.state_bytes):  # a second state, beside the run's own
            return await self.adopt(await self._rebuilt(version), {"version": version}, key=key)

    async def adopt(
        self, saved: SavedState, source: Mapping[str, Any], *, first_only: bool = False, key: str | None = None
    ) -> dict[str, Any]:
        """Make a saved state the run's, by an entry that carries it. `first_only`: only if there are no weights yet."""
        frame = await self.shop.run(saved.size // 4, lambda _: _digested(payload_frame(saved)))
        request = Restore(
            layout=saved.layout,
            slots=tuple(saved.slots),
            step=saved.step,
            memory=saved.memory,
            plateau=saved.plateau,
            updates=saved.updates,
            samples_seen=saved.samples_seen,
            schedule=saved.spec["schedule"],
            source=source,
            digest=frame.digest,
            size=frame.size,
            first_only=first_only,
            idempotency_key=key or self.new_key(),
        )
        place = None
        if frame.size > self.limits.inline_payload_bytes_max:
            place, _ = await self.upload(frame)  # before the queue: nobody's push waits for it
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        standing: dict[str, Any] = await self._propose(Proposal(request, answer, frame, object=place, look=_standing))
        return standing

    async def _repeated(self, key: str | None) -> dict[str, Any] | None:
        """The answer to a request that was carried out before, without reading what it asks for again."""
        look = Proposal(Look(), asyncio.get_running_loop().create_future(), look=lambda state: _known(state, key))
        known: dict[str, Any] | None = await self._propose(look)
        return known

    async def _propose(self, proposal: Proposal) -> Any:
        verdict = await self.sequencer.propose(proposal)
        if isinstance(verdict, Rejection):
            raise Refused(verdict)
        return proposal.seen

    async def _rebuilt(self, version: int) -> SavedState:
        with self.store_errors():
            found = await self.sequencer.rebuild(version)
        if isinstance(found, State):
            return saved_state(found.control, found.arrays)
        newest = None if self.sequencer.published is None else self.sequencer.published.version
        kept = "there is none" if newest is None else f"{found} to {newest} can"
        raise refuse(
            "version-not-kept",
            f"version {version} cannot be restored, {kept}; checkpoints can until they are deleted",
            oldest=None if newest is None else found,
            newest=newest,
        )


def _standing(state: State) -> dict[str, Any]:
    control = state.control
    return {
        "version": control.version,
        "etag": control.etag,
        "step": control.step,
        "position": control.position,
    }


def _known(state: State, key: str | None) -> dict[str, Any] | None:
    """Raises `Refused` where the key belongs to another request."""
    known = repeated(state.control, "restore", key)
    if isinstance(known, Rejection):
        raise Refused(known)
    return None if known is None else _standing(state)


def _digested(frame: Frame) -> Frame:
    _ = frame.digest  # cached in the frame
    return frame
