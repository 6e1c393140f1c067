"""Bytes ↔ tensors: safetensors frames whose data section is the flat float32 vector of a run.

A run's tensors lie end to end, in the byte order of their UTF-8 names, in one vector; `Layout` says where each lies.
A frame is an 8-byte little-endian header length, a JSON header padded with spaces so that the data starts on a
64-byte boundary, and the data. With the tensors in layout order the data *is* the vector: nothing is copied.

Every check is made on the header, before anything is allocated: bytes from strangers only ever raise `Refused`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from math import prod
from typing import Any, Final, NoReturn
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray
from xxhash import xxh3_128

from .problems import Refused, refuse

__all__ = [
    "ALIGNMENT", "DTYPES", "HEADER_BYTES_MAX", "JSON_DEPTH_MAX", "JSON_ELEMENTS_MAX", "LAYOUT_BYTES_MAX", "MEDIA_TYPE",
    "MEDIA_TYPES", "NAME_BYTES_MAX", "PARAMETERS_MAX", "RANK_MAX", "RESERVED_PREFIX", "TENSORS_MAX", "Frame", "Layout",
    "allocate", "check_user_names", "decode_frame", "encode_frame", "frame_from_json", "narrow", "parse_json",
    "tensors_to_json", "widen",
]  # fmt: skip

DTYPES: Final = ("float32", "bfloat16", "float16")
MEDIA_TYPE: Final = "application/vnd.safetensors"
MEDIA_TYPES: Final = (MEDIA_TYPE, "application/x-safetensors", "application/octet-stream")
RESERVED_PREFIX: Final = "optimizer/"  # what a checkpoint holds beside the weights

ALIGNMENT: Final = 64  # bytes: a cache line, and the widest SIMD register
HEADER_BYTES_MAX: Final = 1 << 20  # a header is parsed before the sender has proved anything
LAYOUT_BYTES_MAX: Final = HEADER_BYTES_MAX - (64 << 10)  # leaves room for metadata in every frame of the layout
TENSORS_MAX: Final = 10_000  # each costs microseconds to check
NAME_BYTES_MAX: Final = 1_024
RANK_MAX: Final = 32  # what every NumPy can view
PARAMETERS_MAX: Final = 1 << 48  # dimensions multiply: no product of a shape may come near 64 bits
JSON_ELEMENTS_MAX: Final = 65_536  # nested lists are ten times the bytes and a thousand times the work
JSON_DEPTH_MAX: Final = 64  # deeper than any tensor in its document

_STORAGE: Final = {"float32": np.dtype("<f4"), "bfloat16": np.dtype("<u2"), "float16": np.dtype("<f2")}
_CODES: Final = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_DTYPE_OF_CODE: Final = {code: dtype for dtype, code in _CODES.items()}
_METADATA: Final = "__metadata__"
_METADATA_OPENING: Final = '{"__metadata__":'
_ENTRY_KEYS: Final = {"dtype", "shape", "data_offsets"}
_CONVERT_ELEMENTS: Final = 1 << 18  # conversions go through scratch of this size, not through copies of the vector
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

# Layouts by content, and by the tensor part of their header, while somebody holds them: a server holds the layout
# of each open run, so the frames of its workers are recognised by one look-up instead of being parsed.
_LAYOUTS: WeakValueDictionary[tuple[tuple[str, ...], tuple[tuple[int, ...], ...]], Layout] = WeakValueDictionary()
_KNOWN: Final[dict[str, WeakValueDictionary[str, Layout]]] = {dtype: WeakValueDictionary() for dtype in DTYPES}


# ---------------------------------------------------------------------------------------------------------- layout


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Layout:
    """Where each tensor lies in the flat vector. Made by `Layout.of`; equal contents are mostly the same object.

    names       in UTF-8 byte order
    shapes      () is a scalar; a dimension may be 0
    offsets     first element of each tensor in the vector
    parameters  N, the length of the vector
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    parameters: int
    _index: dict[str, int] = field(repr=False)
    _sections: dict[str, str] = field(repr=False, default_factory=dict)  # tensor part of the header, by dtype
    _headers: dict[str, bytes] = field(repr=False, default_factory=dict)  # whole header without metadata, by dtype

    @classmethod
    def of(cls, shapes: Mapping[str, Sequence[int]]) -> Layout:
        """The layout of tensors with these names and shapes. Raises `Refused` (validation-error)."""
        names = _sorted_names(shapes)
        dimensions = tuple(tuple(shapes[name]) for name in names)
        found = _LAYOUTS.get((names, dimensions))
        if found is not None:
            return found
        for name, shape in zip(names, dimensions, strict=True):
            if fault := _name_fault(name) or _shape_fault(shape):
                raise refuse("validation-error", f"tensor {_shown(name)}: {fault}")
        return cls._intern(names, dimensions)

    @classmethod
    def _intern(cls, names: tuple[str, ...], shapes: tuple[tuple[int, ...], ...]) -> Layout:
        """The one layout of sorted, checked names and shapes."""
        found = _LAYOUTS.get((names, shapes))
        if found is not None:
            return found
        if len(names) > TENSORS_MAX:
            raise refuse("validation-error", f"expected at most {TENSORS_MAX} tensors, came {len(names)}")
        offsets, total = [], 0
        for shape in shapes:
            offsets.append(total)
            total += prod(shape)
        if total > PARAMETERS_MAX:
            raise refuse("validation-error", f"expected at most {PARAMETERS_MAX} parameters, came {total}")
        layout = cls(names, shapes, tuple(offsets), total, {name: i for i, name in enumerate(names)})
        layout._section("float32")  # the longest of its headers: refuses here what could not be answered later
        _LAYOUTS[(names, shapes)] = layout
        return layout

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Layout) and self.names == other.names and self.shapes == other.shapes

    def __hash__(self) -> int:
        return hash((self.names, self.shapes))

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def __len__(self) -> int:
        return len(self.names)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor. Raises `Refused` (unknown-tensor)."""
        return self.shapes[self._at(name)]

    def size(self, name: str) -> int:
        """Number of elements of one tensor. Raises `Refused` (unknown-tensor)."""
        return prod(self.shapes[self._at(name)])

    def span(self, name: str) -> slice:
        """Elements of the vector that are this tensor. Raises `Refused` (unknown-tensor)."""
        i = self._at(name)
        return slice(self.offsets[i], self.offsets[i] + prod(self.shapes[i]))

    def views(self, vector: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Each tensor as a view into `vector` (any dtype, shape [N]): nothing is copied."""
        self._expect_length(vector)
        return {
            name: vector[offset : offset + prod(shape)].reshape(shape)
            for name, shape, offset in zip(self.names, self.shapes, self.offsets, strict=True)
        }

    def flatten(self, tensors: Mapping[str, ArrayLike]) -> NDArray[np.float32]:
        """A new float32[N] vector, 64-byte aligned, of exactly these tensors.

        Raises `Refused`: unknown-tensor for a name that is not of this layout, layout-mismatch for a missing tensor or
        another shape, validation-error for what is not real numbers. What overflows float32 becomes Infinity.
        """
        for name in tensors:
            self._at(name)
        vector = allocate(self.parameters)
        for name, view in self.views(vector).items():
            if name not in tensors:
                raise refuse(
                    "layout-mismatch", f"tensor {_shown(name)} is missing: expected float32{list(view.shape)}",
                    tensor=name, expected=list(view.shape), came=None,
                )  # fmt: skip
            _copy_tensor(name, tensors[name], view)
        return vector

    def subset(self, names: Iterable[str]) -> Layout:
        """The layout of some of the tensors, in the same order. Raises `Refused` (unknown-tensor)."""
        chosen = sorted({self._at(name) for name in names})
        if len(chosen) == len(self.names):
            return self
        return Layout._intern(tuple(self.names[i] for i in chosen), tuple(self.shapes[i] for i in chosen))

    def describe(self) -> list[dict[str, Any]]:
        """`[{"name", "shape", "offset"}, …]` in layout order; the offset counts elements."""
        rows = zip(self.names, self.shapes, self.offsets, strict=True)
        return [{"name": name, "shape": list(shape), "offset": offset} for name, shape, offset in rows]

    def header(self, dtype: str = "float32", metadata: Mapping[str, str] | None = None) -> bytes:
        """The frame up to its data: 8 bytes of length and the JSON, a multiple of 64 bytes together.

        Raises `Refused` (too-large) when the metadata does not fit into a header.
        """
        section = self._section(dtype)
        if metadata:
            comma = "," if self.names else ""
            return _padded(f"{_METADATA_OPENING}{_ENCODER.encode(dict(metadata))}{comma}{section}")
        if dtype not in self._headers:
            self._headers[dtype] = _padded("{" + section)
        return self._headers[dtype]

    def _section(self, dtype: str) -> str:
        """The header's text from the first tensor to the closing brace."""
        if (found := self._sections.get(dtype)) is not None:
            return found
        width, code = _storage(dtype).itemsize, _CODES[dtype]
        entries = []
        for name, shape, offset in zip(self.names, self.shapes, self.offsets, strict=True):
            begin, end = offset * width, (offset + prod(shape)) * width
            entries.append(
                f'{_ENCODER.encode(name)}:{{"dtype":"{code}","shape":[{",".join(map(str, shape))}],'
                f'"data_offsets":[{begin},{end}]}}'
            )
        section = ",".join(entries) + "}"
        if len(section.encode()) > LAYOUT_BYTES_MAX:
            raise refuse(
                "validation-error",
                f"names and shapes take {len(section)} bytes of header, at most {LAYOUT_BYTES_MAX} fit: shorten the names",
            )
        self._sections[dtype] = section
        _KNOWN[dtype][section] = self
        return section

    def _at(self, name: str) -> int:
        try:
            return self._index[name]
        except KeyError:
            known = ", ".join(map(_shown, self.names[:8])) + (", …" if len(self.names) > 8 else "")
            raise refuse(
                "unknown-tensor", f"there is no tensor {_shown(name)}: expected {known or 'no tensor at all'}", tensor=name
            ) from None

    def _expect_length(self, vector: NDArray[Any]) -> None:
        if vector.ndim != 1 or vector.shape[0] != self.parameters:
            raise refuse(
                "layout-mismatch", f"expected a vector of {self.parameters} elements, came shape {list(vector.shape)}",
                tensor=None, expected=[self.parameters], came=list(vector.shape),
            )  # fmt: skip


