"""What each optimizer costs and keeps, beside what its declaration says: the catalogue, from the rules themselves."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from gradserve.specs import OPTIMIZERS
from gradserve.wire import Layout

from ..slots import own_layouts
from . import RULES

__all__ = ["optimizer_catalogue"]

FLOAT32_BYTES: Final = 4
# What is promised of the bits, by the kind of a rule.
DETERMINISM: Final = {
    "elementwise": "exact: the same bits for any block size, number of threads and server",
    "per_tensor": "exact: sums over a tensor in fixed chunks; the same bits for any number of threads and server",
    "whole_run": "exact: sums over the run in fixed chunks; the same bits for any number of threads and server",
    "shaped": "exact: tensor by tensor; the same bits for any number of threads and server",
}
OF_ONE_TYPE: Final = "of one machine type: matrix products; the same bits on servers with the same processor and NumPy"
A_MATRIX: Final = Layout.of({"kernel": [1024, 1024]})


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
        "sparse": _sparse(name),
        "determinism": DETERMINISM[rule.kind] if rule.every_machine else OF_ONE_TYPE,
    }


def _sparse(name: str) -> dict[str, str]:
    """What gradients of some rows are to it: with the defaults, and with each field that changes it."""
    rule = RULES[name]
    found = {"default": rule().sparse_as_set}
    for form in rule.forms:
        if (sparse := rule.model_validate(form).sparse_as_set) != found["default"]:
            found[next(iter(form))] = sparse
    return dict(found)


def bytes_per_parameter(name: str, fields: Any) -> int:
    """float32 of the weight and of each slot. Not counted: the gradient, and what is copied for an answer.

    Of a large matrix, where a slot for rows and columns is next to nothing.
    """
    slots = RULES[name].model_validate(fields).slots
    own = own_layouts(slots, A_MATRIX)
    elements = sum(own.get(slot.name, A_MATRIX).parameters for slot in slots)
    return round(FLOAT32_BYTES * (1 + elements / A_MATRIX.parameters))


def _slots(name: str) -> list[dict[str, Any]]:
    """Each slot with the field that brings it; null: always there."""
    found: dict[str, dict[str, Any]] = {}
    for form in ({}, *RULES[name].forms):
        for slot in RULES[name].model_validate(form).slots:
            row = {"name": slot.name, "meaning": slot.meaning, "initial": slot.initial, "with": next(iter(form), None)}
            found.setdefault(slot.name, row)
    return list(found.values())
