"""Snapshots: published by compare-and-set, two kept, the journal trimmed behind the previous one."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

from gradserve_service.store.records import SnapshotRecord
from store.chains import Chain, kept_objects, lose_object, record, shorten_object


async def test_a_run_starts_without_snapshots(chain: Chain) -> None:
    """Recovery then starts from genesis."""
    assert await chain.store.snapshots("u1") == []


async def test_the_two_newest_snapshots_are_kept(chain: Chain, store_url: str) -> None:
    """Newest first; the image before the previous is removed with its record."""
    await chain.put(*(b"%d" % n for n in range(5)))
    published = [await chain.publish(position, os.urandom(5 << 20)) for position in (0, 1, 3, 5)]
    assert await chain.store.snapshots("u1") == [published[3], published[2]]
    assert await kept_objects(store_url, "u1") == {published[3].object.id, published[2].object.id}


async def test_a_stale_snapshotter_cannot_turn_the_pointer_back(chain: Chain) -> None:
    """It was paused while others published, and wakes with an older image, or with an old belief."""
    await chain.put(*(b"%d" % n for n in range(5)))
    late = await chain.image(2)
    first = await chain.publish(1)
    second = await chain.publish(4)
    newer = await chain.image(5)
    assert not await chain.store.publish("u1", first, late)  # believes that `first` is the newest
    assert not await chain.store.publish("u1", second, late)  # knows the newest, but is older than it
    assert not await chain.store.publish("u1", None, newer)
    assert not await chain.store.publish("u1", first, newer)
    assert not await chain.store.publish("u1", second, replace(second, object=newer.object))  # not newer
    assert await chain.store.snapshots("u1") == [second, first]
    assert await chain.store.publish("u1", second, newer)


async def test_a_damaged_snapshot_is_replaced_and_the_good_one_before_it_stays(chain: Chain, store_url: str) -> None:
    """What is known to be damaged must not be what recovery falls back to; its image goes with it."""
    await chain.put(*(b"%d" % n for n in range(5)))
    good, bad, new = await chain.publish(1), await chain.publish(3), await chain.image(5)
    assert await chain.store.publish("u1", bad, new, damaged=[bad])
    assert await chain.store.snapshots("u1") == [new, good]
    assert await chain.store.trim("u1") == 1
    again = await chain.image(5)
    assert await chain.store.publish("u1", new, again, damaged=[new, good])  # of the same position, alone
    assert await chain.store.snapshots("u1") == [again]
    assert await chain.store.trim("u1") == 0
    assert await kept_objects(store_url, "u1") == {again.object.id}


async def test_of_many_snapshotters_one_wins(chain: Chain, store_url: str) -> None:
    """The others discard what they wrote."""
    await chain.put(b"a", b"b")
    images = [await chain.image(position) for position in (1, 2) * 5]
    results = await asyncio.gather(*(chain.store.publish("u1", None, image) for image in images))
    assert sum(results) == 1
    assert await chain.store.snapshots("u1") == [images[results.index(True)]]


async def test_a_snapshot_of_another_history_is_refused(chain: Chain) -> None:
    """Its hash is not the journal's at that position: in the middle, at the head, at genesis, past the head."""
    await chain.put(b"a", b"b", b"c")
    for position in (0, 2, 3, 4):
        fork = SnapshotRecord(position, os.urandom(32), await chain.object(), "d")
        assert not await chain.store.publish("u1", None, fork)
    past = record(chain.head)
    assert not await chain.store.publish("u1", None, SnapshotRecord(4, past.hash, await chain.object(), "d"))
    assert await chain.store.snapshots("u1") == []


async def test_a_snapshot_whose_image_is_not_complete_is_refused(chain: Chain, store_url: str) -> None:
    """A chunk ran out while the snapshotter slept."""
    await chain.put(b"a")
    for harm in (lose_object, shorten_object):
        image = await chain.image(1, os.urandom(5 << 20))
        await harm(store_url, "u1", image.object)
        assert not await chain.store.publish("u1", None, image)
    assert await chain.store.snapshots("u1") == []


async def test_trim_waits_for_the_second_snapshot(chain: Chain) -> None:
    """A bad newest image falls back to the previous one and a longer replay."""
    await chain.put(*(b"%d" % n for n in range(6)))
    assert await chain.store.trim("u1") == 0
    await chain.publish(4)
    assert await chain.store.trim("u1") == 0
    await chain.publish(6)
    assert await chain.store.trim("u1") == 4
    assert await chain.store.trim("u1") == 0
    assert await chain.read() == chain.entries[4:]


