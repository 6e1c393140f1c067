"""What every specification shares: reading of names and fields as people write them, one canonical form out.

Spellings are compared *folded*: case, `-` and `_` do not matter, so `weight-decay`, `weightDecay` and `weight_decay`
are one word. A family (optimizers, schedules, …) is a `Family`: what is built, what else it is called, what the
design knows but this version does not do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic import ValidationError as PydanticError

from ..errors import from_refused

COUNT_MAX = 2**53 - 1  # the largest integer that every JSON reader keeps exactly

Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
NotNegative = Annotated[Real, Field(ge=0)]
Positive = Annotated[Real, Field(gt=0)]
Fraction = Annotated[Real, Field(ge=0, lt=1)]
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0, le=COUNT_MAX)]
ReportName = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._/@-]{0,99}$")]  # of a reported value


def folded(spelling: str) -> str:
    """The spelling without what does not matter."""
    return spelling.lower().replace("-", "").replace("_", "")


def plain(value: Any) -> Any:
    """NumPy's scalars and arrays as the Python numbers that equal them, in a list too; everything else as it is."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


class Spec(BaseModel):
    """A frozen declaration. Unknown fields are refused by name; aliases are read and never written.

    Made by hand (`gs.Adam(lr=-1)`) it raises `gradserve.ValidationError`, a `ValueError` too; as a part of what is
    validated its findings join those of the whole.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    summary: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""
    use_when: ClassVar[str] = ""
    field_aliases: ClassVar[Mapping[str, str]] = {}  # folded spelling → field

    def __init__(self, *positional: Any, **fields: Any) -> None:
        if positional:
            first = next(
                name for name in type(self).model_fields if name not in ("name", "mode", "per", "steps_per_epoch")
            )
            raise TypeError(f"{type(self).__name__} takes its fields by name: {type(self).__name__}({first}=…)")
        try:
            super().__init__(**fields)
        except PydanticError as error:
            from .messages import validation_refusal  # it knows every family, and they are made of this

            raise from_refused(validation_refusal(error, within=type(self).__name__)) from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # validation need not come through here

    @classmethod
    def canonical_fields(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The same values under the fields' own names. Raises `ValueError` for unknown or doubled fields."""
        spellings = _spellings(cls)
        canonical: dict[str, Any] = {}
        for spelling, value in given.items():
            name = spellings.get(folded(spelling)) if isinstance(spelling, str) else None
            if name is None:
                raise ValueError(cls._unknown_field(spelling))
            if name in canonical:
                raise ValueError(f"expected {name} once, it came under two spellings: send one")
            canonical[name] = plain(value)
        return canonical

    @classmethod
    def _unknown_field(cls, spelling: object) -> str:
        near = get_close_matches(str(spelling), cls.model_fields, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return f"expected only the fields {', '.join(cls.model_fields)}, came {str(spelling)[:80]!r}{hint}"

    @model_validator(mode="before")
    @classmethod
    def _read_aliases(cls, given: Any) -> Any:
        return cls.canonical_fields(given) if isinstance(given, Mapping) else given

    @classmethod
    def catalogue_entry(cls) -> dict[str, Any]:
        """What the catalogue says of it: name, summary, formula, hyperparameters, source, use_when.

        The hyperparameters are a JSON schema; `aliases` are other spellings, where case, `-` and `_` do not matter.
        """
        schema = cls.model_json_schema()
        name = schema["properties"].pop("name", schema["properties"].pop("mode", {}))
        for alias, field_name in cls.field_aliases.items():
            schema["properties"].get(field_name, {}).setdefault("aliases", []).append(alias)
        return {
            "name": name.get("const"),
            "summary": cls.summary,
            "formula": cls.formula,
            "hyperparameters": schema,
            "source": cls.source,
            "use_when": cls.use_when,
        }


@cache
def _spellings(spec: type[Spec]) -> Mapping[str, str]:
    """Folded spelling → field, aliases included. Asked for with every spec that is read, in a replay too."""
    return {**{folded(name): name for name in spec.model_fields}, **spec.field_aliases}


@dataclass(frozen=True)
class Family:
    """One kind of specification: its members and their names."""

    kind: str
    built: Mapping[str, type[Spec]]
    aliases: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)  # folded → name, preset
    planned: tuple[str, ...] = ()
    planned_aliases: Mapping[str, str] = field(default_factory=dict)
    tag: str = "name"
    cure: str = ""

    def name_of(self, spelling: str) -> tuple[str, Mapping[str, Any]]:
        """Canonical name and the field values that the spelling stands for. Raises `ValueError`."""
        word = folded(spelling)
        for name in self.built:
            if word == folded(name):
                return name, {}
        if word in self.aliases:
            return self.aliases[word]
        planned = self.planned_aliases.get(word) or next((name for name in self.planned if folded(name) == word), None)
        exist = f"expected one of {', '.join(self.built)}"
        if planned is not None:
            raise ValueError(f"{exist}; this version does not build the {self.kind} {planned!r} yet{self.cure}")
        raise ValueError(f"{exist}, came {spelling[:80]!r}")

    def spellings_of(self, name: str) -> set[str]:
        """The name and its aliases, folded."""
        return {folded(name), *(alias for alias, (meant, _) in self.aliases.items() if meant == name)}

    def read(self, given: Any) -> Any:
        """Bring shorthand (`"adam"`) and aliases into the form that the union of members reads."""
        if isinstance(given, str):
            given = {self.tag: given}
        if not isinstance(given, Mapping):
            if isinstance(given, Spec):
                return given
            raise ValueError(f"expected a name or an object with {self.tag!r}, came {type(given).__name__}")
        rest = dict(given)
        keys = [key for key in rest if isinstance(key, str) and folded(key) == self.tag]
        if len(keys) != 1 or not isinstance(rest[keys[0]], str):
            raise ValueError(f"expected {self.tag!r} to be one of {', '.join(self.built)}")
        name, preset = self.name_of(rest.pop(keys[0]))
        fields = self.built[name].canonical_fields(rest) if preset else rest
        return {**preset, **fields, self.tag: name}