def check_user_names(layout: Layout) -> None:
    """Refuse names that a checkpoint needs for itself (validation-error): for weights and gradients of users."""
    for name in layout.names:
        if name.startswith(RESERVED_PREFIX):
            raise refuse("validation-error", f"tensor {_shown(name)}: names under {RESERVED_PREFIX!r} are reserved: rename it")


def _sorted_names(shapes: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    for name in shapes:
        if type(name) is not str:
            raise refuse("validation-error", f"expected tensor names that are text, came {type(name).__name__}")
    return tuple(sorted(shapes))  # by code point: the same order as by UTF-8 bytes


def _name_fault(name: str) -> str | None:
    if not name or name == _METADATA:
        return f"expected a non-empty name other than {_METADATA}"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "expected a name that UTF-8 can encode"
    return f"expected a name of at most {NAME_BYTES_MAX} bytes, came {size}" if size > NAME_BYTES_MAX else None


def _shape_fault(shape: Sequence[object]) -> str | None:
    if len(shape) > RANK_MAX:
        return f"expected at most {RANK_MAX} dimensions, came {len(shape)}"
    total = 1
    for dimension in shape:
        if type(dimension) is not int or dimension < 0:  # bool is not a dimension
            return f"expected dimensions that are integers ≥ 0, came {_shown(dimension)}"
        total *= max(dimension, 1)  # NumPy multiplies around zeros too
        if total > PARAMETERS_MAX:
            return f"expected at most {PARAMETERS_MAX} elements"
    return None


def _copy_tensor(name: str, tensor: ArrayLike, view: NDArray[np.float32]) -> None:
    source = np.asarray(tensor)
    if source.shape != view.shape:
        raise refuse(
            "layout-mismatch",
            f"tensor {_shown(name)}: expected float32{list(view.shape)}, came {source.dtype}{list(source.shape)}",
            tensor=name, expected=list(view.shape), came=list(source.shape),
        )  # fmt: skip
    # bfloat16 of ml_dtypes has kind V
    if source.dtype.kind not in "fiu" and source.dtype.name != "bfloat16":
        raise refuse("validation-error", f"tensor {_shown(name)}: expected real numbers, came {source.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        view[...] = source.astype(np.float32, copy=False)


# --------------------------------------------------------------------------------------------------------- numbers


def allocate(n: int, dtype: str = "float32") -> NDArray[Any]:
    """An uninitialised 1-D array of n elements whose memory starts on a 64-byte boundary (bfloat16: as uint16)."""
    storage = _storage(dtype)
    block = np.empty(n * storage.itemsize + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + n * storage.itemsize].view(storage)


def narrow(vector: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """The float32 vector in `dtype`, rounded to nearest even; bfloat16 comes as its uint16 bits. float32: itself."""
    storage = _storage(dtype)
    if dtype == "float32":
        return vector
    out = allocate(vector.size, dtype)
    for piece in _pieces(vector.size):
        if dtype == "bfloat16":
            out[piece] = _bfloat16_bits(vector[piece])
        else:
            with np.errstate(over="ignore", under="ignore"):
                out[piece] = vector[piece].astype(storage)
    return out


def widen(stored: NDArray[Any], dtype: str, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """The inverse of `narrow`: float32 of elements as they are stored, exactly. Writes into `out` when given."""
    _storage(dtype)
    if out is None:
        out = allocate(stored.size)
    if dtype != "bfloat16":
        np.copyto(out, stored)
        return out
    bits = out.view(np.uint32)
    for piece in _pieces(stored.size):
        np.left_shift(stored[piece], np.uint32(16), out=bits[piece], dtype=np.uint32)
    return out


def _bfloat16_bits(vector: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = np.ascontiguousarray(vector).view(np.uint32)
    upper = bits >> np.uint32(16)
    rounded = (bits + np.uint32(0x7FFF) + (upper & np.uint32(1))) >> np.uint32(16)
    # Rounding a NaN could carry into Infinity or zero: keep its upper half, made quiet.
    return np.where(np.isnan(vector), upper | np.uint32(0x40), rounded).astype(np.uint16)


def _pieces(n: int) -> Iterator[slice]:
    return (slice(i, min(i + _CONVERT_ELEMENTS, n)) for i in range(0, n, _CONVERT_ELEMENTS))


def _storage(dtype: str) -> np.dtype[Any]:
    try:
        return _STORAGE[dtype]
    except KeyError:
        raise refuse("dtype-unsupported", f"expected one of {', '.join(DTYPES)}, came {_shown(dtype)}") from None


# ---------------------------------------------------------------------------------------------------------- frames


@dataclass(frozen=True)
class Frame:
    """Tensors as they came: `raw` is the data section in layout order, read-only, elements of `dtype`."""

    layout: Layout
    dtype: str
    raw: memoryview
    metadata: dict[str, str]

    def vector(self) -> NDArray[np.float32]:
        """float32[N]: a read-only view of `raw` when the frame is float32, else a new vector."""
        stored = _elements(self.raw, self.dtype)
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
    """
    if vector is None:
        vector = allocate(0)
    layout._expect_length(vector)
    if vector.dtype != np.float32 or not vector.flags.c_contiguous:
        raise refuse("layout-mismatch", f"expected a contiguous float32 vector, came {vector.dtype}")
    return [layout.header(dtype, metadata), _bytes_of(narrow(vector, dtype))]


def decode_frame(buffer: bytes | bytearray | memoryview) -> Frame:
    """Read a frame of any tensor order. In layout order nothing is copied: the frame keeps `buffer` alive.

    Tensors in another order are copied into it; tensors of several dtypes become float32.
    Raises `Refused`: malformed-tensors, or dtype-unsupported for a dtype other than `DTYPES`.
    """
    view = memoryview(buffer).toreadonly().cast("B")
    text = _header_text(view)
    data = view[8 + len(text.encode()) :] if not text.isascii() else view[8 + len(text) :]
    metadata, section = _split_header(text)
    for dtype, known in _KNOWN.items():
        layout = known.get(section)
        if layout is not None:
            expected = layout.parameters * _STORAGE[dtype].itemsize
            if data.nbytes != expected:
                raise _malformed(f"the header describes {expected} bytes, {data.nbytes} follow it")
            return Frame(layout, dtype, _aligned(data, dtype), metadata)
    return _decode_unknown(text, data)


def _header_text(view: memoryview) -> str:
    if view.nbytes < 8:
        raise _malformed(f"expected 8 bytes of header length, came {view.nbytes}")
    length = int.from_bytes(view[:8], "little")
    if length > HEADER_BYTES_MAX:
        raise _malformed(f"expected a header of at most {HEADER_BYTES_MAX} bytes, its length says {length}")
    if length > view.nbytes - 8:
        raise _malformed(f"the header's length says {length}, but {view.nbytes - 8} bytes follow it")
    try:
        text = str(view[8 : 8 + length], "utf-8")
    except UnicodeDecodeError as error:
        raise _malformed(f"the header is not UTF-8 at its byte {error.start}") from None
    if not text.startswith("{"):
        raise _malformed("the header does not start with '{'")
    return text


def _split_header(text: str) -> tuple[dict[str, str], str]:
    """Leading metadata and the rest of the header; nothing but a look-up of that rest may be made of it."""
    if not text.startswith(_METADATA_OPENING):
        return {}, text[1:].rstrip(" ")
    metadata, end = _read_json(text, len(_METADATA_OPENING))
    if text.startswith(",", end):
        end += 1
    return _checked_metadata(metadata), text[end:].rstrip(" ")


def _decode_unknown(text: str, data: memoryview) -> Frame:
    """The long way: parse and check every entry."""
    header, end = _read_json(text, 0)
    if text[end:].strip(" \t\r\n"):
        raise _malformed("text follows the header's JSON object")
    metadata = _checked_metadata(header.pop(_METADATA, {}))
    if len(header) > TENSORS_MAX:
        raise _malformed(f"expected at most {TENSORS_MAX} tensors, came {len(header)}")
    entries = [_checked_entry(name, header[name], data.nbytes) for name in sorted(header)]
    _check_tiling(entries, data.nbytes)
    layout = Layout._intern(tuple(entry.name for entry in entries), tuple(entry.shape for entry in entries))
    dtypes = {entry.dtype for entry in entries} or {"float32"}
    dtype = dtypes.pop() if len(dtypes) == 1 else "float32"
    layout._section(dtype)
    raw = _in_layout_order(entries, layout, dtype, data)
    return Frame(layout, dtype, raw, metadata)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One tensor of a header, checked by itself."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int  # bytes in the data section
    end: int


def _checked_metadata(metadata: object) -> dict[str, str]:
    if type(metadata) is not dict:
        raise _malformed(f"{_METADATA}: expected an object of strings, came {_shown(metadata)}")
    for key, value in metadata.items():
        if type(value) is not str:
            raise _malformed(f"{_METADATA} {_shown(key)}: expected a string, came {_shown(value)}")
        if not _encodable(key) or not _encodable(value):
            raise _malformed(f"{_METADATA}: expected text that UTF-8 can encode")
    return metadata


def _checked_entry(name: str, entry: object, data_bytes: int) -> _Entry:
    if fault := _name_fault(name):
        raise _malformed(f"tensor {_shown(name)}: {fault}")
    if type(entry) is not dict or entry.keys() != _ENTRY_KEYS:
        raise _malformed(f"tensor {_shown(name)}: expected an object of dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(code) is not str:
        raise _malformed(f"tensor {_shown(name)}: expected a dtype that is text, came {_shown(code)}")
    dtype = _DTYPE_OF_CODE.get(code)
    if dtype is None:
        raise refuse(
            "dtype-unsupported", f"tensor {_shown(name)}: expected dtype F32, BF16 or F16, came {_shown(code)}: convert it",
            tensor=name,
        )  # fmt: skip
    fault = "expected a shape that is a list" if type(shape) is not list else _shape_fault(shape)
    if fault:
        raise _malformed(f"tensor {_shown(name)}: {fault}")
    if type(offsets) is not list or len(offsets) != 2 or any(type(offset) is not int for offset in offsets):
        raise _malformed(f"tensor {_shown(name)}: expected data_offsets [begin, end] of integers")
    begin, end = offsets
    if not 0 <= begin <= end <= data_bytes:
        raise _malformed(f"tensor {_shown(name)}: expected offsets in 0 … {data_bytes}, came {_shown(offsets)}")
    size = prod(shape) * _STORAGE[dtype].itemsize
    if end - begin != size:
        raise _malformed(f"tensor {_shown(name)}: its shape takes {size} bytes, its offsets span {end - begin}")
    return _Entry(name, dtype, tuple(shape), begin, end)


def _check_tiling(entries: Sequence[_Entry], data_bytes: int) -> None:
    """Sorted by offset, each tensor begins where the one before it ends, and the last ends with the data."""
    end = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != end:
            what = "a hole" if entry.begin > end else "an overlap"
            raise _malformed(f"tensor {_shown(entry.name)}: {what}: expected offset {end}, came {entry.begin}")
        end = entry.end
    if end != data_bytes:
        raise _malformed(f"{data_bytes - end} bytes trail the last tensor")


def _in_layout_order(entries: Sequence[_Entry], layout: Layout, dtype: str, data: memoryview) -> memoryview:
    """The data section as elements of `dtype` in layout order: `data` itself where possible, else a copy."""
    width = _STORAGE[dtype].itemsize
    one_dtype = all(entry.dtype == dtype for entry in entries)
    in_place = all(
        entry.begin == offset * width or entry.begin == entry.end
        for entry, offset in zip(entries, layout.offsets, strict=True)
    )
    if one_dtype and in_place:
        return _aligned(data, dtype)
    out = allocate(layout.parameters, dtype)
    for entry, offset in zip(entries, layout.offsets, strict=True):
        source = _elements(data[entry.begin : entry.end], entry.dtype)
        target = out[offset : offset + source.size]
        if one_dtype:
            target[:] = source
        else:
            widen(source, entry.dtype, out=target)
    return _bytes_of(out).toreadonly()


def _aligned(data: memoryview, dtype: str) -> memoryview:
    """`data`, copied if its elements do not lie on their own boundaries (another writer's unpadded header)."""
    elements = _elements(data, dtype)
    if elements.flags.aligned:
        return data
    out = allocate(elements.size, dtype)
    out[:] = elements
    return _bytes_of(out).toreadonly()


def _elements(raw: memoryview, dtype: str) -> NDArray[Any]:
    return np.frombuffer(raw, _STORAGE[dtype]) if raw.nbytes else allocate(0, dtype)


def _bytes_of(vector: NDArray[Any]) -> memoryview:
    return memoryview(vector).cast("B") if vector.size else memoryview(b"")  # a view of nothing cannot be cast


def _padded(text: str) -> bytes:
    encoded = text.encode()
    length = len(encoded) + (-(8 + len(encoded)) % ALIGNMENT)
    if length > HEADER_BYTES_MAX:
        raise refuse("too-large", f"expected a header of at most {HEADER_BYTES_MAX} bytes, it takes {length}: less metadata")
    return length.to_bytes(8, "little") + encoded.ljust(length)


def _malformed(detail: str) -> Refused:
    return refuse("malformed-tensors", detail)


# ------------------------------------------------------------------------------------------------------------ JSON


def frame_from_json(tensors: Mapping[str, object]) -> Frame:
    """A float32 frame of nested lists, for curl and tiny runs; a scalar is a number.

    Raises `Refused`: validation-error for ragged lists or what is not a number, too-large past `JSON_ELEMENTS_MAX`.
    A number that overflows float32 becomes Infinity.
    """
    if not isinstance(tensors, Mapping):
        raise refuse("validation-error", f"expected an object of tensors, came {_shown(tensors)}")
    shapes: dict[str, tuple[int, ...]] = {}
    numbers: dict[str, list[int | float]] = {}
    room = JSON_ELEMENTS_MAX
    for name, value in tensors.items():
        shapes[name], numbers[name] = _flat_numbers(name, value, room)
        room -= len(numbers[name])
    layout = Layout.of(shapes)
    vector = allocate(layout.parameters)
    for name in layout.names:
        vector[layout.span(name)] = _float32(numbers[name])
    return Frame(layout, "float32", _bytes_of(vector).toreadonly(), {})


def tensors_to_json(layout: Layout, vector: NDArray[np.float32]) -> dict[str, Any]:
    """Nested lists of a vector's tensors; a scalar is a number. Raises `Refused` (json-too-large)."""
    if layout.parameters > JSON_ELEMENTS_MAX:
        raise refuse(
            "json-too-large",
            f"JSON holds at most {JSON_ELEMENTS_MAX} elements, these tensors have {layout.parameters}: accept {MEDIA_TYPE}",
            limit=JSON_ELEMENTS_MAX,
        )
    return {name: view.tolist() for name, view in layout.views(vector).items()}


def parse_json(body: bytes | bytearray | memoryview) -> Any:
    """Strict JSON. NaN, Infinity, duplicate keys, text that UTF-8 cannot encode and depth beyond `JSON_DEPTH_MAX`
    raise `Refused` (malformed-json)."""
    content = bytes(body)
    try:
        if _depth(content) > JSON_DEPTH_MAX:
            raise _Malformed(f"expected at most {JSON_DEPTH_MAX} levels of brackets")
        value, end = _DECODER.raw_decode(text := content.decode().strip(" \t\r\n"))
        if end != len(text):
            raise _Malformed(f"text follows the JSON value at character {end}")
        if _SURROGATE.search(content):  # an escaped half of a pair: decodes to text that nothing can write again
            _ENCODER.encode(value).encode()
    except UnicodeError:
        raise refuse("malformed-json", "expected text in UTF-8") from None
    except RecursionError:
        raise refuse("malformed-json", "expected fewer levels of brackets") from None
    except ValueError as error:
        raise refuse("malformed-json", str(error) if content else "expected a JSON body, came nothing") from None
    return value


class _Malformed(ValueError):
    """What a hook of the JSON decoder does not accept."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Malformed(f"the key {_shown(next(name for name in unique if names.count(name) > 1))} comes twice")
    return unique


def _no_constant(constant: str) -> NoReturn:
    raise _Malformed(f"{constant} is not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
# A string, closed or not, is always matched to its end: no input makes this more than linear.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


def _read_json(text: str, start: int) -> tuple[dict[str, Any], int]:
    """One JSON object of a frame's header, and where it ends."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except RecursionError:
        raise _malformed("the header's JSON is nested too deep") from None
    except ValueError as error:
        raise _malformed(f"the header is not JSON: {error}") from None
    return value, end


def _depth(content: bytes) -> int:
    """Deepest nesting of brackets; an upper bound when that is already small enough."""
    opening = content.count(b"[") + content.count(b"{")
    if opening <= JSON_DEPTH_MAX:
        return opening
    symbols = np.frombuffer(_STRING.sub(b"", content), np.uint8) & 0xDF  # folds {} onto []
    steps = (symbols == 0x5B).astype(np.int32) - (symbols == 0x5D)
    return int(np.max(np.cumsum(steps, dtype=np.int32), initial=0))


def _flat_numbers(name: str, value: object, room: int) -> tuple[tuple[int, ...], list[int | float]]:
    """Shape and numbers of nested lists, one level at a time: no recursion, and no conversion of what is no number."""
    shape: list[int] = []
    level: list[Any] = [value]
    while level and set(map(type, level)) == {list}:
        lengths = set(map(len, level))
        if len(lengths) > 1:
            raise refuse("validation-error", f"tensor {_shown(name)}: expected rows of one length, came {sorted(lengths)[:4]}")
        shape.append(lengths.pop())
        if len(level) * shape[-1] > room:
            raise refuse(
                "too-large", f"JSON may hold {JSON_ELEMENTS_MAX} elements a request: send {MEDIA_TYPE}",
                limit=JSON_ELEMENTS_MAX,
            )  # fmt: skip
        level = list(chain.from_iterable(level))
    wrong = next((item for item in level if type(item) is not int and type(item) is not float), None)
    if wrong is not None or None in level:
        raise refuse("validation-error", f"tensor {_shown(name)}: expected numbers in nested lists, came {_shown(wrong)}")
    return tuple(shape), level


def _float32(numbers: list[int | float]) -> NDArray[np.float32]:
    try:
        exact = np.array(numbers, np.float64)
    except OverflowError:  # an integer beyond double: beyond float32 too
        exact = np.array([max(-1e300, min(1e300, number)) for number in numbers], np.float64)
    with np.errstate(over="ignore"):
        return exact.astype(np.float32)


def _encodable(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _shown(value: object) -> str:
    """What came, short enough for a message."""
    if isinstance(value, (dict, list, tuple)) and len(value) > 4:
        return f"{type(value).__name__} of {len(value)}"
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
