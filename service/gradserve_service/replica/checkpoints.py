"""A run's checkpoints: frozen by its task as a snapshot is, written beside it, answered when they are kept."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradserve.problems import Refused, refuse
from gradserve.wire import decode_frame

from ..core.checkpoint import SavedState, decode_checkpoint, encode_checkpoint, imported_state, saved_state
from ..core.gradient import non_finite_tensors
from ..core.image import image_digest
from ..core.machine import whole_layout
from ..store.protocols import Store
from ..store.records import CheckpointRecord, ObjectRef
from .budget import Budget
from .recovery import State, Workshop
from .snapshots import freeze, removed_if_full

CHECKPOINTS_MAX = 1_000  # of a run: all are listed at once

Look = Callable[[Callable[[State], Any]], Awaitable[Any]]


@dataclass(slots=True)
class Checkpoints:
    """Named states of one run. Each is the only owner of its object."""

    uid: str
    store: Store
    shop: Workshop
    budget: Budget
    now: Callable[[], int]  # milliseconds
    look: Look  # at the run's state, between two entries
    store_errors: Callable[[], contextlib.AbstractContextManager[None]]
    tell: Callable[[Mapping[str, Any], int], None]  # whoever watches: an item, and when it was made
    _turn: asyncio.Lock = field(
        default_factory=asyncio.Lock
    )  # one is written at a time: each holds a copy of the slots

    async def listed(self) -> list[dict[str, Any]]:
        """All of them, by name, without those whose record is damaged."""
        return [_item(record) for record in await self._records() if record.sound]

    async def create(self, name: str) -> tuple[dict[str, Any], bool]:
        """Keep the present state under a name. A name that is taken is answered as it is (False)."""

        async def present() -> SavedState:
            frozen = await self.look(_frozen)
            return saved_state(frozen.control, frozen.arrays)

        return await self._created(name, present)

    async def upload(self, name: str, body: bytes | memoryview) -> tuple[dict[str, Any], bool]:
        """Keep a state from outside, a safetensors file, under a name; the run itself stays as it is."""

        async def from_outside() -> SavedState:
            spec, layout = await self.look(lambda state: (state.control.spec.canonical(), state.control.layout))
            saved = await self.shop.run(len(body) // 4, lambda _: _imported(body, spec))
            if layout is not None and (refusal := whole_layout(layout, saved.layout)):
                raise Refused(refusal)
            return saved

        return await self._created(name, from_outside)

    async def _created(self, name: str, state: Callable[[], Awaitable[SavedState]]) -> tuple[dict[str, Any], bool]:
        async with self._turn:
            records = await self._records()
            for record in records:
                if record.name == name:
                    _require_sound(record)
                    return _item(record), False
            if len(records) >= CHECKPOINTS_MAX:
                detail = f"the run has {CHECKPOINTS_MAX} checkpoints, as many as it may: delete one first"
                raise refuse("quota-exceeded", detail, checkpoints_max=CHECKPOINTS_MAX)
            saved = await state()
            with self.store_errors():
                ref, about = await self._written(saved)
                record = CheckpointRecord(name, ref, self.now(), about)
                async with removed_if_full(self.store, self.uid, ref):
                    kept = await self.store.keep_checkpoint(self.uid, record)
                if kept is not None and kept.object != ref:  # another server was first
                    await self.store.discard_object(self.uid, ref)
        if kept is None:
            raise refuse("store-unavailable", "the store lost a part of the checkpoint: send the same again")
        created = kept.object == ref
        if created:
            self.tell(_item(kept), kept.created_at)
        return _item(kept), created

    async def _written(self, saved: SavedState) -> tuple[ObjectRef, bytes]:
        """The object, and what the list says of it."""
        pieces = encode_checkpoint(saved)
        digest = await self.shop.run(saved.size // 4, lambda _: image_digest(pieces))
        about = {
            "version": saved.version,
            "step": saved.step,
            "position": saved.position,
            "etag": saved.etag,
            "digest": digest,
        }
        return await self.store.put_object(self.uid, pieces), json.dumps(about).encode()

    @contextlib.asynccontextmanager
    async def file(self, name: str) -> AsyncIterator[tuple[dict[str, Any], memoryview]]:
        """What the list says of a checkpoint, and its bytes, verified. They count as held while the block runs."""
        record = next((each for each in await self._records() if each.name == name), None)
        if record is None:
            raise _unknown(name)
        _require_sound(record)
        with self.budget.hold(record.object.size):
            try:
                with self.store_errors():
                    file = await self.store.get_object(self.uid, record.object)
            except KeyError:
                raise refuse("checkpoint-not-found", f"checkpoint '{name}' was deleted meanwhile, or is lost") from None
            digest = await self.shop.run(len(file) // 4, lambda _: image_digest([file]))
            if digest != json.loads(record.about)["digest"]:
                raise _damaged(name)
            yield _item(record), file

    @contextlib.asynccontextmanager
    async def state(self, name: str) -> AsyncIterator[SavedState]:
        """The state in a checkpoint; the arrays are views of its bytes."""
        async with self.file(name) as (_, file):
            yield decode_checkpoint(file)

    async def delete(self, name: str) -> None:
        """Remove a checkpoint and its object."""
        with self.store_errors():
            dropped = await self.store.drop_checkpoint(self.uid, name)
        if not dropped:
            raise _unknown(name)

    async def _records(self) -> Sequence[CheckpointRecord]:
        with self.store_errors():
            return await self.store.checkpoints(self.uid)


def _unknown(name: str) -> Refused:
    return refuse("checkpoint-not-found", f"the run has no checkpoint '{name}': list them with GET …/checkpoints")


def _damaged(name: str) -> Refused:
    return refuse("checkpoint-not-found", f"checkpoint '{name}' is damaged in the store: delete it, use another one")


def _require_sound(record: CheckpointRecord) -> None:
    if not record.sound:
        raise _damaged(record.name)


def _item(record: CheckpointRecord) -> dict[str, Any]:
    said = json.loads(record.about)
    del said["digest"]
    return {"name": record.name, **said, "bytes": record.object.size, "created_at": record.created_at}


def _frozen(state: State) -> State:
    if not state.control.initialised:
        raise refuse("weights-uninitialised", "the run has no weights yet: PUT …/weights first")
    return freeze(state)


def _imported(body: bytes | memoryview, spec: dict[str, Any]) -> SavedState:
    frame = decode_frame(body)
    if bad := non_finite_tensors(frame, squares=False):
        raise refuse("validation-error", f"expected finite numbers, NaN or Infinity came in {', '.join(bad)}")
    return imported_state(frame, spec)
