"""The optimizers: one file a family, one row a rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from gradserve.specs import OptimizerFields, OptimizerSpec

from . import adaptation, anchored, distances, mixtures, momo, schedule_free, signs, sparse, variances
from .adadelta import Adadelta
from .adafactor import Adafactor
from .adagrad import Adagrad
from .adam import Adam, AdamW
from .adamax import Adamax
from .fromage import Fromage
from .lamb import Lamb
from .lars import Lars
from .muon import Muon
from .nadam import Nadam
from .novograd import Novograd
from .polyak import PolyakSgd
from .rmsprop import RmsProp
from .rule import Memory, Rule, Slot
from .sgd import NoisySgd, Sgd
from .shampoo import Shampoo
from .sm3 import Sm3
from .soap import Soap

__all__ = ["MEMORY_NAMES", "NEVER_NEGATIVE", "RULES", "Memory", "Rule", "Slot", "rule_for"]

if TYPE_CHECKING:

    class _Built(OptimizerFields, Rule):
        """What every rule is: its declaration and its arithmetic."""


_FAMILIES: tuple[tuple[type[_Built], ...], ...] = (
    (Sgd, NoisySgd),
    (Adagrad, RmsProp, Adadelta),
    (Adam, AdamW, Adamax, Nadam),
    (Lamb, Lars, Novograd, Fromage),
    (PolyakSgd, *momo.FAMILY),
    distances.FAMILY,
    adaptation.FAMILY,
    (Sm3, Adafactor, Muon, Shampoo, Soap),
    variances.FAMILY,
    mixtures.FAMILY,
    signs.FAMILY,
    anchored.FAMILY,
    schedule_free.FAMILY,
    sparse.FAMILY,
)  # type: ignore[assignment]  # each is both, though none inherits `_Built`

RULES: Final[Mapping[str, type[_Built]]] = {
    rule.model_fields["name"].default: rule for family in _FAMILIES for rule in family
}


@lru_cache(maxsize=1024)
def rule_for(spec: OptimizerSpec) -> Rule:
    """The arithmetic of a spec, with the spec's hyperparameters."""
    return RULES[spec.name].model_validate(spec.model_dump())


def _every_form() -> Iterator[Rule]:
    return (rule.model_validate(form) for rule in RULES.values() for form in ({}, *rule.forms))


# What a state from outside is checked by, whichever rule will have it.
NEVER_NEGATIVE: Final = frozenset(slot.name for rule in _every_form() for slot in rule.slots if slot.never_negative)
MEMORY_NAMES: Final = frozenset(name for rule in _every_form() for name in rule.memory)
