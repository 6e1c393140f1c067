"""What a push says of its gradient, in JSON fields or in a frame's metadata."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Final, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, field_validator

from ..problems import Refused, refuse
from ..wire import DTYPES, parse_json
from .base import Count, Positive, Real
from .groups import GROUPS_MAX
from .messages import validation_refusal

CURSOR_BYTES_MAX: Final = 1_024
RATE_MAX: Final = sys.float_info.max
LOSS_SCALE_MIN: Final = 2.0**-126  # a gradient is divided in float32
LOSS_SCALE_MAX: Final = 2.0**127

_IGNORED: Final = frozenset({"format", "codec"})  # safetensors writers name their framework; codec is checked
_INTEGER: Final = re.compile(r"-?[0-9]{1,16}")
_NUMBER: Final = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?")
_NUMBER_FIELDS: Final = frozenset({"base_version", "samples", "loss", "generation", "lr", "loss_scale"})


Rate: TypeAlias = float | Mapping[str, float]  # one for all, or one by group


def _checked_rate(given: Any) -> Rate | None:
    if given is None:
        return None
    if not isinstance(given, Mapping):
        return _rate_of(given, "a number ≥ 0")
    if not 1 <= len(given) <= GROUPS_MAX + 1 or not all(isinstance(name, str) for name in given):
        raise ValueError(f"expected a number, or 1 to {GROUPS_MAX + 1} numbers by group, came {len(given)}")
    return {name: _rate_of(rate, f"a number ≥ 0 for group {name[:80]!r}") for name, rate in given.items()}


def _rate_of(given: Any, expected: str) -> float:
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given <= RATE_MAX:
        raise ValueError(f"expected {expected}, came {given!r:.80}")
    return float(given)


class PushFields(BaseModel):
    """Everything of a push but its tensors. None: not said."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_version: Annotated[Count | None, Field(description="Version that the gradient was computed at.")] = None
    base: Annotated[str | None, Field(strict=True, max_length=256, description="ETag of those weights.")] = None
    samples: Annotated[Positive, Field(le=2**53, description="Samples that the gradient is the mean of.")] = 1.0
    loss: Annotated[Real | None, Field(description="Their mean loss.")] = None
    loss_scale: Annotated[
        Positive | None,
        Field(
            ge=LOSS_SCALE_MIN, le=LOSS_SCALE_MAX, description="What the loss was multiplied with before its gradient."
        ),
    ] = None
    generation: Annotated[int | None, Field(strict=True, ge=1, le=2**53 - 1)] = None
    after: Annotated[str | None, Field(strict=True, max_length=128, description="Receipt of the last push.")] = None
    cursor: Annotated[str | None, Field(strict=True, description="Where in its samples the worker is; ≤ 1 KiB.")] = None
    lr: Annotated[Rate | None, PlainValidator(_checked_rate)] = None  # only for a run whose schedule is `client`

    @field_validator("cursor")
    @classmethod
    def _cursor_fits(cls, cursor: str | None) -> str | None:
        size = len((cursor or "").encode())
        if size > CURSOR_BYTES_MAX:
            raise ValueError(f"expected a cursor of at most {CURSOR_BYTES_MAX} bytes, came {size}")
        return cursor

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """The fields of a frame's metadata, where numbers are strings. Raises `Refused`: validation-error,
        or dtype-unsupported for a codec that is not read."""
        codec = metadata.get("codec", "float32")
        if codec not in DTYPES:
            detail = f"expected codec {', '.join(DTYPES)}, came {codec[:80]!r}: send plain tensors"
            raise refuse("dtype-unsupported", detail)
        given = {key: _read(key, value) for key, value in metadata.items() if key not in _IGNORED}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise validation_refusal(error) from None

    def to_metadata(self) -> dict[str, str]:
        """Only what is said, as strings: floats in their shortest exact form."""
        said: dict[str, Any] = self.model_dump(exclude_none=True, exclude_unset=True)
        return {key: _written(value) for key, value in said.items()}


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        return json.dumps(value, separators=(",", ":"))
    return value if isinstance(value, str) else repr(value)


def _read(key: str, value: str) -> Any:
    """The number that the text is (lr: or the object), or the text itself: the field's own check then says what it
    expected."""
    if key not in _NUMBER_FIELDS:
        return value
    if key == "lr" and value.startswith("{"):
        try:
            return parse_json(value.encode())
        except Refused:
            return value
    if _INTEGER.fullmatch(value):
        return int(value)
    return float(value) if _NUMBER.fullmatch(value) else value
