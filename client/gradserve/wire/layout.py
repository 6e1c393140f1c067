"""`Layout`: where each tensor of a run lies in its flat vector."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from operator import index
from typing import Any, Final
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..problems import refuse
from .bounds import (
    ALIGNMENT,
    CODES,
    DTYPES,
    HEADER_BYTES_MAX,
    LAYOUT_BYTES_MAX,
    METADATA_KEY,
    NAME_BYTES_MAX,
    PARAMETERS_MAX,
    RANK_MAX,
    RESERVED_PREFIX,
    TENSORS_MAX,
    encodable,
    shown,
    storage_of,
)
from .numbers import allocate

METADATA_OPENING: Final = f'{{"{METADATA_KEY}":'
JSON_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

# Layouts by content, while somebody holds them: a server holds the layout of each open run.
_LAYOUTS: WeakValueDictionary[tuple[tuple[str, ...], tuple[tuple[int, ...], ...]], Layout] = WeakValueDictionary()
# The same by the tensor part of their header: known frames are recognised by one look-up instead of being parsed.
KNOWN_SECTIONS: Final[dict[str, WeakValueDictionary[str, Layout]]] = {d: WeakValueDictionary() for d in DTYPES}


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Layout:
    """Where each tensor lies in the flat vector. Made by `Layout.of`; equal by content, mostly the same object.

    names       in UTF-8 byte order
    shapes      () is a scalar; a dimension may be 0
    offsets     first element of each tensor in the vector
    parameters  N, the length of the vector
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    parameters: int
    _places: dict[str, int] = field(repr=False)
    _sections: dict[str, str] = field(repr=False, default_factory=dict)  # tensor part of the header, by dtype
    _headers: dict[str, bytes] = field(repr=False, default_factory=dict)  # header without metadata, by dtype

    @classmethod
    def of(cls, shapes: Mapping[str, Sequence[int]]) -> Layout:
        """The layout of tensors with these names and shapes. Raises `Refused` (validation-error)."""
        try:
            names = tuple(sorted(shapes))  # by code point, which is the order of the UTF-8 bytes
            dimensions = tuple(tuple(int(index(dimension)) for dimension in shapes[name]) for name in names)
        except TypeError as error:
            raise refuse("validation-error", f"expected shapes by name, lists of integers: {error}") from None
        found = _LAYOUTS.get((names, dimensions))
        if found is not None:
            return found
        for name, shape in zip(names, dimensions, strict=True):
            if fault := name_fault(name) or shape_fault(shape):
                raise refuse("validation-error", f"tensor {shown(name)}: {fault}")
        return cls.of_checked(names, dimensions)

    @classmethod
    def of_checked(cls, names: tuple[str, ...], shapes: tuple[tuple[int, ...], ...]) -> Layout:
        """The layout of names in order and shapes that have no fault (see `name_fault`, `shape_fault`)."""
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
        layout.section("float32")  # the longest of its headers: refuses here what could not be answered later
        _LAYOUTS[names, shapes] = layout
        return layout

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Layout) and self.names == other.names and self.shapes == other.shapes

    def __hash__(self) -> int:
        return hash((self.names, self.shapes))

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor. Raises `Refused` (unknown-tensor)."""
        return self.shapes[self._place(name)]

    def size(self, name: str) -> int:
        """Number of elements of one tensor. Raises `Refused` (unknown-tensor)."""
        return prod(self.shapes[self._place(name)])

    def span(self, name: str) -> slice:
        """Elements of the vector that are this tensor. Raises `Refused` (unknown-tensor)."""
        i = self._place(name)
        return slice(self.offsets[i], self.offsets[i] + prod(self.shapes[i]))

    def views(self, vector: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Each tensor as a view into `vector` (any dtype, shape [N]): nothing is copied."""
        self.check_vector(vector)
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
            self._place(name)
        vector = allocate(self.parameters)
        for name, view in self.views(vector).items():
            if name not in tensors:
                raise _mismatch(name, view, None, "nothing: send a layout.subset(…) of what there is")
            _copy_tensor(name, tensors[name], view)
        return vector

    def subset(self, names: Iterable[str]) -> Layout:
        """The layout of some of the tensors, in the same order. Raises `Refused` (unknown-tensor)."""
        chosen = sorted({self._place(name) for name in names})
        if len(chosen) == len(self.names):
            return self
        return Layout.of_checked(tuple(self.names[i] for i in chosen), tuple(self.shapes[i] for i in chosen))

    def describe(self) -> list[dict[str, Any]]:
        """`[{"name", "shape", "offset"}, …]` in layout order; the offset counts elements."""
        rows = zip(self.names, self.shapes, self.offsets, strict=True)
        return [{"name": name, "shape": list(shape), "offset": offset} for name, shape, offset in rows]

    def header(self, dtype: str = "float32", metadata: Mapping[str, str] | None = None) -> bytes:
        """The frame up to its data: 8 bytes of length and the JSON, a multiple of 64 bytes together.

        Raises `Refused`: too-large when the metadata does not fit, validation-error when it is not text.
        """
        section = self.section(dtype)
        if metadata:
            if not all(type(value) is str and type(key) is str for key, value in metadata.items()):
                raise refuse("validation-error", "expected metadata of strings: write numbers as text")
            comma = "," if self.names else ""
            return padded(f"{METADATA_OPENING}{JSON_ENCODER.encode(dict(metadata))}{comma}{section}")
        if dtype not in self._headers:
            self._headers[dtype] = padded("{" + section)
        return self._headers[dtype]

    def data_bytes(self, dtype: str) -> int:
        """Bytes of the vector's elements in `dtype`. Raises `Refused` (dtype-unsupported)."""
        return self.parameters * storage_of(dtype).itemsize

    def section(self, dtype: str) -> str:
        """The header's text from the first tensor to the closing brace; once asked for, frames are known by it."""
        if (found := self._sections.get(dtype)) is not None:
            return found
        width, code = storage_of(dtype).itemsize, CODES[dtype]
        entries = []
        for name, shape, offset in zip(self.names, self.shapes, self.offsets, strict=True):
            dimensions, begin, end = ",".join(map(str, shape)), offset * width, (offset + prod(shape)) * width
            entry = f'{{"dtype":"{code}","shape":[{dimensions}],"data_offsets":[{begin},{end}]}}'
            entries.append(f"{JSON_ENCODER.encode(name)}:{entry}")
        section = ",".join(entries) + "}"
        size = len(section.encode())
        if size > LAYOUT_BYTES_MAX:
            detail = f"names and shapes take {size} bytes of header, {LAYOUT_BYTES_MAX} fit: shorten the names"
            raise refuse("validation-error", detail)
        self._sections[dtype] = section
        KNOWN_SECTIONS[dtype][section] = self
        return section

    def check_vector(self, vector: NDArray[Any]) -> None:
        """Refuse (layout-mismatch) what is not a vector of N elements."""
        if vector.shape != (self.parameters,):
            came = list(vector.shape)
            detail = f"expected a vector of {self.parameters} elements, came shape {came}"
            raise refuse("layout-mismatch", detail, tensor=None, expected=[self.parameters], came=came)

    def _place(self, name: str) -> int:
        place = self._places.get(name)
        if place is None:
            known = ", ".join(map(shown, self.names[:8])) + (", …" if len(self.names) > 8 else "")
            detail = f"expected tensors of the names {known or '(none)'}, came {shown(name)}"
            raise refuse("unknown-tensor", detail, tensor=name)
        return place


