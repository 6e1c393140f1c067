"""Tensors as nested lists, for curl and tiny runs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..problems import Refused, refuse
from .bounds import JSON_ELEMENTS_MAX, MEDIA_TYPE, PARAMETERS_MAX, shown
from .frames import Frame
from .layout import Layout
from .numbers import allocate, bytes_of
from .rows import checked_ids


def frame_from_json(tensors: Mapping[str, object], *, rows: bool = False) -> Frame:
    """A float32 frame of nested lists; a scalar is a number. A number that overflows float32 becomes Infinity.

    Where `rows` are expected, `{"rows": [3, 17], "values": [[…], […]]}` is some rows of a tensor.

    Raises `Refused`: validation-error for ragged lists or what is not a number, too-large past `JSON_ELEMENTS_MAX`.
    """
    if not isinstance(tensors, Mapping):
        raise refuse("validation-error", f"expected an object of tensors by name, came {shown(tensors)}")
    shapes: dict[str, tuple[int, ...]] = {}
    numbers: dict[str, list[int | float]] = {}
    ids: dict[str, NDArray[np.int64]] = {}
    room = JSON_ELEMENTS_MAX
    for name, value in tensors.items():
        if rows and isinstance(value, dict):
            ids[name], value = _row_ids(name, value, room)
            room -= ids[name].size
        shapes[name], numbers[name] = _flat_numbers(name, value, room)
        room -= len(numbers[name])
        if name in ids and shapes[name][:1] != ids[name].shape:
            came = f"{ids[name].size} ids and values of shape {list(shapes[name])}"
            raise _unfit(name, f"one row of values for each id in rows, came {came}")
    layout = Layout.of(shapes)
    vector = allocate(layout.parameters)
    for name in layout.names:
        vector[layout.span(name)] = _float32(numbers[name])
    return Frame(layout, "float32", bytes_of(vector).toreadonly(), {}, ids)


def tensors_to_json(layout: Layout, vector: NDArray[np.float32]) -> dict[str, Any]:
    """Nested lists of a vector's tensors; a scalar is a number. Raises `Refused` (json-too-large)."""
    if layout.parameters > JSON_ELEMENTS_MAX:
        detail = f"expected at most {JSON_ELEMENTS_MAX} elements as JSON, came {layout.parameters}: accept {MEDIA_TYPE}"
        raise refuse("json-too-large", detail, limit=JSON_ELEMENTS_MAX)
    return {name: view.tolist() for name, view in layout.views(vector).items()}


def _row_ids(name: str, value: dict[str, Any], room: int) -> tuple[NDArray[np.int64], object]:
    """The ids of a tensor's rows, and their values."""
    if value.keys() != {"rows", "values"}:
        came = ", ".join(map(shown, sorted(value)[:5])) or "nothing"
        raise _unfit(name, f'numbers, or {{"rows": […], "values": [[…]]}}, came an object of {came}')
    shape, numbers = _flat_numbers(name, value["rows"], room)
    if len(shape) != 1 or not all(type(number) is int and 0 <= number < PARAMETERS_MAX for number in numbers):
        raise _unfit(name, "rows to be a list of whole numbers from 0 on, the places of the rows")
    return checked_ids(name, np.array(numbers, np.int64)), value["values"]


def _flat_numbers(name: str, value: object, room: int) -> tuple[tuple[int, ...], list[int | float]]:
    """Shape and numbers of nested lists, one level at a time: no recursion, and nothing is converted on the way."""
    shape: list[int] = []
    level: list[Any] = [value]
    while level and (types := set(map(type, level))) == {list}:
        lengths = set(map(len, level))
        if len(lengths) > 1:
            raise _unfit(name, f"lists of one length at each level, came lengths {min(lengths)} and {max(lengths)}")
        shape.append(lengths.pop())
        if len(level) * shape[-1] > room:
            raise _too_many()
        level = list(chain.from_iterable(level))
    if level and not types <= {int, float}:
        strangers = sorted(kind.__name__ for kind in types - {int, float})
        raise _unfit(name, f"numbers in lists of equal length, came {', '.join(strangers)}")
    if len(level) > room:
        raise _too_many()
    return tuple(shape), level


def _unfit(name: str, expected: str) -> Refused:
    return refuse("validation-error", f"tensor {shown(name)}: expected {expected}")


def _too_many() -> Refused:
    detail = f"expected at most {JSON_ELEMENTS_MAX} elements as JSON, came more: send {MEDIA_TYPE}"
    return refuse("too-large", detail, limit=JSON_ELEMENTS_MAX)


def _float32(numbers: list[int | float]) -> NDArray[np.float32]:
    try:
        exact = np.array(numbers, np.float64)
    except OverflowError:  # an integer beyond double: beyond float32 too
        exact = np.array([max(-1e300, min(1e300, number)) for number in numbers], np.float64)
    with np.errstate(over="ignore"):
        return exact.astype(np.float32)
