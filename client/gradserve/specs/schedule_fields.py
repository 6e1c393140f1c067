"""What every schedule's declaration has in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from .base import COUNT_MAX, Spec, folded

Steps = Annotated[int, Field(strict=True, ge=1, le=COUNT_MAX)]


class ScheduleFields(Spec):
    """What every schedule reads: `per`, whose only value so far is the default, "update"."""

    @classmethod
    def canonical_fields(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """As `Spec.canonical_fields`, without `per`."""
        rest = dict(given)
        for key in [key for key in rest if isinstance(key, str) and folded(key) == "per"]:
            if rest.pop(key) != "update":
                raise ValueError("expected per 'update': this version counts updates only")
        return super().canonical_fields(rest)
