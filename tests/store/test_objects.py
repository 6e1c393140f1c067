"""Objects: large payloads and images, written before the entry that names them."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from gradserve_service.store.records import OBJECT_CHUNK_BYTES, Appended, ObjectRef, ObjectsMissing
from store.chains import ANY_BYTES, Chain, kept_objects, lose_object, records, shorten_object

Harm = Callable[[str, str, ObjectRef], Awaitable[None]]


@pytest.mark.parametrize("size", [0, 1, OBJECT_CHUNK_BYTES - 1, OBJECT_CHUNK_BYTES, OBJECT_CHUNK_BYTES + 1, 9 << 20])
async def test_an_object_is_read_back_byte_for_byte(chain: Chain, size: int) -> None:
    """Around the borders of a chunk, and over several."""
    content = random.Random(size).randbytes(size)
    ref = await chain.store.put_object("u1", [content])
    assert ref.size == size
    assert await chain.store.get_object("u1", ref) == content


async def test_an_object_is_written_from_pieces(chain: Chain) -> None:
    """A header, then views into a vector: nobody joins them before."""
    body = os.urandom(5 << 20)
    pieces = [b"header", b"", memoryview(body)[:3_000_000], memoryview(body)[3_000_000:], ANY_BYTES]
    ref = await chain.store.put_object("u1", pieces)
    assert await chain.store.get_object("u1", ref) == b"header" + body + ANY_BYTES


async def test_a_piece_of_another_type_counts_in_bytes(chain: Chain) -> None:
    """A float32 view of 3 elements is 12 bytes."""
    ref = await chain.store.put_object("u1", [memoryview(bytes(12)).cast("f")])
    assert ref.size == 12
    assert await chain.store.get_object("u1", ref) == bytes(12)


async def test_every_attempt_to_write_an_object_has_its_own_id(chain: Chain) -> None:
    """A repeated upload can never touch an object that an entry names."""
    assert len({(await chain.object(b"same")).id for _ in range(5)}) == 5


async def test_an_object_is_read_into_one_aligned_buffer(chain: Chain) -> None:
    """A frame in it is used without a copy."""
    content = await chain.store.get_object("u1", await chain.object(bytes(1000)))
    assert content.readonly
    assert np.frombuffer(content, np.uint8).ctypes.data % 64 == 0


async def test_an_entry_names_its_object(chain: Chain) -> None:
    """The reference is read back with the entry."""
    ref = await chain.object(b"gradient")
    await chain.put(b"inline", ref)
    assert (await chain.read())[1].object == ref


@pytest.mark.parametrize("harm", [lose_object, shorten_object])
async def test_an_entry_whose_object_is_not_complete_is_not_appended(chain: Chain, store_url: str, harm: Harm) -> None:
    """Each is named, so that the server can upload it again from the body it holds."""
    whole, first, second = [await chain.object(os.urandom(5 << 20)) for _ in range(3)]
    await harm(store_url, "u1", first)
    await harm(store_url, "u1", second)
    entries = records(chain.head, [first, whole, second, b"inline"])
    assert await chain.store.append("u1", chain.head, entries) == ObjectsMissing((first.id, second.id))
    assert await chain.read() == []
    again = [await chain.object(b"again") for _ in range(2)]
    await chain.put(again[0], whole, again[1])


@pytest.mark.parametrize("harm", [lose_object, shorten_object])
async def test_reading_an_object_with_a_missing_part_fails_loudly(chain: Chain, store_url: str, harm: Harm) -> None:
    """Never half an image."""
    ref = await chain.object(os.urandom(5 << 20))
    await harm(store_url, "u1", ref)
    with pytest.raises(KeyError, match=ref.id):
        await chain.store.get_object("u1", ref)
    assert await chain.store.head("u1") == chain.head  # and the store is as usable as before


async def test_an_object_that_never_was_is_missing(chain: Chain) -> None:
    """Of the right form, but unknown."""
    unknown = ObjectRef("0" * 32, 10)
    with pytest.raises(KeyError):
        await chain.store.get_object("u1", unknown)
    assert await chain.store.append("u1", chain.head, records(chain.head, [unknown])) == ObjectsMissing((unknown.id,))


async def test_a_discarded_object_is_gone(chain: Chain, store_url: str) -> None:
    """Discarding twice is no error."""
    ref = await chain.object(os.urandom(5 << 20))
    await chain.store.discard_object("u1", ref)
    await chain.store.discard_object("u1", ref)
    assert await kept_objects(store_url, "u1") == set()


async def test_one_object_may_be_named_by_several_entries(chain: Chain) -> None:
    """Two restores of one checkpoint."""
    image = await chain.object(b"checkpoint")
    await chain.put(image)
    await chain.put(b"between", image)
    assert [entry.object for entry in await chain.read()] == [image, None, image]


async def test_an_append_of_an_object_leaves_other_runs_objects_alone(chain: Chain) -> None:
    """Ids are looked up inside the run."""
    other = await Chain.create(chain.store, "other", "u2")
    ref = await other.object(b"theirs")
    result = await chain.store.append("u1", chain.head, records(chain.head, [ref]))
    assert result == ObjectsMissing((ref.id,))
    assert await chain.store.append("u2", other.head, records(other.head, [ref])) == Appended()