async def test_trim_removes_entries_with_their_payloads(chain: Chain, store_url: str) -> None:
    """No object is left that nothing names, none is taken that something does."""
    objects = []
    for n in range(8):
        objects.append(await chain.object(os.urandom(5 << 20 if n == 2 else 100)))
        await chain.put(b"inline", objects[-1])
    previous, newest = await chain.publish(9), await chain.publish(16)
    assert await chain.store.trim("u1") == 9
    images = {previous.object.id, newest.object.id}
    assert await kept_objects(store_url, "u1") == images | {ref.id for ref in objects[4:]}
    for ref in objects[4:]:
        await chain.store.get_object("u1", ref)


async def test_a_long_trim_goes_in_steps(chain: Chain, store_url: str) -> None:
    """700 entries with objects between them; and again where the last one stopped."""
    for _ in range(7):
        await chain.put(*(b"%d" % n for n in range(99)), await chain.object())
    await chain.publish(650)
    await chain.publish(660)
    assert await chain.store.trim("u1") == 650
    await chain.publish(670)
    assert await chain.store.trim("u1") == 10
    assert await chain.read() == chain.entries[660:]
    assert len(await kept_objects(store_url, "u1")) == 2 + 1


async def test_reading_over_a_trimmed_range_shows_the_gap(chain: Chain) -> None:
    """There is no error: the reader sees that the first position is not the one it needs."""
    await chain.put(*(b"%d" % n for n in range(6)))
    await chain.publish(3)
    await chain.publish(5)
    await chain.store.trim("u1")
    assert (await chain.store.read("u1", after=1, limit=10))[0].position == 4


async def test_the_head_and_later_appends_survive_a_trim(chain: Chain) -> None:
    """Also when everything up to the newest entry could go."""
    await chain.put(b"a", b"b")
    await chain.publish(1)
    await chain.publish(2)
    await chain.store.trim("u1")
    assert await chain.store.head("u1") == chain.head
    await chain.put(b"c")
    assert await chain.read() == chain.entries[1:]


async def test_an_image_goes_only_when_nothing_names_it(chain: Chain, store_url: str) -> None:
    """Entry and snapshot share one: it outlives whichever goes first."""
    shared = await chain.object(b"image")
    await chain.put(shared, b"b", b"c", b"d", b"e")
    first = SnapshotRecord(1, chain.entries[0].hash, shared, "d")
    assert await chain.store.publish("u1", None, first)
    await chain.publish(2)
    await chain.store.trim("u1")  # takes the entry, leaves the snapshot
    assert shared.id in await kept_objects(store_url, "u1")
    assert await chain.store.get_object("u1", shared) == b"image"
    await chain.publish(3)  # takes the snapshot
    assert shared.id not in await kept_objects(store_url, "u1")


async def test_an_entry_keeps_the_image_of_a_dropped_snapshot(chain: Chain, store_url: str) -> None:
    """The other way round: the snapshot goes first."""
    shared = await chain.object(b"image")
    await chain.put(b"a", b"b", b"c", b"d", shared)
    for position, ref in ((1, shared), (2, None), (3, None)):
        newest = next(iter(await chain.store.snapshots("u1")), None)
        image = await chain.image(position)
        assert await chain.store.publish("u1", newest, replace(image, object=ref or image.object))
    assert shared.id in await kept_objects(store_url, "u1")
    assert await chain.store.get_object("u1", shared) == b"image"


async def test_an_image_of_the_newest_snapshot_outlives_an_old_entry(chain: Chain) -> None:
    """A checkpoint that was restored long ago, published again."""
    shared = await chain.object(b"image")
    await chain.put(shared, b"b", b"c")
    second = await chain.publish(2)
    assert await chain.store.publish("u1", second, replace(await chain.image(3), object=shared))
    assert await chain.store.trim("u1") == 2
    assert await chain.store.get_object("u1", shared) == b"image"


async def test_an_object_named_twice_goes_with_the_later_entry(chain: Chain, store_url: str) -> None:
    """Two restores of one checkpoint, with a trim between them."""
    image = await chain.object(b"checkpoint")
    await chain.put(image, b"b", b"c", image, b"e", b"f")
    await chain.publish(2)
    await chain.publish(5)
    await chain.store.trim("u1")
    assert await chain.store.get_object("u1", image) == b"checkpoint"
    await chain.publish(6)
    await chain.store.trim("u1")
    assert image.id not in await kept_objects(store_url, "u1")


async def test_two_servers_may_trim_at_once(chain: Chain) -> None:
    """Each entry is counted once."""
    await chain.put(*(b"%d" % n for n in range(600)))
    await chain.publish(580)
    await chain.publish(600)
    assert sum(await asyncio.gather(*(chain.store.trim("u1") for _ in range(4)))) == 580
    assert await chain.read() == chain.entries[580:]
