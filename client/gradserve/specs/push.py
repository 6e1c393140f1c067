"""What a push says of its gradient, in JSON fields or in a frame's metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..problems import refuse
from ..wire import DTYPES
from .base import Count, NotNegative, Positive, Real
from .messages import validation_refusal

CURSOR_BYTES_MAX: Final = 1_024

_IGNORED: Final = frozenset({"format", "codec"})  # safetensors writers name their framework; codec is checked
_INTEGER: Final = re.compile(r"-?[0-9]{1,16}")
_NUMBER: Final = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?")
_NUMBER_FIELDS: Final = frozenset({"base_version", "samples", "loss", "generation", "lr"})


class PushFields(BaseModel):
    """Everything of a push but its tensors. None: not said."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_version: Annotated[Count | None, Field(description="Version that the gradient was computed at.")] = None
    base: Annotated[str | None, Field(strict=True, max_length=256, description="ETag of those weights.")] = None
    samples: Annotated[Positive, Field(description="Samples that the gradient is the mean of.")] = 1.0
    loss: Annotated[Real | None, Field(description="Their mean loss.")] = None
    generation: Annotated[int | None, Field(strict=True, ge=1, le=2**53 - 1)] = None
    after: Annotated[str | None, Field(strict=True, max_length=128, description="Receipt of the last push.")] = None
    cursor: Annotated[str | None, Field(strict=True, description="Where in its samples the worker is; ≤ 1 KiB.")] = None
    lr: Annotated[NotNegative | None, Field(description="Only for a run whose schedule is 'client'.")] = None

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
        return {key: value if isinstance(value, str) else repr(value) for key, value in said.items()}


def _read(key: str, value: str) -> str | int | float:
    """The number that the text is, or the text itself: the field's own check then says what it expected."""
    if key not in _NUMBER_FIELDS:
        return value
    if _INTEGER.fullmatch(value):
        return int(value)
    return float(value) if _NUMBER.fullmatch(value) else value
