"""Pydantic's findings in our words: what was expected, what came."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from ..problems import Refused, refuse

ERRORS_MAX: Final = 16  # more would only hide the first

# Members of unions put their name into the path of a field; a reader knows no unions.
_UNIONS: Final = frozenset({"optimizer", "schedule", "staleness", "aggregation", "clip"})

_EXPECTED: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "missing": lambda _: "a value",
    "extra_forbidden": lambda _: "no such field",
    "greater_than_equal": lambda context: f"a number ≥ {context['ge']:g}",
    "greater_than": lambda context: f"a number > {context['gt']:g}",
    "less_than_equal": lambda context: f"a number ≤ {context['le']:g}",
    "less_than": lambda context: f"a number < {context['lt']:g}",
    "finite_number": lambda _: "a finite number",
    "float_type": lambda _: "a number",
    "int_type": lambda _: "an integer",
    "bool_type": lambda _: "true or false",
    "string_type": lambda _: "a string",
    "dict_type": lambda _: "an object",
    "tuple_type": lambda _: "a list",
    "string_too_long": lambda context: f"at most {context['max_length']} characters",
    "too_long": lambda context: f"at most {context['max_length']} items",
    "literal_error": lambda context: f"{context['expected']}",
}


def validation_refusal(error: ValueError, within: str = "") -> Refused:
    """The refusal (validation-error) that names each field, what it expected and what came.

    `within` is the field that the validated object is the value of. The extra member `errors` holds the same as
    `[{"field", "expected", "came"}]`.
    """
    if not isinstance(error, ValidationError):
        rows = [{"field": within, "expected": str(error), "came": None}]
    else:
        found = error.errors(include_url=False)
        rows = [_row(item, within) for item in found[:ERRORS_MAX]]
    return refuse("validation-error", "; ".join(map(_sentence, rows)), errors=rows)


def _row(item: Mapping[str, Any], within: str) -> dict[str, Any]:
    kind, context = item["type"], item.get("ctx", {})
    path = _path(([within] if within else []) + list(item["loc"]))
    if kind == "value_error":  # our own words, complete
        return {"field": path, "expected": str(context["error"]), "came": None}
    expected = _EXPECTED[kind](context) if kind in _EXPECTED else item["msg"]
    return {"field": path, "expected": expected, "came": "nothing" if kind == "missing" else _came(item["input"])}


def _sentence(row: Mapping[str, Any]) -> str:
    place = f"{row['field']}: " if row["field"] else ""
    return f"{place}{row['expected']}" if row["came"] is None else f"{place}expected {row['expected']}, came {row['came']}"


def _path(location: list[str | int]) -> str:
    words: list[str] = []
    for i, part in enumerate(location):
        if isinstance(part, int):
            words.append(f"[{part}]")
            continue
        owner = [word for word in location[:i] if isinstance(word, str)][-1:]
        if owner and owner[0] in _UNIONS and location[i - 1] in (owner[0], 0, 1, 2, 3, 4, 5, 6, 7) and _is_tag(part):
            continue
        words.append(f".{part}" if words else part)
    return "".join(words)


def _is_tag(part: str) -> bool:
    return part in {"sgd", "adam", "adamw", "constant", "warmup_cosine", "power", "global_norm", "value", "async", "none", "inverse"}


def _came(value: object) -> str:
    """A scalar as it is; of anything larger only the kind: weights and gradients stay out of messages."""
    if value is None or isinstance(value, (bool, int, float, str)):
        text = repr(value)
        return text if len(text) <= 80 else text[:79] + "…"
    return {dict: "an object", list: "a list", tuple: "a list"}.get(type(value), type(value).__name__)
