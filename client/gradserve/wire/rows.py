"""Some rows of a tensor instead of the whole of it: how a frame says which.

A tensor of shape [R, …] that comes with n of its rows has the shape [n, …]; their places are an integer tensor of n
elements beside it, `<name>:rows`, and `__metadata__` names such tensors: `"rows": "[\\"<name>\\"]"`. A row may come
twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..problems import Refused, refuse
from .bounds import METADATA_KEY, shown
from .layout import JSON_ENCODER, Layout, padded
from .strict_json import parse_json

ROWS_KEY: Final = "rows"
IDS_SUFFIX: Final = ":rows"
ID_CODES: Final = {"I64": "int64", "I32": "int32", "U32": "uint32"}
ID_STORAGE: Final[dict[str, np.dtype[Any]]] = {
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "uint32": np.dtype("<u4"),
}

RowIds: TypeAlias = Mapping[str, NDArray[np.int64]]  # by tensor: the places of its rows, as they came


def declared_rows(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The tensors of which only rows are there. Raises `Refused` (malformed-tensors)."""
    if ROWS_KEY not in metadata:
        return ()
    text = metadata[ROWS_KEY]
    try:
        names = parse_json(text.encode())
    except Refused:
        names = None
    if type(names) is not list or not names or not all(type(name) is str for name in names):
        detail = f"{METADATA_KEY}.{ROWS_KEY}: expected a JSON list of tensor names, came {shown(text)}"
        raise refuse("malformed-tensors", detail)
    if len(set(names)) < len(names):
        raise refuse("malformed-tensors", f"{METADATA_KEY}.{ROWS_KEY}: expected each tensor once, came {shown(text)}")
    return tuple(names)


def check_id_shape(name: str, values: tuple[int, ...] | None, ids: tuple[int, ...] | None) -> None:
    """Refuse (malformed-tensors) rows without ids, ids without rows, and another number of them."""
    if values is None or ids is None:
        missing = name if values is None else f"{name}{IDS_SUFFIX}"
        detail = f"tensor {shown(name)} is declared to come in rows: expected {shown(missing)} as well, it is missing"
        raise refuse("malformed-tensors", detail)
    if not values or ids != (values[0],):
        detail = (
            f"tensor {shown(name)}: expected one id a row, so ids of shape [n] for rows of shape [n, …]; came ids of "
            f"shape {list(ids)} and rows of shape {list(values)}"
        )
        raise refuse("malformed-tensors", detail)


def checked_ids(name: str, ids: NDArray[Any]) -> NDArray[np.int64]:
    """The ids in memory of their own, read-only. Raises `Refused` (validation-error) for a negative one."""
    own: NDArray[np.int64] = ids.astype(np.int64)
    if own.size and (least := int(own.min())) < 0:
        detail = f"tensor {shown(name)}: expected ids of rows from 0 on, came {least}"
        raise refuse("validation-error", detail, tensor=name)
    own.flags.writeable = False
    return own


def rows_header(layout: Layout, dtype: str, ids: RowIds, metadata: Mapping[str, str] | None = None) -> bytes:
    """As `Layout.header`, for rows: `layout` has the shapes as they come, and the ids (int64) lie behind the data."""
    for name, rows in ids.items():
        check_id_shape(name, layout.shape(name), rows.shape)
    names = sorted(ids)
    said = {**(metadata or {}), ROWS_KEY: JSON_ENCODER.encode(names)}
    begin, entries = layout.data_bytes(dtype), []
    for name in names:
        end = begin + 8 * ids[name].size
        entry = f'{{"dtype":"I64","shape":[{ids[name].size}],"data_offsets":[{begin},{end}]}}'
        entries.append(f"{JSON_ENCODER.encode(name + IDS_SUFFIX)}:{entry}")
        begin = end
    section = layout.section(dtype)[:-1]  # without the closing brace
    return padded(f'{{"{METADATA_KEY}":{JSON_ENCODER.encode(said)},{section},{",".join(entries)}}}')


def ids_bytes(ids: RowIds) -> bytes:
    """The ids as they lie behind the data, in name order."""
    return b"".join(np.ascontiguousarray(ids[name], "<i8").tobytes() for name in sorted(ids))
