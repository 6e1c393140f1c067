"""Parameter groups: some tensors get another learning rate, another weight decay, or stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, BeforeValidator, Field

from ..wire import NAME_BYTES_MAX, TENSORS_MAX
from .base import Flag, NotNegative, Spec, folded

DEFAULT_GROUP: Final = "default"  # the name of all tensors that no group matches
GROUPS_MAX: Final = 64
WILDCARDS_MAX: Final = 64  # patterns with wildcards a run: each is tried on every tensor that is left

_WILDCARDS: Final = frozenset("*?[")

Pattern = Annotated[str, Field(strict=True, min_length=1, max_length=NAME_BYTES_MAX)]


class ParameterGroup(Spec):
    """The tensors that a pattern matches, and what is different for them. The first group that matches has a tensor."""

    field_aliases: ClassVar[Mapping[str, str]] = {"params": "match", "patterns": "match", "lrmult": "lr_scale"}

    name: Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    match: Annotated[
        tuple[Pattern, ...],
        Field(min_length=1, max_length=TENSORS_MAX, description="Tensor names; * ? [abc] are wildcards."),
        BeforeValidator(lambda given: (given,) if isinstance(given, str) else given),
    ]
    lr_scale: Annotated[NotNegative, Field(description="Times the scheduled learning rate.")] = 1.0
    weight_decay: Annotated[NotNegative | None, Field(description="null: the optimizer's.")] = None
    frozen: Annotated[Flag, Field(description="As if the tensors were left out of every push.")] = False

    @classmethod
    def canonical_fields(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """As `Spec.canonical_fields`; `trainable` is the opposite of `frozen`."""
        trainable = [key for key in given if isinstance(key, str) and folded(key) == "trainable"]
        fields = super().canonical_fields({key: value for key, value in given.items() if key not in trainable})
        for key in trainable:
            if type(given[key]) is not bool or "frozen" in fields:
                raise ValueError(f"expected frozen or {key} once, as true or false")
            fields["frozen"] = not given[key]
        return fields


def _named(given: Any) -> Any:
    """One group is a list of one; a group without a name is called by its place, from 1."""
    if given is None:
        return ()
    if isinstance(given, (Mapping, ParameterGroup)):
        given = (given,)
    if not isinstance(given, (list, tuple)):
        return given
    return [
        {"name": f"group{place}", **group}
        if isinstance(group, Mapping) and not any(isinstance(key, str) and folded(key) == "name" for key in group)
        else group
        for place, group in enumerate(given, 1)
    ]


def _fit_together(groups: tuple[ParameterGroup, ...]) -> tuple[ParameterGroup, ...]:
    names = [group.name for group in groups]
    doubled = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if doubled is not None:
        raise ValueError(f"expected groups of different names, {doubled!r} came twice")
    if DEFAULT_GROUP in names:
        raise ValueError(f"{DEFAULT_GROUP!r} is the group of all tensors that no other matches: choose another name")
    wildcards = sum(not _WILDCARDS.isdisjoint(pattern) for group in groups for pattern in group.match)
    if wildcards > WILDCARDS_MAX:
        raise ValueError(f"expected at most {WILDCARDS_MAX} patterns with wildcards, came {wildcards}: name tensors")
    return groups


Groups = Annotated[
    tuple[ParameterGroup, ...],
    Field(max_length=GROUPS_MAX, description="The first that matches a tensor has it; the rest are `default`."),
    BeforeValidator(_named),
    AfterValidator(_fit_together),
]


@lru_cache(maxsize=256)
def groups_of(groups: tuple[ParameterGroup, ...], names: tuple[str, ...]) -> tuple[int, ...]:
    """For each tensor the place of its group, from 1; 0 is the default group."""
    left = dict.fromkeys(names)
    found: dict[str, int] = {}
    for place, group in enumerate(groups, 1):
        for name in _matching(group.match, left):
            found[name] = place
            del left[name]
    return tuple(found.get(name, 0) for name in names)


@lru_cache(maxsize=256)
def idle_patterns(groups: tuple[ParameterGroup, ...], names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """`(group, pattern)` of every pattern that no tensor's name matches."""
    tensors = dict.fromkeys(names)
    return tuple(
        (group.name, pattern) for group in groups for pattern in group.match if not _matching((pattern,), tensors)
    )


def _matching(patterns: Sequence[str], names: Mapping[str, Any]) -> list[str]:
    """The names that one of the patterns matches. A pattern without wildcards costs a look-up."""
    wild = [pattern for pattern in patterns if not _WILDCARDS.isdisjoint(pattern)]
    exact = {pattern: None for pattern in patterns if pattern in names}
    if not wild:
        return list(exact)
    return [name for name in names if name in exact or any(fnmatchcase(name, pattern) for pattern in wild)]