def check_user_names(layout: Layout) -> None:
    """Refuse (validation-error) names that a checkpoint needs for itself: for weights and gradients of users."""
    for name in layout.names:
        if name.startswith(RESERVED_PREFIX):
            detail = f"tensor {shown(name)}: names that start with {RESERVED_PREFIX!r} are reserved: rename it"
            raise refuse("validation-error", detail)


def name_fault(name: str) -> str | None:
    """What is wrong with a tensor's name, or None."""
    if type(name) is not str or not name or name == METADATA_KEY:
        return f"expected a name that is text, not empty and not {METADATA_KEY}"
    if name.isascii() and len(name) <= NAME_BYTES_MAX:
        return None
    if not encodable(name):
        return "expected a name that UTF-8 can encode"
    size = len(name.encode())
    return f"expected a name of at most {NAME_BYTES_MAX} bytes, came {size}" if size > NAME_BYTES_MAX else None


def shape_fault(shape: Sequence[object]) -> str | None:
    """What is wrong with a shape, or None."""
    if len(shape) > RANK_MAX:
        return f"expected at most {RANK_MAX} dimensions, came {len(shape)}"
    total = 1
    for dimension in shape:
        if type(dimension) is not int or dimension < 0:  # bool is not a dimension
            return f"expected dimensions that are integers ≥ 0, came {shown(dimension)}"
        total *= dimension or 1  # NumPy multiplies around zeros too
        if total > PARAMETERS_MAX:
            return f"expected a shape of at most {PARAMETERS_MAX} elements"
    return None


def is_real(dtype: np.dtype[Any]) -> bool:
    """Are its values real numbers, which float32 can hold or round?"""
    return dtype.kind in "fiu" or dtype.name == "bfloat16"  # ml_dtypes gives bfloat16 the kind V


def _copy_tensor(name: str, tensor: ArrayLike, view: NDArray[np.float32]) -> None:
    try:
        source = np.asarray(tensor)
    except ValueError as error:  # ragged lists
        raise refuse("validation-error", f"tensor {shown(name)}: expected an array: {error}") from None
    if source.shape != view.shape:
        raise _mismatch(name, view, list(source.shape), f"{source.dtype}{list(source.shape)}")
    if not is_real(source.dtype):
        raise refuse("validation-error", f"tensor {shown(name)}: expected real numbers, came {source.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        np.copyto(view, source, casting="unsafe")


def _mismatch(name: str, view: NDArray[np.float32], came: list[int] | None, words: str) -> Exception:
    expected = list(view.shape)
    detail = f"tensor {shown(name)}: expected float32{expected}, came {words}"
    return refuse("layout-mismatch", detail, tensor=name, expected=expected, came=came)


def padded(text: str) -> bytes:
    """A header's text with its length in front, filled up to a multiple of 64 bytes. Raises `Refused`."""
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise refuse("validation-error", "expected metadata that UTF-8 can encode") from None
    length = len(encoded) + (-(8 + len(encoded)) % ALIGNMENT)
    if length > HEADER_BYTES_MAX:
        detail = f"expected a header of at most {HEADER_BYTES_MAX} bytes, it takes {length}: send less metadata"
        raise refuse("too-large", detail)
    return length.to_bytes(8, "little") + encoded.ljust(length)
