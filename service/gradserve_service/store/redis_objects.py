"""Objects in Redis: chunks of 4 MiB under a random id, with a time to live until an append or a publish names them."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence

from xxhash import xxh3_128

from .buffers import aligned_buffer
from .protocols import StoreFull, StoreUnavailable
from .records import OBJECT_CHUNK_BYTES, ObjectRef
from .redis_keys import chunk_keys
from .redis_link import Link, Reply
from .redis_packing import Command, cut, pack

OBJECT_TTL_SECONDS = 900  # longer than a push waits for its turn and is decided again; then nobody will name it
READ_PIECE_BYTES = 512 << 10  # a reply this long is copied in 0.1 ms: the loop stays free


class RedisObjects:
    """put, get and discard over a link of their own, so that appends do not wait behind bulk."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def put(self, uid: str, pieces: Sequence[bytes | memoryview]) -> ObjectRef:
        """Raises StoreFull (nothing of it stays) and StoreUnavailable (the chunks written so far expire)."""
        ref = ObjectRef(secrets.token_hex(16), sum(memoryview(piece).nbytes for piece in pieces))
        expiry = str(OBJECT_TTL_SECONDS)

        def commands() -> Iterator[Command]:
            # NX: a repeat of this very command, run late, must not re-arm the expiry of a chunk that an entry names.
            for key, value in zip(chunk_keys(uid, ref), cut(pieces, OBJECT_CHUNK_BYTES), strict=True):
                yield pack("SET", key, value, "NX", "EX", expiry)

        try:
            await self._link.stream(commands(), _require_written)
        except StoreFull:
            # The memory that they fill would keep every run from its gradients until they expire.
            with contextlib.suppress(StoreUnavailable):
                await self.discard(uid, ref)
            raise
        return ref

    async def get(self, uid: str, ref: ObjectRef) -> memoryview:
        """Raises KeyError when any part is missing."""
        buffer = aligned_buffer(ref.size)

        def keep(start: int, piece: bytes) -> None:
            buffer[start : start + len(piece)] = piece

        await self._pieces(uid, ref, keep)
        return buffer.toreadonly()

    async def digest(self, uid: str, ref: ObjectRef) -> str:
        """xxh3-128 of all bytes, hex. Raises KeyError when any part is missing."""
        digest = xxh3_128()
        await self._pieces(uid, ref, lambda _, piece: digest.update(piece))
        return digest.hexdigest()

    async def _pieces(self, uid: str, ref: ObjectRef, keep: Callable[[int, bytes], None]) -> None:
        """Hand the object over in pieces, in order, each with the place where it begins."""
        spans = [
            (key, start, min(start + READ_PIECE_BYTES, end))
            for number, key in enumerate(chunk_keys(uid, ref))
            for base, end in [(number * OBJECT_CHUNK_BYTES, min((number + 1) * OBJECT_CHUNK_BYTES, ref.size))]
            for start in range(base, end, READ_PIECE_BYTES)
        ]

        def take(index: int, reply: Reply) -> None:
            _, start, stop = spans[index]
            if len(reply) != stop - start:
                raise KeyError(ref.id)
            keep(start, reply)

        commands = (
            pack("GETRANGE", key, str(start % OBJECT_CHUNK_BYTES), str((stop - 1) % OBJECT_CHUNK_BYTES))
            for key, start, stop in spans
        )
        await self._link.stream(commands, take)

    async def discard(self, uid: str, ref: ObjectRef) -> None:
        """UNLINK frees in the background: one command, however large the object."""
        await self._link.call("UNLINK", *chunk_keys(uid, ref))


def _require_written(index: int, reply: Reply) -> None:
    if reply is None:
        raise StoreUnavailable(f"chunk {index} of a new object was there already")
