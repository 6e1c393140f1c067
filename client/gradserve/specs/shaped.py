"""Statistics of rows and columns: SM3. Legend: `optimizers.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from .base import Fraction
from .optimizer_fields import Decay, DecayMode, Eps, Lr, Maximize, OptimizerFields


class Sm3(OptimizerFields):
    """Adagrad with one number a row and column instead of one a weight. Matches optax.sm3."""

    summary: ClassVar[str] = "Adagrad in the memory of rows and columns: embeddings and large matrices."
    formula: ClassVar[str] = (
        "n = g² + the least of the axes' accumulators here; x = g / sqrt(n + eps), 0 where n is 0; each axis keeps the "
        "largest n of each of its places; m <- momentum m + (1 - momentum) x; w -= lr m."
    )
    source: ClassVar[str] = "optax.sm3; Anil et al. 2019, SM3-II (arXiv:1901.11150)."
    use_when: ClassVar[str] = "Large sparse tables, or where memory is short."
    field_aliases: ClassVar[Mapping[str, str]] = {
        **OptimizerFields.field_aliases,
        "mu": "momentum",
        "beta1": "momentum",
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}

    name: Literal["sm3"] = "sm3"
    lr: Lr = 1e-1
    momentum: Annotated[Fraction, Field(description="Decay of the mean change; 0 keeps none.")] = 0.9
    eps: Eps = 1e-8
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


FAMILY: Final[tuple[type[OptimizerFields], ...]] = (Sm3,)
