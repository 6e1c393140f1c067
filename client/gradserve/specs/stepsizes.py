"""Step sizes found while training, from the loss: Polyak's. Legend: `optimizers.py`; ‖·‖ is over the whole run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from .base import Positive, Real
from .optimizer_fields import Decay, DecayMode, Eps, Lr, Maximize, OptimizerFields


class PolyakSgd(OptimizerFields):
    """Steps as long as the loss is far from its minimum. Matches optax.polyak_sgd."""

    summary: ClassVar[str] = "SGD whose step follows from the loss: long far from the minimum, short near it."
    formula: ClassVar[str] = (
        "a = min((loss - f_min) / (‖g‖² + eps), max_lr); w -= lr a g. variant sps+: max(loss - f_min, 0)."
    )
    source: ClassVar[str] = "optax.polyak_sgd; Loizou et al. 2021 (arXiv:2002.10542); sps+: Garrigos et al. 2023."
    use_when: ClassVar[str] = "Losses whose minimum is known, such as 0; each push has to name its loss."
    field_aliases: ClassVar[Mapping[str, str]] = {
        **OptimizerFields.field_aliases, "maxlearningrate": "max_lr", "scaling": "lr",
    }  # fmt: skip
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}
    other_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"sps": {}}
    needs_loss: ClassVar[bool] = True

    name: Literal["polyak_sgd"] = "polyak_sgd"
    lr: Lr = 1.0
    max_lr: Annotated[Positive, Field(description="The longest step.")] = 1.0
    f_min: Annotated[Real, Field(description="The smallest loss there can be.")] = 0.0
    eps: Eps = 0.0
    variant: Annotated[Literal["sps", "sps+"], Field(description="sps+: a loss below f_min gives no step.")] = "sps"
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


FAMILY: Final[tuple[type[OptimizerFields], ...]] = (PolyakSgd,)
