"""What a run is asked to be (`RunSpec`, the body of PUT) and what may change later (`RunChanges`, of PATCH)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from .accumulation import Accumulate, NonFinite, NonFinitePolicy
from .averages import AverageSpec, keras_average
from .base import COUNT_MAX, Spec, folded
from .clips import ClipSpec
from .groups import Groups
from .matrix_layout import AXES, MatrixLayout, laid_out, without_layout
from .messages import validation_refusal
from .optimizer_fields import OptimizerFields, folded_is
from .optimizers import OPTIMIZERS, OptimizerSpec, merged_optimizer
from .policies import AggregationSpec, Async, NoStaleness, StalenessSpec
from .schedules import ScheduleSpec

NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"  # of runs, workers and checkpoints
CLIPS_MAX = 8  # each is a pass over the gradient

EPOCHS_UNKNOWN = (
    "schedule: expected to know how long an epoch is: send steps_per_epoch with the schedule, or the run's dataset_size"
)

_REPLACED = (
    "schedule", "clip", "aggregation", "staleness", "accumulate", "groups", "average", "sparse_semantics",
)  # fmt: skip
_KERAS_CLIPS = {"globalclipnorm", "clipvalue", "clipnorm"}
_KERAS_AVERAGE = {"useema", "emamomentum", "emaoverwritefrequency"}


def _one_or_many(given: Any) -> Any:
    if given is None:
        return ()
    return (given,) if isinstance(given, (str, Mapping, Spec)) else given


Clips = Annotated[tuple[ClipSpec, ...], Field(max_length=CLIPS_MAX), BeforeValidator(_one_or_many)]
Average = Annotated[AverageSpec | None, Field(description="Kept beside the weights; null: none.")]
Schedule = Annotated[ScheduleSpec | None, Field(description="null is constant.")]
Aggregation = Annotated[AggregationSpec, BeforeValidator(lambda given: Async() if given is None else given)]
Accumulates = Annotated[Accumulate | None, Field(description="null: each push is an update.")]
SparseSemantics = Annotated[
    Literal["exact", "lazy"],
    BeforeValidator(lambda given: "exact" if given is None else given),
    Field(
        description="Gradients of some rows. exact: only where the whole gradient, zero elsewhere, would do the same; "
        "lazy: also where untouched rows then keep moments that would decay, and are not decayed themselves."
    ),
]
Staleness = Annotated[StalenessSpec, BeforeValidator(lambda given: NoStaleness() if given is None else given)]


class Branch(Spec):
    """Where a new run starts: a checkpoint of another one."""

    run: Annotated[str, Field(strict=True, pattern=NAME_PATTERN)]
    checkpoint: Annotated[str, Field(strict=True, pattern=NAME_PATTERN)]


def _branch_needs_no_optimizer(schema: dict[str, Any]) -> None:
    schema["required"] = []
    schema["anyOf"] = [{"required": ["optimizer"]}, {"required": ["branch"]}]


class RunSpec(Spec):
    """What a run is asked to be. Only `optimizer` is required; a branch inherits what is not said."""

    model_config = ConfigDict(json_schema_extra=_branch_needs_no_optimizer)

    optimizer: OptimizerSpec
    schedule: Schedule = None
    clip: Clips = ()
    aggregation: Aggregation = Async()
    staleness: Staleness = NoStaleness()
    accumulate: Accumulates = None
    groups: Groups = ()
    average: Average = None
    sparse_semantics: SparseSemantics = "exact"
    dataset_size: Annotated[
        int | None,
        Field(strict=True, ge=1, le=COUNT_MAX, description="Samples of an epoch; null: no epochs then."),
    ] = None
    matrix_layout: Annotated[
        MatrixLayout | None,
        Field(description=f"{AXES} Handed on to what depends on it (muon, adaptive); null: as their own fields say."),
    ] = None
    non_finite: NonFinitePolicy = NonFinite()
    branch: Annotated[Branch | None, Field(description="Start from a checkpoint of another run.")] = None
    weights: Annotated[
        dict[str, Any] | None, Field(description="First weights of a tiny run, as nested lists.", repr=False)
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _read_what_keras_puts_on_the_optimizer(cls, given: Any) -> Any:
        """Clipping, averaging and Keras 2's `decay` are fields of the optimizer there, and of the run here."""
        if not isinstance(given, Mapping):
            return given
        given = cls.canonical_fields(given)
        optimizer = given.get("optimizer")
        if not isinstance(optimizer, Mapping):
            return given
        inner = optimizer.get("config") if "class_name" in optimizer else optimizer
        if not isinstance(inner, Mapping):
            return given
        words = _KERAS_CLIPS | ({"decay"} if _decay_is_of_the_rate(optimizer) else set())
        if any(folded_is(key, "useema") for key in inner):
            words |= _KERAS_AVERAGE
        found = {k: v for k, v in inner.items() if isinstance(k, str) and folded(k) in words}
        rest = {key: value for key, value in inner.items() if key not in found}
        cleaned = {**optimizer, "config": rest} if "class_name" in optimizer else rest
        decay = [found.pop(key) for key in list(found) if folded(key) == "decay"]
        averaging = {folded(key): found.pop(key) for key in list(found) if folded(key) in _KERAS_AVERAGE}
        elsewhere = {**_keras_decay(given, decay), **keras_average(given, averaging)}
        return {**given, "optimizer": cleaned, **_keras_clips(given, found), **elsewhere}

    @classmethod
    def branched(cls, inherited: Mapping[str, Any], given: Mapping[str, Any]) -> RunSpec:
        """The spec of a branch: what `given` does not say is that of the state it starts from (canonical).
        Raises `Refused` (validation-error)."""
        try:
            said = cls.canonical_fields(given)
            if said.get("weights") is not None:
                raise ValueError("expected branch or weights, both came: a branch has the weights of its checkpoint")
            kept = {k: v for k, v in inherited.items() if k != "branch"}
            if said.get("matrix_layout") is not None:
                kept["optimizer"] = without_layout(kept["optimizer"])
                kept["clip"] = [without_layout(clip) for clip in kept["clip"]]
            return cls.model_validate({**kept, **said})
        except ValueError as error:  # pydantic's ValidationError is one
            raise validation_refusal(error) from None

    @model_validator(mode="after")
    def _epochs_can_be_told(self) -> Self:
        if self.schedule is not None and self.schedule.needs_dataset_size and self.dataset_size is None:
            raise ValueError(EPOCHS_UNKNOWN)
        return self

    @model_validator(mode="after")
    def _lay_out(self) -> Self:
        for name, piece in self.laid_out().items():
            object.__setattr__(self, name, piece)  # frozen for all others
        return self

    def laid_out(self) -> dict[str, Any]:
        """The fields that `matrix_layout` is handed on to, with it. Raises `ValueError` where another was said."""
        if self.matrix_layout is None:
            return {}
        clips = tuple(laid_out(clip, self.matrix_layout) for clip in self.clip)
        return {"optimizer": laid_out(self.optimizer, self.matrix_layout), "clip": clips}

    def canonical(self) -> dict[str, Any]:
        """The spec without weights as plain JSON values, keys sorted: equal for equal runs, readable by `RunSpec`."""
        # What came later is only written where it is said: the form is in the hash of every chain.
        unsaid = {name for name in ("accumulate", "average", "branch", "matrix_layout") if getattr(self, name) is None}
        unsaid |= {"sparse_semantics"} if self.sparse_semantics == "exact" else set()
        dumped = self.model_dump(mode="json", exclude={"weights", *unsaid})
        dumped["schedule"] = dumped["schedule"] or {"name": "constant"}
        return _sorted(dumped)  # type: ignore[no-any-return]


