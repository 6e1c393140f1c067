"""Commands as bytes: what redis-py would send, without its copies."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Connection

from gradserve_service.store.redis_packing import COPIED_BYTES_MAX, WRITE_BYTES_MAX, cut, pack


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8))
def test_a_command_is_packed_as_redis_py_packs_it(arguments: list[bytes]) -> None:
    """Except that redis-py splits its first argument at spaces."""
    arguments = [b"COMMAND", *arguments]
    assert b"".join(pack(*arguments)) == b"".join(Connection().pack_command(*arguments))


def test_text_is_sent_as_utf_8_and_counted_in_bytes() -> None:
    """A name may hold any letter."""
    assert pack("GET", "ä") == [b"*2\r\n$3\r\nGET\r\n$2\r\n\xc3\xa4\r\n"]


def test_a_large_value_is_not_copied() -> None:
    """It goes to the socket as views of the caller's buffer, in writes of a bounded size."""
    buffer = bytearray(COPIED_BYTES_MAX + WRITE_BYTES_MAX)
    pieces = pack("SET", "key", memoryview(buffer))
    views = [piece for piece in pieces if isinstance(piece, memoryview)]
    assert all(view.obj is buffer and view.nbytes <= WRITE_BYTES_MAX for view in views)
    assert sum(view.nbytes for view in views) == len(buffer)
    assert b"".join(pieces) == b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$%d\r\n%b\r\n" % (len(buffer), buffer)


@given(st.lists(st.binary(max_size=20), max_size=6), st.integers(1, 9))
def test_pieces_are_cut_into_values_of_one_size(pieces: list[bytes], size: int) -> None:
    """The last may be shorter; an empty object is one empty value."""
    values = [b"".join(value) for value in cut(pieces, size)]
    assert b"".join(values) == b"".join(pieces)
    assert all(len(value) == size for value in values[:-1])
    assert len(values) == max(1, -(-sum(map(len, pieces)) // size))
