"""Which axis of a matrix belongs to the outputs: a fact of the model, on which some arithmetic depends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from .base import Spec

MatrixLayout = Literal["out_in", "in_out"]
AXES = "What the axes of a matrix are: out_in as in torch, in_out as in Keras and JAX."
_FIELDS = ("matrix_layout", "layout")  # what the pieces that depend on it call it

S = TypeVar("S", bound=Spec)


def without_layout(piece: Mapping[str, Any]) -> dict[str, Any]:
    """A canonical piece, without what it says of the layout: the run says it anew."""
    return {name: value for name, value in piece.items() if name not in _FIELDS}


def laid_out(piece: S, layout: MatrixLayout) -> S:
    """The piece, with this layout if it depends on one. Raises `ValueError` when it was told another."""
    field = next((name for name in _FIELDS if name in type(piece).model_fields), None)
    if field is None or getattr(piece, field) == layout:
        return piece
    if field in piece.model_fields_set:
        its = f"{getattr(piece, 'name', 'its')}'s {field} (or its compat's) {getattr(piece, field)!r}"
        raise ValueError(f"expected one layout of the matrices, came matrix_layout {layout!r} and {its}: send one")
    return piece.model_copy(update={field: layout})
