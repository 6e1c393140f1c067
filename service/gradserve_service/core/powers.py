"""Powers and rates that stay inside the floats: what the schedules share."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["RATE_MAX", "cosine_down", "power_of"]

RATE_MAX: Final = math.nextafter(math.inf, 0.0)  # an entry holds no infinity


def power_of(base: float, exponent: float) -> float:
    """base^exponent for base ≥ 0; the largest number instead of an exception."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return RATE_MAX


def cosine_down(share: float) -> float:
    """Half a cosine from 1 at share 0 to 0 at share 1."""
    return 0.5 * (1.0 + math.cos(math.pi * share))
