"""JSON as it leaves: strict, whatever the numbers are."""

from __future__ import annotations

import json
import math
from typing import Any

from fastapi.responses import JSONResponse

__all__ = ["JsonAnswer", "encode_json"]


def encode_json(document: Any) -> bytes:
    """Compact UTF-8. NaN and Infinity, which JSON has no words for, become null: weights that have diverged must not
    turn the answer to an applied gradient into an error."""
    try:
        return _ENCODER.encode(document).encode()
    except ValueError:
        return _ENCODER.encode(_finite(document)).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=str)


class JsonAnswer(JSONResponse):
    """The answer of a cold route."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return encode_json(content)
