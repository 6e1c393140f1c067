"""Frames: tensors in the bytes of one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128

from ..problems import refuse
from .bounds import STORAGE
from .headers import Entry, checked_metadata, header_text, known_layout, malformed, parse_header
from .layout import Layout
from .numbers import allocate, bytes_of, elements_of, narrow, widen


@dataclass(frozen=True, eq=False)
class Frame:
    """Tensors as they came: `raw` is the data section in layout order, read-only, elements of `dtype`."""

    layout: Layout
    dtype: str
    raw: memoryview
    metadata: dict[str, str]

    def vector(self) -> NDArray[np.float32]:
        """float32[N]: a read-only view of `raw` when the frame is float32, else a new vector."""
        stored = elements_of(self.raw, self.dtype)
        return stored if self.dtype == "float32" else widen(stored, self.dtype)

    @cached_property
    def digest(self) -> str:
        """xxh3-128, in hex, of the canonical frame: names, dtype, shapes and data, but not the metadata.

        Detects faults and tells pushes apart; it is no defence against a forger.
        """
        state = xxh3_128(self.layout.header(self.dtype))
        state.update(self.raw)
        return state.hexdigest()

    def stored(self) -> list[bytes | memoryview]:
        """The pieces of the canonical frame: the header without metadata, then the data."""
        return [self.layout.header(self.dtype), self.raw]

    @property
    def size(self) -> int:
        """Bytes of the canonical frame."""
        return len(self.layout.header(self.dtype)) + self.raw.nbytes


def encode_frame(
    layout: Layout,
    vector: NDArray[np.float32] | None,
    metadata: Mapping[str, str] | None = None,
    *,
    dtype: str = "float32",
) -> list[bytes | memoryview]:
    """`[header, data]` of a frame. The data is the vector's own memory for float32, else a converted copy.

    `vector` is float32[N], contiguous; None stands for the vector of a layout without parameters.
    Raises `Refused`: layout-mismatch for another vector, dtype-unsupported, and what `Layout.header` raises.
    """
    if vector is None:
        vector = allocate(0)
    layout.check_vector(vector)
    if vector.dtype != np.float32 or not vector.flags.c_contiguous:
        detail = f"expected a contiguous float32 vector, came {vector.dtype} with strides {vector.strides}"
        raise refuse("layout-mismatch", detail, tensor=None, expected="float32", came=str(vector.dtype))
    return [layout.header(dtype, metadata), bytes_of(narrow(vector, dtype))]


def decode_frame(buffer: bytes | bytearray | memoryview) -> Frame:
    """Read a frame of any tensor order. In layout order nothing is copied: the frame keeps `buffer` alive.

    Tensors in another order are copied into it, data that is not aligned is copied, and tensors of several dtypes
    become float32. Raises `Refused`: malformed-tensors; dtype-unsupported for a dtype other than `DTYPES`;
    validation-error for a layout beyond the limits.
    """
    view = memoryview(buffer).toreadonly().cast("B")
    text, data_start = header_text(view)
    raw = view[data_start:]
    metadata, known = known_layout(text)
    if known is None:
        return _decode_unknown(text, raw)
    layout, dtype = known
    expected = layout.parameters * STORAGE[dtype].itemsize
    if raw.nbytes != expected:
        raise malformed(f"the header describes {expected} bytes, {raw.nbytes} follow it")
    return Frame(layout, dtype, _aligned(raw, dtype), checked_metadata(metadata))


def _decode_unknown(text: str, raw: memoryview) -> Frame:
    """The long way, for a header that no living layout has written."""
    entries, metadata = parse_header(text, raw.nbytes)
    layout = Layout.of_checked(tuple(entry.name for entry in entries), tuple(entry.shape for entry in entries))
    dtypes = {entry.dtype for entry in entries}
    dtype = dtypes.pop() if len(dtypes) == 1 else "float32"
    layout.section(dtype)  # the next frame like this one is known
    return Frame(layout, dtype, _in_layout_order(entries, layout, dtype, raw), metadata)


def _in_layout_order(entries: Sequence[Entry], layout: Layout, dtype: str, raw: memoryview) -> memoryview:
    """The data section as elements of `dtype` in layout order: `raw` itself where possible, else a copy."""
    width = STORAGE[dtype].itemsize
    one_dtype = all(entry.dtype == dtype for entry in entries)
    rows = list(zip(entries, layout.offsets, strict=True))
    if one_dtype and all(entry.begin in (offset * width, entry.end) for entry, offset in rows):
        return _aligned(raw, dtype)
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
