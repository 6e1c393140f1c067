"""Removing from Redis, in steps that hold it for about a millisecond: trimmed entries, deleted runs."""

from __future__ import annotations

import contextlib

from .reading import readable
from .records import ObjectRef
from .redis_keys import (
    DELETING,
    checkpoint_record,
    checkpoints_key,
    chunk_keys,
    journal_key,
    objects_key,
    run_key,
    snapshot_record,
)
from .redis_link import Link
from .redis_scripts import PURGE, PURGE_END, TRIM

STEP_ENTRIES = 256  # entries a step of trim
STEP_CHUNKS = 512  # chunks a step removes, unless one object alone has more
DELETED_MARK_SECONDS = 30 * 24 * 3600  # a server that slept longer is told "lost" instead of "deleted"


async def trim(link: Link, uid: str) -> int:
    """Remove entries and their objects up to the previous snapshot's position; answers how many entries."""
    previous, trimmed = await link.call("HMGET", run_key(uid), "previous", "trimmed")
    if previous is None:
        return 0
    fallback = snapshot_record(previous)
    if not fallback.sound:
        return 0
    with readable("how far the journal was trimmed"):
        target, done, removed = fallback.position, int(trimmed or b"0"), 0
    while done < target:
        upto = min(target, done + STEP_ENTRIES)
        reply = await link.call("ZRANGEBYSCORE", objects_key(uid), f"({done}", str(upto), "WITHSCORES")
        with readable("the list of objects"):
            named = [
                (ObjectRef.parse(ref.decode()), int(score)) for ref, score in zip(reply[::2], reply[1::2], strict=True)
            ]
        upto = step_end(named, upto)
        refs = [ref for ref, position in named if position <= upto]
        keys = [run_key(uid), journal_key(uid), objects_key(uid)]
        arguments = [str(upto)]
        for ref in refs:
            keys += chunk_keys(uid, ref)
            arguments += [str(ref), str(ref.chunks)]
        count = await link.run(TRIM, keys, arguments)
        if count < 0:  # deleted meanwhile
            break
        removed += count
        done = upto
    return removed


def step_end(named: list[tuple[ObjectRef, int]], upto: int) -> int:
    """Where a step ends: before `upto` if the objects (with their positions) up to there have too many chunks."""
    chunks, before = 0, 0
    for ref, position in named:
        chunks += ref.chunks
        if chunks > STEP_CHUNKS and before:
            return before
        before = position
    return upto


async def purge(link: Link, uid: str) -> None:
    """Remove all keys of a run that is marked deleted. May be interrupted anywhere, and run twice at once."""
    run, objects = run_key(uid), objects_key(uid)
    while refs := await link.call("ZRANGE", objects, "0", "63"):
        if not await _purge_objects(link, uid, refs):
            return
    snapshots = await link.call("HMGET", run, "newest", "previous")
    images = [snapshot_record(text).object for text in snapshots if text is not None]  # of damaged ones what is known
    if images and not await _purge_objects(link, uid, [str(ref).encode() for ref in images]):
        return
    kept = await link.call("HGETALL", checkpoints_key(uid))
    for text in kept[1::2]:
        if not await _purge_objects(link, uid, [str(checkpoint_record("", text).object).encode()]):
            return
    keys = (run, objects, journal_key(uid), DELETING, checkpoints_key(uid))
    await link.run(PURGE_END, keys, (uid, str(DELETED_MARK_SECONDS)))


async def _purge_objects(link: Link, uid: str, refs: list[bytes]) -> bool:
    """By their texts: what a damaged one stands for nobody knows, it goes from the list alone."""
    keys = [run_key(uid), objects_key(uid)]
    for ref in refs:
        with contextlib.suppress(ValueError):
            keys += chunk_keys(uid, ObjectRef.parse(ref.decode()))
    return bool(await link.run(PURGE, keys, refs))
