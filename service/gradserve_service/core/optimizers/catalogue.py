"""What each optimizer costs and keeps, beside what its declaration says: the catalogue, from the rules themselves."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from gradserve.specs import OPTIMIZERS

from . import RULES

__all__ = ["optimizer_catalogue"]

FLOAT32_BYTES: Final = 4
# What is promised of the bits, by the kind of a rule.
DETERMINISM: Final = {
    "elementwise": "exact: the same bits for any block size, number of threads and server",
}


@cache
def optimizer_catalogue() -> list[dict[str, Any]]:
    """Every optimizer: its declaration, presets, other names, slots and bytes. Not to be changed."""
    return [_entry(name) for name in OPTIMIZERS.built]


def _entry(name: str) -> dict[str, Any]:
    declared, rule = OPTIMIZERS.built[name], RULES[name]
    return {
        **declared.catalogue_entry(),
        "presets": {
            preset: rule.model_validate({"compat": preset}).model_dump(exclude={"name"}) for preset in rule.presets
        },
        "aliases": {
            alias: {"fields": dict(fields), "bytes_per_parameter": bytes_per_parameter(name, fields)}
            for alias, (meant, fields) in OPTIMIZERS.aliases.items()
            if meant == name
        },
        "slots": _slots(name),
        "numbers": sorted(rule().memory),
        "bytes_per_parameter": bytes_per_parameter(name, {}),
        "determinism": DETERMINISM[rule.kind],
    }


def bytes_per_parameter(name: str, fields: Any) -> int:
    """float32 of the weight and of each slot. Not counted: the gradient, and what is copied for an answer."""
    return FLOAT32_BYTES * (1 + len(RULES[name].model_validate(fields).slots))


def _slots(name: str) -> list[dict[str, Any]]:
    """Each slot with the field that brings it; null: always there."""
    found: dict[str, dict[str, Any]] = {}
    for form in ({}, *RULES[name].forms):
        for slot in RULES[name].model_validate(form).slots:
            row = {"name": slot.name, "meaning": slot.meaning, "initial": slot.initial, "with": next(iter(form), None)}
            found.setdefault(slot.name, row)
    return list(found.values())
