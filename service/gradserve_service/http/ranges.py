"""Byte ranges (RFC 9110, 14): a download that broke off goes on where it was."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

__all__ = ["cut", "wanted_range"]

_ONE_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def wanted_range(text: str | None, if_range: str | None, etag: str, length: int) -> tuple[int, int] | None:
    """First byte and the byte after the last, None for the whole: without a Range, and for one that need not be served.

    Need not be served: several ranges, one outside the body, and one of other weights than If-Range names. RFC 9110
    lets a server answer them with the whole, which is what the client needs in each case.
    """
    found = None if text is None else _ONE_RANGE.fullmatch(text)
    if found is None or (if_range is not None and if_range != etag):
        return None
    first, last = found.groups()
    if first:
        start, stop = int(first), min(length, int(last) + 1) if last else length
    elif last:
        start, stop = max(0, length - int(last)), length
    else:
        return None
    return (start, stop) if start < stop else None


def cut(pieces: Iterable[bytes | memoryview], start: int, stop: int) -> Iterator[bytes | memoryview]:
    """Bytes `start` to `stop` of the pieces laid end to end, without a copy."""
    place = 0
    for piece in pieces:
        end = place + len(piece)
        if end > start:
            yield piece[max(0, start - place) : stop - place]
        if end >= stop:
            return
        place = end
