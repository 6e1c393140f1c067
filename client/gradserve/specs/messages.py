"""Pydantic's findings in our words: what was expected, what came."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from ..problems import Refused, refuse
from .averages import AVERAGES
from .clips import CLIPS
from .optimizers import OPTIMIZERS
from .policies import AGGREGATIONS, STALENESS
from .schedules import SCHEDULES

ERRORS_MAX: Final = 16  # more would only hide the first

# A union puts the name of its member into the path of a field; a reader of the message knows no unions.
_UNIONS: Final = {
    "optimizer": OPTIMIZERS.built,
    "schedule": SCHEDULES.built,
    "parts": SCHEDULES.built,
    "then": SCHEDULES.built,
    "clip": CLIPS.built,
    "average": AVERAGES.built,
    "aggregation": AGGREGATIONS.built,
    "staleness": STALENESS.built,
}

_EXPECTED: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "missing": lambda _: "a value",
    "extra_forbidden": lambda _: "no field of that name",
    "greater_than_equal": lambda context: f"a number ≥ {_bound(context['ge'])}",
    "greater_than": lambda context: f"a number > {_bound(context['gt'])}",
    "less_than_equal": lambda context: f"a number ≤ {_bound(context['le'])}",
    "less_than": lambda context: f"a number < {_bound(context['lt'])}",
    "multiple_of": lambda context: f"a multiple of {_bound(context['multiple_of'])}",
    "finite_number": lambda _: "a finite number",
    "float_type": lambda _: "a number",
    "int_type": lambda _: "an integer",
    "bool_type": lambda _: "true or false",
    "string_type": lambda _: "a string",
    "string_unicode": lambda _: "text that UTF-8 can encode",
    "dict_type": lambda _: "an object",
    "model_type": lambda _: "an object",
    "model_attributes_type": lambda _: "an object",
    "tuple_type": lambda _: "a list",
    "string_too_long": lambda context: f"at most {context['max_length']} characters",
    "string_too_short": lambda context: f"at least {context['min_length']} characters",
    "string_pattern_mismatch": lambda context: f"text of the form {context['pattern']}",
    "too_short": lambda context: f"at least {context['min_length']} items",
    "too_long": lambda context: f"at most {context['max_length']} items",
    "json_invalid": lambda _: "JSON text",
    "json_type": lambda _: "JSON text",
    "int_parsing": lambda _: "an integer",
    "int_parsing_size": lambda _: "an integer of fewer digits",
    "int_from_float": lambda _: "an integer",
    "float_parsing": lambda _: "a number",
    "bool_parsing": lambda _: "true or false",
    "path_type": lambda _: "a path",
    "literal_error": lambda context: str(context["expected"]),
}


def validation_refusal(error: ValueError, within: str = "") -> Refused:
    """The refusal (validation-error) that names each field, what it expected and what came.

    `within` is the field that the validated object is the value of. The extra member `errors` holds the same as
    `[{"field", "expected", "came"}, …]`; `came` is null where `expected` is the whole sentence.
    """
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False)
        rows = [_row(dict(item), within) for item in found[:ERRORS_MAX]]
    else:
        rows = [{"field": within, "expected": str(error), "came": None}]
    return refuse("validation-error", "; ".join(map(_sentence, rows)), errors=rows)


def expected_of(item: Mapping[str, Any]) -> str:
    """What one of pydantic's findings expected."""
    kind, context = item["type"], item.get("ctx", {})
    if kind == "value_error":  # our own words, complete
        return str(context["error"])
    return _EXPECTED[kind](context) if kind in _EXPECTED else str(item["msg"])


def _row(item: Mapping[str, Any], within: str) -> dict[str, Any]:
    kind, field = item["type"], _path([within, *item["loc"]] if within else item["loc"])
    came = "nothing" if kind == "missing" else None if kind == "value_error" else _came(item["input"])
    return {"field": field, "expected": expected_of(item), "came": came}


def _sentence(row: Mapping[str, Any]) -> str:
    place = f"{row['field']}: " if row["field"] else ""
    if row["came"] is None:
        return f"{place}{row['expected']}"
    return f"{place}expected {row['expected']}, came {row['came']}"


def _path(location: list[str | int] | tuple[str | int, ...]) -> str:
    path = ""
    members: Mapping[str, object] = {}  # of the union that the part before belongs to
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part in members:
            members = {}
        else:
            path += f".{part}" if path else part
            members = _UNIONS.get(part, {})
    return path


def _bound(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)


def _came(value: object) -> str:
    """A scalar as it is; of anything larger only the kind: weights and gradients stay out of messages."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None or isinstance(value, (bool, int, float, str)):
        text = repr(value)
        return text if len(text) <= 80 else text[:79] + "…"
    return type(value).__name__
