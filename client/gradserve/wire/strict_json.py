"""JSON from strangers."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

import numpy as np

from ..problems import refuse
from .bounds import JSON_DEPTH_MAX, shown


class Malformed(ValueError):
    """What JSON itself allows and this service does not."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Malformed(f"the key {shown(twice)} comes twice")
    return unique


def _no_constant(constant: str) -> NoReturn:
    raise Malformed(f"{constant} is not JSON")


DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)

_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
# A string, closed or not, is always matched to its end: no input makes this more than linear.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


def parse_json(body: bytes | bytearray | memoryview) -> Any:
    """Strict JSON in UTF-8. Raises `Refused` (malformed-json) for NaN and Infinity, duplicate keys, text that UTF-8
    cannot encode, and more levels of brackets than `JSON_DEPTH_MAX`."""
    content = bytes(body)
    if not content.strip():
        raise refuse("malformed-json", "expected a JSON body, came nothing")
    try:
        if _depth(content) > JSON_DEPTH_MAX:
            raise Malformed(f"expected at most {JSON_DEPTH_MAX} levels of brackets")
        value = DECODER.decode(content.decode())
        if _SURROGATE.search(content):  # maybe an escaped half of a pair: text that nothing can write again
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise refuse("malformed-json", "expected text in UTF-8") from None
    except (ValueError, RecursionError) as error:
        long = "int_max_str_digits" in str(error)  # Python's words are for who runs it
        why = "an integer has more digits than are read" if long else str(error)
        raise refuse("malformed-json", f"expected strict JSON: {why}") from None
    return value


def _depth(content: bytes) -> int:
    """Deepest nesting of brackets; an upper bound when that is already small enough."""
    opening = content.count(b"[") + content.count(b"{")
    if opening <= JSON_DEPTH_MAX:
        return opening
    symbols = np.frombuffer(_STRING.sub(b"", content), np.uint8) & 0xDF  # folds {} onto []
    steps = (symbols == ord("[")).astype(np.int8) - (symbols == ord("]")).astype(np.int8)
    return int(np.max(np.cumsum(steps, dtype=np.int32), initial=0))
