"""The optimizers: one file a family, one row a rule."""

from __future__ import annotations

from functools import lru_cache

from gradserve.specs import OptimizerSpec

from .adam import Adam, AdamW
from .rule import Rule, Slot
from .sgd import Sgd

__all__ = ["RULES", "Adam", "AdamW", "Rule", "Sgd", "Slot", "rule_for"]

RULES: dict[str, type[Sgd] | type[Adam] | type[AdamW]] = {"sgd": Sgd, "adam": Adam, "adamw": AdamW}


@lru_cache(maxsize=1024)
def rule_for(spec: OptimizerSpec) -> Rule:
    """The arithmetic of a spec, with the spec's hyperparameters."""
    return RULES[spec.name].model_validate(spec.model_dump())
