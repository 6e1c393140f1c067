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
from ..core.entries import ChainBroken
from ..core.machine import Look, Restore, Verdict, made, repeated
from ..core.repeats import Made
from ..limits import Limits
from ..store.protocols import Store
from ..store.records import ObjectRef
from .budget import Budget
from .checkpoints import Checkpoints
from .proposals import Proposal
from .recovery import Damaged, State, Workshop, rebuild
from .sequencer import Sequencer


@dataclass(slots=True)
class Restores:
    """What gives one run a state that it did not reach by updates."""

    sequencer: Sequencer
    store: Store
    shop: Workshop
    limits: Limits
    budget: Budget
    new_key: Callable[[], str]
    upload: Callable[[Frame], Awaitable[tuple[ObjectRef, float]]]
    store_errors: Callable[[], contextlib.AbstractContextManager[None]]

    async def from_checkpoint(self, checkpoints: Checkpoints, name: str, key: str | None) -> dict[str, Any]:
        """Go back to a checkpoint; answers where the run stands then. The version goes on rising."""
        source = {"checkpoint": name}
        if (known := await self._repeated(source, key)) is not None:
            return known
        async with checkpoints.state(name) as saved:
            return await self.adopt(saved, source, key=key)

    async def from_version(self, version: int, key: str | None) -> dict[str, Any]:
        """Go back to a version that can be rebuilt. Raises `version-not-kept` with the range that can."""
        source = {"version": version}
        if (known := await self._repeated(source, key)) is not None:
            return known
        with self.budget.hold(self.sequencer.state_bytes):  # a second state, beside the run's own
            return await self.adopt(await self._rebuilt(version), source, key=key)

    async def adopt(
        self, saved: SavedState, source: Mapping[str, Any], *, first_only: bool = False, key: str | None = None
    ) -> dict[str, Any]:
        """Make a saved state the run's, by an entry that carries it. `first_only`: only if there are no weights yet."""
        frame = await self.shop.run(saved.size // 4, lambda _: _digested(payload_frame(saved)))
        request = Restore(
            layout=saved.layout,
            slots=saved.slot_shapes,
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
            idempotency_key=key,
            own_key=self.new_key(),
        )
        place = None
        if frame.size > self.limits.inline_payload_bytes_max:
            place, _ = await self.upload(frame)  # before the queue: nobody's push waits for it
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        return _standing(made(await self._propose(Proposal(request, answer, frame, object=place))))

    async def _repeated(self, source: Mapping[str, Any], key: str | None) -> dict[str, Any] | None:
        """The answer to a request that was carried out before, without reading what it asks for again."""
        if key is None:
            return None
        look = Proposal(
            Look(), asyncio.get_running_loop().create_future(),
            look=lambda state: repeated(state.control, "restore", source, key),
        )  # fmt: skip
        await self._propose(look)
        if isinstance(look.seen, Rejection):
            raise Refused(look.seen)
        return None if look.seen is None else _standing(made(look.seen))

    async def _propose(self, proposal: Proposal) -> Verdict:
        verdict = await self.sequencer.propose(proposal)
        if isinstance(verdict, Rejection):
            raise Refused(verdict)
        return verdict

    async def _rebuilt(self, version: int) -> SavedState:
        with self.store_errors():
            found = await self._state_at(version)
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

    async def _state_at(self, version: int) -> State | int:
        """A second state of this run, as it was at a version; else the oldest version that can be had."""
        reason: Exception
        for _ in range(self.limits.crashes_max):
            try:
                return await rebuild(self.store, self.sequencer.run, version, self.shop, self.limits.catch_up_entries)
            except ChainBroken as error:
                reason = error  # the range was trimmed while we read
            except Damaged as error:
                reason = error
                break
        raise refuse("version-not-kept", f"version {version} cannot be rebuilt from the journal: {reason}")


def _standing(it: Made) -> dict[str, Any]:
    """Where the run stood behind the restore; by now it may be further."""
    return {"version": it.version, "etag": it.etag, "step": it.step, "position": it.position}


def _digested(frame: Frame) -> Frame:
    _ = frame.digest  # cached in the frame
    return frame
