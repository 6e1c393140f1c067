"""The optimizers and their names. Each is declared once; the service's rules inherit the declarations and add slots and
arithmetic.

Legend of the formulas: w weights, g gradient, lr rate of this update, t number of the update from 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import BeforeValidator, Field

from . import (
    adaptation,
    anchored,
    descent,
    distances,
    factored,
    layerwise,
    mixtures,
    moments,
    muon,
    preconditioned,
    scaled,
    schedule_free,
    shaped,
    signs,
    sparse,
    stepsizes,
    variances,
)
from .base import Family
from .optimizer_fields import OptimizerFields, folded_is

SGD = descent.Sgd

_FAMILIES = (
    descent.FAMILY,
    scaled.FAMILY,
    moments.FAMILY,
    layerwise.FAMILY,
    stepsizes.FAMILY,
    distances.FAMILY,
    adaptation.FAMILY,
    shaped.FAMILY,
    factored.FAMILY,
    muon.FAMILY,
    preconditioned.FAMILY,
    variances.FAMILY,
    mixtures.FAMILY,
    signs.FAMILY,
    anchored.FAMILY,
    schedule_free.FAMILY,
    sparse.FAMILY,
)
_BUILT: Mapping[str, type[OptimizerFields]] = {
    spec.model_fields["name"].default: spec for family in _FAMILIES for spec in family
}

# Known from elsewhere and not built: refused by name.
_NOT_BUILT = ("mechanic", "lbfgs")

OPTIMIZERS = Family(
    kind="optimizer",
    built=_BUILT,
    aliases={alias: (name, fields) for name, spec in _BUILT.items() for alias, fields in spec.other_names.items()},
    planned=_NOT_BUILT,
)

# What a Keras optimizer's config holds besides hyperparameters, and the value that asks for nothing.
_KERAS_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "useema": (False, None), "emaoverwritefrequency": (None,), "lossscalefactor": (None,),
    "gradientaccumulationsteps": (None,), "decay": (0, None), "clipnorm": (None,), "clipvalue": (None,),
    "globalclipnorm": (None,),
}  # fmt: skip
_KERAS_IGNORED = ("name", "emamomentum", "jitcompile", "islegacyoptimizer")


def read_optimizer(given: Any) -> Any:
    """Shorthand, aliases and Keras' serialised form, into what the union reads. Raises `ValueError`."""
    if isinstance(given, Mapping) and "class_name" in given:
        given = _from_keras(given)
    return OPTIMIZERS.read(given)


def _from_keras(given: Mapping[str, Any]) -> dict[str, Any]:
    """`{"class_name": "Adam", "config": {…}}` with Keras' own defaults."""
    config = given.get("config", {})
    name = given["class_name"]
    extra = set(given) - {"class_name", "config", "module", "registered_name", "build_config", "compile_config"}
    if not isinstance(config, Mapping) or not isinstance(name, str) or extra:
        raise ValueError("expected Keras' form {'class_name': …, 'config': {…}}")
    fields: dict[str, Any] = {"name": name.rpartition(">")[2], "compat": "keras"}
    for key, value in config.items():
        word = key.lower().replace("_", "") if isinstance(key, str) else ""
        if word in _KERAS_IGNORED or value in _KERAS_NEUTRAL.get(word, ()):
            continue
        if word == "decay":
            raise ValueError(f"expected no decay, came {value!r:.80}: it is a run's schedule, inverse_time")
        if word in ("useema", "emaoverwritefrequency", "lossscalefactor", "gradientaccumulationsteps"):
            raise ValueError(f"expected {key} unset, came {value!r:.80}: this version does not build it yet")
        fields[key] = value
    return fields


if TYPE_CHECKING:
    _AnyOptimizer = OptimizerFields
else:
    _AnyOptimizer = Union[tuple(_BUILT.values())]  # noqa: UP007 – of a tuple

OptimizerSpec = Annotated[Annotated[_AnyOptimizer, Field(discriminator="name")], BeforeValidator(read_optimizer)]


def merged_optimizer(current: OptimizerFields, changes: Mapping[str, Any]) -> OptimizerFields:
    """An optimizer with some fields changed (PATCH). Raises `ValueError`; the name cannot change."""
    name = next((value for key, value in changes.items() if folded_is(key, "name")), None)
    own = current.model_dump()
    if name is not None and (not isinstance(name, str) or OPTIMIZERS.name_of(name)[0] != own["name"]):
        raise ValueError(f"expected name {own['name']!r}, came {str(name)[:80]!r}: another rule needs another run")
    if any(folded_is(key, "compat") for key in changes):
        raise ValueError("compat sets defaults when a run is created: send the fields to change")
    fields = current.canonical_fields({key: value for key, value in changes.items() if not folded_is(key, "name")})
    return type(current).model_validate({**own, **fields})
