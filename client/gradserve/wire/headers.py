"""Headers from strangers: everything is checked here, before anything is allocated for the tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

from ..problems import Refused, refuse
from .bounds import CODES, HEADER_BYTES_MAX, METADATA_KEY, STORAGE, TENSORS_MAX, encodable, shown
from .layout import KNOWN_SECTIONS, METADATA_OPENING, Layout, name_fault, shape_fault
from .rows import ID_CODES, ID_STORAGE, IDS_SUFFIX, check_id_shape, declared_rows
from .strict_json import DECODER

_DTYPE_OF_CODE: Final[dict[str, str]] = {code: dtype for dtype, code in CODES.items()}
_WIDTHS: Final = {dtype: storage.itemsize for dtype, storage in {**STORAGE, **ID_STORAGE}.items()}
_ENTRY_KEYS: Final = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a header; `begin` and `end` are bytes of the data section."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def malformed(detail: str) -> Refused:
    """The refusal of a frame."""
    return refuse("malformed-tensors", detail)


def header_text(view: memoryview) -> tuple[str, int]:
    """The header's JSON text, and where the data begins. Raises `Refused` (malformed-tensors)."""
    if view.nbytes < 8:
        raise malformed(f"expected 8 bytes of header length, came {view.nbytes}")
    length = int.from_bytes(view[:8], "little")
    if length > HEADER_BYTES_MAX:
        raise malformed(f"expected a header of at most {HEADER_BYTES_MAX} bytes, its length says {length}")
    if length > view.nbytes - 8:
        raise malformed(f"the header's length says {length}, {view.nbytes - 8} bytes follow it")
    try:
        text = str(view[8 : 8 + length], "utf-8")
    except UnicodeDecodeError as error:
        raise malformed(f"the header is not UTF-8 at its byte {error.start}") from None
    if not text.startswith("{"):
        raise malformed("the header does not start with '{'")
    return text, 8 + length


def known_layout(text: str) -> tuple[object, tuple[Layout, str] | None]:
    """The leading metadata (unchecked), and the layout and dtype whose header this is; None sends it the long way.

    The text behind the metadata has to equal what a layout writes, to the letter: then nothing is left to check.
    """
    metadata: object = {}
    if not text.startswith(METADATA_OPENING + "{"):
        section = text[1:]
    else:
        metadata, end = _read_json(text, len(METADATA_OPENING))
        # `,"` before a tensor or `}` at the end: a missing or a dangling comma must not pass
        section = text[end + 1 :] if text.startswith(',"', end) else text[end:] if text.startswith("}", end) else ""
    section = section.rstrip(" ")
    for dtype, layouts in KNOWN_SECTIONS.items():
        if (layout := layouts.get(section)) is not None:
            return metadata, (layout, dtype)
    return metadata, None


def parse_header(text: str, data_bytes: int, *, rows: bool = False) -> tuple[list[Entry], dict[str, str]]:
    """Entries in name order, and metadata; with `rows` also ids of rows, whose dtype is an integer's.

    Raises `Refused` (malformed-tensors, dtype-unsupported).
    """
    header, end = _read_json(text, 0)
    if text[end:].strip(" \t\r\n"):
        raise malformed("text follows the header's JSON object")
    metadata = checked_metadata(header.pop(METADATA_KEY, {}))
    if len(header) > TENSORS_MAX:
        raise malformed(f"expected at most {TENSORS_MAX} tensors, came {len(header)}")
    in_rows = declared_rows(metadata) if rows else ()
    ids = {name + IDS_SUFFIX for name in in_rows}
    entries = [
        _checked_entry(name, header[name], data_bytes, ID_CODES if name in ids else _DTYPE_OF_CODE)
        for name in sorted(header)
    ]
    _check_tiling(entries, data_bytes)
    shapes = {entry.name: entry.shape for entry in entries}
    for name in in_rows:
        check_id_shape(name, None if name in ids else shapes.get(name), shapes.get(name + IDS_SUFFIX))
    return entries, metadata


def checked_metadata(metadata: object) -> dict[str, str]:
    """The metadata, if it is an object of strings. Raises `Refused` (malformed-tensors)."""
    if type(metadata) is not dict:
        raise malformed(f"{METADATA_KEY}: expected an object of strings, came {shown(metadata)}")
    for key, value in metadata.items():
        if type(value) is not str:
            raise malformed(f"{METADATA_KEY}: expected a string for {shown(key)}, came {shown(value)}")
        if not encodable(key) or not encodable(value):
            raise malformed(f"{METADATA_KEY}: expected text that UTF-8 can encode")
    return metadata


def _checked_entry(name: str, entry: object, data_bytes: int, dtypes: Mapping[str, str]) -> Entry:
    if fault := name_fault(name):
        raise malformed(f"tensor {shown(name)}: {fault}")
    if type(entry) is not dict or entry.keys() != _ENTRY_KEYS:
        raise malformed(f"tensor {shown(name)}: expected an object of dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(code) is not str:
        raise malformed(f"tensor {shown(name)}: expected a dtype that is text, came {shown(code)}")
    dtype = dtypes.get(code)
    if dtype is None:
        expected = " or ".join(", ".join(dtypes).rsplit(", ", 1))
        detail = f"tensor {shown(name)}: expected dtype {expected}, came {shown(code)}: convert it"
        raise refuse("dtype-unsupported", detail, tensor=name)
    if fault := "expected a shape that is a list" if type(shape) is not list else shape_fault(shape):
        raise malformed(f"tensor {shown(name)}: {fault}")
    if type(offsets) is not list or len(offsets) != 2 or type(offsets[0]) is not int or type(offsets[1]) is not int:
        raise malformed(f"tensor {shown(name)}: expected data_offsets [begin, end] of integers")
    begin, end = offsets
    if not 0 <= begin <= end <= data_bytes:
        came = f"{shown(begin)} and {shown(end)}"
        raise malformed(f"tensor {shown(name)}: expected offsets between 0 and {data_bytes}, came {came}")
    size = prod(shape) * _WIDTHS[dtype]
    if end - begin != size:
        raise malformed(f"tensor {shown(name)}: its shape takes {size} bytes, its offsets span {end - begin}")
    return Entry(name, dtype, tuple(shape), begin, end)


def _check_tiling(entries: Sequence[Entry], data_bytes: int) -> None:
    """Sorted by offset, each tensor begins where the one before it ends, and the last ends with the data."""
    end = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != end:
            what = "a hole before it" if entry.begin > end else "an overlap"
            raise malformed(f"tensor {shown(entry.name)}: {what}: expected offset {end}, came {entry.begin}")
        end = entry.end
    if end != data_bytes:
        raise malformed(f"{data_bytes - end} bytes trail the last tensor")


def _read_json(text: str, start: int) -> tuple[dict[str, Any], int]:
    """One JSON value of the header, and where it ends."""
    try:
        value: tuple[dict[str, Any], int] = DECODER.raw_decode(text, start)
    except RecursionError:
        raise malformed("the header's JSON is nested too deep") from None
    except ValueError as error:
        raise malformed(f"the header is not JSON: {error}") from None
    return value
