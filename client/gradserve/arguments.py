"""What callers hand in, checked and in plain Python values: nothing of it may fail later as a bare Python error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import ValidationError


def plain(value: Any, field: str) -> Any:
    """Specs, NumPy's scalars and collections of them as JSON-able values. Raises `ValidationError`."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(name): plain(item, f"{field}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{field}[{place}]") for place, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise ValidationError(f"{field}: expected a finite number, came {value}")
    raise ValidationError(f"{field}: expected a spec, a number, text or a collection of them, came {kind_of(value)}")


def checked_count(field: str, value: Any) -> int | None:
    """A whole number ≥ 0, NumPy's included, or None. Raises `ValidationError`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise ValidationError(f"{field}: expected an integer ≥ 0, came {value!r:.80}")
    return int(value)


def checked_seconds(field: str, value: Any) -> float:
    """A finite time ≥ 0. Raises `ValidationError`."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= float(value) < math.inf:
        raise ValidationError(f"{field}: expected seconds ≥ 0, came {value!r:.80}")
    return float(value)


def kind_of(value: object) -> str:
    """The name of its type, for an error."""
    return type(value).__name__