def _decay_is_of_the_rate(optimizer: Mapping[str, Any]) -> bool:
    """Whether a bare `decay` is Keras 2's. In torch's and optax' words it is RMSprop's alpha."""
    if "class_name" in optimizer:
        return True
    if any(folded_is(key, "compat") and folded_is(value, "keras") for key, value in optimizer.items()):
        return True
    name = next((value for key, value in optimizer.items() if folded_is(key, "name")), None)
    return not isinstance(name, str) or folded(name) not in OPTIMIZERS.spellings_of("rmsprop")


def _keras_clips(given: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    clips = [{"name": key, folded(key): value} for key, value in found.items() if value is not None]
    if clips and given.get("clip"):
        raise ValueError(f"expected clipping once, came clip and the optimizer's {', '.join(found)}: send clip")
    return {"clip": clips} if clips else {}


def _keras_decay(given: Mapping[str, Any], found: list[Any]) -> dict[str, Any]:
    """lr / (1 + decay k), as Keras 2 computed it from `iterations`."""
    if not found or found[0] is None:
        return {}
    decay = found[0]
    if len(found) > 1 or isinstance(decay, bool) or not isinstance(decay, (int, float)) or not decay >= 0:
        raise ValueError(f"expected the optimizer's decay once, as a number ≥ 0, came {found!r:.80}")
    if decay == 0:
        return {}
    if given.get("schedule") is not None:
        raise ValueError(f"expected one schedule, came schedule and the optimizer's decay {decay!r:.80}: send schedule")
    return {"schedule": {"name": "inverse_time", "decay_rate": decay, "decay_steps": 1.0}}


class RunChanges(Spec):
    """Changes of a run. `optimizer` merges into the present one; the others replace theirs (null: the default)."""

    optimizer: dict[str, Any] | None = None
    schedule: Schedule = None
    clip: Clips = ()
    aggregation: Aggregation = Async()
    staleness: Staleness = NoStaleness()
    accumulate: Accumulates = None
    groups: Groups = ()
    average: Average = None
    sparse_semantics: SparseSemantics = "exact"
    state: Literal["running", "paused", "closed"] | None = None

    def asked(self) -> dict[str, Any]:
        """What was given, as plain JSON values: equal for equal requests."""
        return self.model_dump(mode="json", exclude_unset=True)

    def apply(self, spec: RunSpec) -> RunSpec:
        """The spec after these changes (`state` is not part of it). Raises `Refused` (validation-error)."""
        given = self.model_fields_set
        if self.schedule is not None and self.schedule.needs_dataset_size and spec.dataset_size is None:
            raise validation_refusal(ValueError(EPOCHS_UNKNOWN))
        update: dict[str, Any] = {name: getattr(self, name) for name in _REPLACED if name in given}
        if self.optimizer:
            update["optimizer"] = _merged(spec.optimizer, self.optimizer)
        changed = spec.model_copy(update=update)
        try:
            return changed.model_copy(update=changed.laid_out())
        except ValueError as error:
            raise validation_refusal(error) from None


def _merged(current: OptimizerFields, changes: Mapping[str, Any]) -> OptimizerFields:
    try:
        return merged_optimizer(current, changes)
    except ValueError as error:  # pydantic's ValidationError is one
        raise validation_refusal(error, within="optimizer") from None


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
