"""Frames: tensors in the bytes of one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128

from ..problems import refuse
from .bounds import STORAGE
from .headers import Entry, checked_metadata, header_text, known_layout, malformed, parse_header
from .layout import Layout
from .numbers import allocate, bytes_of, elements_of, narrow, widen
from .rows import ID_STORAGE, IDS_SUFFIX, ROWS_KEY, RowIds, checked_ids, ids_bytes, rows_header


@dataclass(frozen=True, eq=False)
class Frame:
    """Tensors as they came: `raw` is the data section in layout order, read-only, elements of `dtype`.

    Of a tensor in `rows` only some rows came, those of these ids; its shape in `layout` is that of what came.
    """

    layout: Layout
    dtype: str
    raw: memoryview
    metadata: dict[str, str]
    rows: RowIds = field(default_factory=dict)

    def vector(self) -> NDArray[np.float32]:
        """float32[N]: a read-only view of `raw` when the frame is float32, else a new vector."""
        stored = elements_of(self.raw, self.dtype)
        return stored if self.dtype == "float32" else widen(stored, self.dtype)

    @cached_property
    def digest(self) -> str:
        """xxh3-128, in hex, of the canonical frame: names, dtype, shapes, ids and data, but not the metadata.

        Detects faults and tells pushes apart; it is no defence against a forger.
        """
        state = xxh3_128()
        for piece in self.stored():
            state.update(piece)
        return state.hexdigest()

    def stored(self) -> list[bytes | memoryview]:
        """The pieces of the canonical frame: the header without metadata, the data, the ids if there are any."""
        if not self.rows:
            return [self.layout.header(self.dtype), self.raw]
        return [rows_header(self.layout, self.dtype, self.rows), self.raw, ids_bytes(self.rows)]

    @cached_property
    def size(self) -> int:
        """Bytes of the canonical frame."""
        return sum(memoryview(piece).nbytes for piece in self.stored())

    @cached_property
    def rows_needed(self) -> dict[str, int]:
        """How many rows each tensor in `rows` must have for its ids: the largest and one."""
        return {name: int(ids.max()) + 1 if ids.size else 0 for name, ids in self.rows.items()}


def encode_frame(
    layout: Layout,
    vector: NDArray[np.float32] | None,
    metadata: Mapping[str, str] | None = None,
    *,
    dtype: str = "float32",
    rows: RowIds | None = None,
) -> list[bytes | memoryview]:
    """`[header, data]` of a frame, with `rows` and the ids. The data is the vector's own memory for float32, else a
    converted copy.

    `vector` is float32[N], contiguous; None stands for the vector of a layout without parameters.
    Raises `Refused`: layout-mismatch for another vector, dtype-unsupported, and what `Layout.header` raises.
    """
    if vector is None:
        vector = allocate(0)
    layout.check_vector(vector)
    if vector.dtype != np.float32 or not vector.flags.c_contiguous:
        detail = f"expected a contiguous float32 vector, came {vector.dtype} with strides {vector.strides}"
        raise refuse("layout-mismatch", detail, tensor=None, expected="float32", came=str(vector.dtype))
    data = bytes_of(narrow(vector, dtype))
    if rows:
        return [rows_header(layout, dtype, rows, metadata), data, ids_bytes(rows)]
    return [layout.header(dtype, metadata), data]


def decode_frame(buffer: bytes | bytearray | memoryview, *, rows: bool = False) -> Frame:
    """Read a frame of any tensor order. In layout order nothing is copied: the frame keeps `buffer` alive.

    Only where `rows` are expected may a tensor come in some of its rows; elsewhere ids are tensors like any other.

    Tensors in another order are copied into it, data that is not aligned is copied, and tensors of several dtypes
    become float32. Raises `Refused`: malformed-tensors; dtype-unsupported for a dtype other than `DTYPES`;
    validation-error for a layout beyond the limits.
    """
    view = memoryview(buffer).toreadonly().cast("B")
    text, data_start = header_text(view)
    raw = view[data_start:]
    metadata, known = known_layout(text)
    if known is None or (rows and isinstance(metadata, dict) and ROWS_KEY in metadata):
        return _decode_unknown(text, raw, rows)
    layout, dtype = known
    expected = layout.data_bytes(dtype)
    if raw.nbytes != expected:
        raise malformed(f"the header describes {expected} bytes, {raw.nbytes} follow it")
    return Frame(layout, dtype, _aligned(raw, dtype), checked_metadata(metadata))


def _decode_unknown(text: str, raw: memoryview, rows: bool) -> Frame:
    """The long way, for a header that no living layout has written."""
    entries, metadata = parse_header(text, raw.nbytes, rows=rows)
    ids = {}
    for entry in [entry for entry in entries if entry.dtype in ID_STORAGE]:
        entries.remove(entry)
        name = entry.name.removesuffix(IDS_SUFFIX)
        ids[name] = checked_ids(name, np.frombuffer(raw[entry.begin : entry.end], ID_STORAGE[entry.dtype]))
    if ids:
        del metadata[ROWS_KEY]  # it has been read
    layout = Layout.of_checked(tuple(entry.name for entry in entries), tuple(entry.shape for entry in entries))
    dtypes = {entry.dtype for entry in entries}
    dtype = dtypes.pop() if len(dtypes) == 1 else "float32"
    layout.section(dtype)  # the next frame like this one is known
    return Frame(layout, dtype, _in_layout_order(entries, layout, dtype, raw), metadata, ids)


def _in_layout_order(entries: Sequence[Entry], layout: Layout, dtype: str, raw: memoryview) -> memoryview:
    """The data section as elements of `dtype` in layout order: `raw` itself where possible, else a copy."""
    width = STORAGE[dtype].itemsize
    one_dtype = all(entry.dtype == dtype for entry in entries)
    rows = list(zip(entries, layout.offsets, strict=True))
    if one_dtype and all(entry.begin in (offset * width, entry.end) for entry, offset in rows):
        return _aligned(raw[: layout.data_bytes(dtype)], dtype)  # ids may follow
    out = allocate(layout.parameters, dtype)
    for entry, offset in rows:
        source = elements_of(raw[entry.begin : entry.end], entry.dtype)
        target = out[offset : offset + source.size]
        if one_dtype:
            target[:] = source
        else:
            widen(source, entry.dtype, out=target)
    return bytes_of(out).toreadonly()


def _aligned(raw: memoryview, dtype: str) -> memoryview:
    """`raw`, copied if its elements do not lie on their own boundaries (another writer's unpadded header)."""
    elements = elements_of(raw, dtype)
    if elements.flags.aligned:
        return raw
    out = allocate(elements.size, dtype)
    out[:] = elements
    return bytes_of(out).toreadonly()
