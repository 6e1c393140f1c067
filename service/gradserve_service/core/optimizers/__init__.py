"""The optimizers: one file a family, one row a rule."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from gradserve.specs import OptimizerSpec

from .adagrad import Adagrad
from .adam import Adam, AdamW
from .adamax import Adamax
from .nadam import Nadam
from .rmsprop import RmsProp
from .rule import Memory, Rule, Slot
from .sgd import Sgd

__all__ = [
    "RULES", "Adagrad", "Adam", "AdamW", "Adamax", "Memory", "Nadam", "RmsProp", "Rule", "Sgd", "Slot", "rule_for",
]  # fmt: skip

AnyRule = Sgd | Adagrad | RmsProp | Adam | AdamW | Adamax | Nadam

RULES: Final[Mapping[str, type[AnyRule]]] = {
    "sgd": Sgd, "adagrad": Adagrad, "rmsprop": RmsProp, "adam": Adam, "adamw": AdamW, "adamax": Adamax, "nadam": Nadam,
}  # fmt: skip


@lru_cache(maxsize=1024)
def rule_for(spec: OptimizerSpec) -> Rule:
    """The arithmetic of a spec, with the spec's hyperparameters."""
    return RULES[spec.name].model_validate(spec.model_dump())
