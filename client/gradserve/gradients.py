"""Gradients as callers have them → the pieces of a frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import ValidationError, from_refused
from .problems import Refused, refuse
from .wire import Layout, RowIds, encode_frame, is_real


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The gradient of some rows of a tensor, an embedding table for instance; it is zero everywhere else.

        worker.push({"table": Rows(ids, values)})

    ids     int[n]: which rows; one that comes more than once counts with the sum of its values
    values  float[n, …]: the gradient of each
    """

    ids: ArrayLike
    values: ArrayLike


Gradients: TypeAlias = Mapping[str, ArrayLike | Rows] | NDArray[np.float32]
Pieces: TypeAlias = tuple[bytes | memoryview, ...]

IN_PLACE_BYTES_MIN = 256 << 10  # below this one copy is cheaper than a look at each tensor


def gradient_layout(layout: Layout | None, gradients: Gradients) -> Layout:
    """The run's layout, or the part of it that these gradients have; rows in the shape in which they come, and whole
    tensors too where the worker does not know the run's layout (None): then the server judges them.

    Raises `UnknownTensor`, `ValidationError`.
    """
    check_gradients(gradients)
    if isinstance(gradients, np.ndarray):
        if layout is None:
            raise ValidationError(
                "gradients: expected a dict of arrays, came a vector: it was computed at a part of the weights, whose "
                "order is not the run's"
            )
        return layout
    dense = {name: value for name, value in gradients.items() if not isinstance(value, Rows)}
    try:
        in_rows = {name: np.shape(value.values) for name, value in gradients.items() if isinstance(value, Rows)}
        if layout is None:
            return Layout.of({**{name: np.shape(value) for name, value in dense.items()}, **in_rows})
        whole = layout.subset(dense)
        if not in_rows:
            return whole
        return Layout.of({**dict(zip(whole.names, whole.shapes, strict=True)), **in_rows})
    except Refused as refused:
        raise from_refused(refused) from None
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists; what a foreign array says when it is none
        raise ValidationError(f"gradients: expected arrays: {error}") from None


def check_gradients(gradients: object) -> None:
    """Refuse (`ValidationError`) what is neither a dict nor an array."""
    if not isinstance(gradients, np.ndarray | Mapping):
        raise ValidationError(
            f"gradients: expected a dict of arrays or the flat float32 vector, came {type(gradients).__name__}"
        )


def copied_gradients(gradients: Gradients) -> Gradients:
    """The same, in memory of its own: the caller's arrays are free again. Raises `ValidationError`."""
    check_gradients(gradients)
    if isinstance(gradients, np.ndarray):
        return gradients.copy()
    try:
        return {
            name: Rows(np.array(tensor.ids), np.array(tensor.values)) if isinstance(tensor, Rows) else np.array(tensor)
            for name, tensor in gradients.items()
        }
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValidationError(f"gradients: expected arrays: {error}") from None


def gradient_vector(layout: Layout, gradients: Gradients) -> NDArray[np.float32]:
    """float32[N] in layout order: the flat vector itself, or a new one filled from the dict.

    `layout` is that of `gradient_layout`. float64 is rounded. Raises `LayoutMismatch`, `ValidationError`.
    """
    try:
        if not isinstance(gradients, np.ndarray):
            return layout.flatten(_values(gradients))
        if gradients.ndim != 1 or gradients.size != layout.parameters:
            raise refuse(
                "layout-mismatch",
                f"expected a dict of arrays or a vector of {layout.parameters:,} elements, "
                f"came an array of shape {list(gradients.shape)}",
            )
        if not is_real(gradients.dtype):
            raise ValidationError(f"gradients: expected real numbers, came {gradients.dtype}")
        return np.ascontiguousarray(gradients, np.float32)
    except Refused as refused:
        raise from_refused(refused) from None
    except (TypeError, ValueError, RuntimeError) as error:  # what a foreign array says when it cannot become one
        raise ValidationError(f"gradients: expected arrays of real numbers: {error}") from None


def gradient_pieces(layout: Layout, gradients: Gradients, metadata: Mapping[str, str]) -> Pieces:
    """The frame to send. Large contiguous float32 tensors go out from where they lie: leave them alone meanwhile."""
    rows = {} if isinstance(gradients, np.ndarray) else _row_ids(gradients)
    if not isinstance(gradients, np.ndarray) and not rows and layout.parameters * 4 >= IN_PLACE_BYTES_MIN:
        in_place = _in_place(layout, gradients)
        if in_place is not None:
            return (layout.header("float32", metadata), *in_place)
    try:
        return tuple(encode_frame(layout, gradient_vector(layout, gradients), metadata, rows=rows))
    except Refused as refused:  # not as many ids as rows
        raise ValidationError(refused.rejection.detail) from None


def _values(gradients: Mapping[str, ArrayLike | Rows]) -> dict[str, ArrayLike]:
    return {name: each.values if isinstance(each, Rows) else each for name, each in gradients.items()}


def _row_ids(gradients: Mapping[str, ArrayLike | Rows]) -> RowIds:
    """The ids of what comes in rows. Raises `ValidationError`."""
    found = {}
    for name, each in gradients.items():
        if not isinstance(each, Rows):
            continue
        try:
            ids = np.asarray(each.ids)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValidationError(f"tensor {name!r}: expected ids of rows, a vector of integers: {error}") from None
        if ids.size == 0:
            ids = ids.astype(np.int64)  # an empty list is one of floats
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            came = f"{ids.dtype} of shape {list(ids.shape)}"
            raise ValidationError(f"tensor {name!r}: expected ids of rows, a vector of integers, came {came}")
        found[name] = ids.astype(np.int64)
    return found


def _in_place(layout: Layout, tensors: Mapping[str, ArrayLike | Rows]) -> list[memoryview] | None:
    """Each tensor's own memory, in layout order; None when one of them has to be converted (or refused)."""
    pieces = []
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        tensor = tensors[name]
        if not isinstance(tensor, np.ndarray) or tensor.dtype != np.float32 or tensor.shape != shape:
            return None
        if not tensor.flags.c_contiguous:
            return None
        if tensor.size:
            pieces.append(tensor.reshape(-1).view(np.uint8).data)
    return pieces
