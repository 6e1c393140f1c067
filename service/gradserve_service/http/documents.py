"""JSON documents of the API as models: they describe the answers in OpenAPI (a test holds live answers to them) and
read the bodies that are no specification of a run."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gradserve.problems import PROBLEMS
from gradserve.specs import NAME_PATTERN, ReportName, validation_refusal

__all__ = [
    "Answer",
    "Checkpoint",
    "CheckpointList",
    "HistoryColumns",
    "ProblemDocument",
    "PushOutcome",
    "PushWithWeights",
    "Readiness",
    "Registration",
    "ReportBody",
    "RestoreBody",
    "Restored",
    "RunDescription",
    "RunList",
    "ServerDescription",
    "Statistics",
    "WeightsDocument",
    "WeightsLoaded",
    "WorkerList",
    "WorkerRow",
    "checked",
    "document_body",
]

Model = TypeVar("Model", bound=BaseModel)
Tensors = Annotated[
    dict[str, Any], Field(description="Nested lists by tensor name; a scalar is a number, null a NaN or Infinity.")
]
Version = Annotated[int, Field(ge=0, description="Number of weight changes since the first load, which is 0.")]
Receipt = Annotated[str | None, Field(description="Stands for the worker's last push; sent back as `after`.")]


def checked(model: type[Model], document: dict[str, Any]) -> Model:
    """The document as a model. Raises `validation-error` naming each field."""
    try:
        return model.model_validate(document)
    except ValidationError as exc:
        raise validation_refusal(exc) from None


def document_body(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a route that reads this model from a JSON body."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


class Answer(BaseModel):
    """A document that the server writes. Readers ignore members that they do not know: more may come."""

    model_config = ConfigDict(extra="allow")


class Readiness(Answer):
    """What a probe reads."""

    status: Literal["live", "ready"]
    quarantined: list[str] = Field(default=[], description="Why runs are set aside; absent where none is.")


class StoreDescription(Answer):
    """Where the journal is kept."""

    kind: Literal["sqlite", "redis"]
    url: str = Field(description="Without a password.")


class ServerDescription(Answer):
    """What a client may want to know before it starts."""

    name: Literal["gradserve"]
    version: str
    codecs: list[str]
    limits: dict[str, float]
    store: StoreDescription
    durability: Literal["memory", "journal", "fsync"]


class TensorDescription(Answer):
    """One tensor of a run."""

    name: str
    shape: list[int]
    offset: int = Field(description="First element in the flat vector.")
    group: str | None = Field(None, description="Only in a run with groups.")


class OpenBatch(Answer):
    """Pushes that make one update together."""

    pushes: int
    samples: float
    target: dict[str, float] | None = Field(description="What completes it; null: the next push.")


class RunDescription(Answer):
    """A run, as GET answers it."""

    name: str
    uid: str = Field(description="Of this run, never of another of the same name; sent back as `Gradserve-Run`.")
    state: Literal["running", "paused", "closed"]
    initialised: bool
    version: Version | None
    step: int = Field(ge=0, description="The optimizer's t.")
    updates: int = Field(ge=0, description="Updates that led to the present state; a restore takes them back.")
    samples_seen: float = Field(ge=0, description="Samples of these updates.")
    epoch: float | None = Field(description="samples_seen / dataset_size; null when the spec has no dataset_size.")
    position: int = Field(ge=0, description="Number of entries in the journal.")
    head: str = Field(description="Hash of the last entry, hex.")
    etag: str | None = Field(description="Of the present weights, quotes included.")
    lr: float | None = Field(description="Of the next update.")
    batch: OpenBatch | None = Field(description="With `accumulate`: the pushes that wait for an update together.")
    spec: dict[str, Any]
    tensors: list[TensorDescription]
    parameters: int = Field(ge=0)
    workers: int = Field(ge=0)
    durability: str
    created_at: int = Field(description="Milliseconds since the epoch.")
    warnings: list[str]


class RunItem(Answer):
    """A run in a list."""

    name: str
    uid: str
    created_at: int


class RunList(Answer):
    """One page of runs."""

    runs: list[RunItem]
    next_page_token: str | None = Field(description="null on the last page.")


class Registration(BaseModel):
    """A worker introduces itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    instance: str = Field(min_length=1, max_length=128, description="Random, once a process of the worker.")
    generation: int | None = Field(None, ge=1, strict=True, description="With a heartbeat: what registration answered.")
    metadata: dict[str, Any] | None = Field(None, description="For people: host, device, version.")


class WorkerRow(Answer):
    """What the run knows of a worker."""

    name: str
    generation: int = Field(ge=1, description="Rises with each new instance; an older one is fenced.")
    next_sequence: int = Field(ge=1, description="Sequence of the worker's next push.")
    receipt: Receipt
    cursor: str | None = Field(description="Where in its samples the worker was at its last push.")


class WorkerList(Answer):
    """All workers of a run."""

    workers: list[WorkerRow]


class PushBody(BaseModel):
    """A gradient as JSON, for curl and tiny runs. Only `gradients` is required."""

    gradients: Annotated[
        dict[str, Any],
        Field(
            description="Nested lists by tensor name; a scalar is a number. Some rows of a tensor: "
            '`{"rows": [3, 17], "values": [[…], […]]}`.'
        ),
    ]
    base_version: int | None = None
    base: str | None = Field(None, description="ETag of the weights that the gradient was computed at.")
    samples: float = Field(1.0, gt=0)
    loss: float | None = None
    generation: int | None = None
    after: Receipt = None
    cursor: str | None = Field(None, description="At most 1 KiB.")
    loss_scale: float | None = Field(
        None, description="What the loss was multiplied with: the gradient is divided by it, in float32."
    )
    lr: float | dict[str, float] | None = Field(
        None, description="Only when the run's schedule is `client`: one for all, or one by group."
    )


class PushOutcome(Answer):
    """What became of a gradient."""

    outcome: Literal["applied", "contributed", "skipped", "duplicate"]
    version: Version
    step: int
    staleness: int
    staleness_weight: float
    lr: float | None = Field(description="Before the staleness weight.")
    gradient_norm: float | None
    clip_scale: float | None
    finite: bool = Field(description="Whether all of the gradient were numbers, after division by `loss_scale`.")
    batch: OpenBatch | None = Field(description="With `accumulate`: the batch of this push, with it.")
    durability: str
    next_sequence: int
    receipt: Receipt
    original: dict[str, Any] | None = Field(None, description="Of a duplicate: the recorded outcome.")


class PushWithWeights(PushOutcome):
    """What became of a gradient, and the weights after it."""

    weights: Tensors


class WeightsDocument(Answer):
    """Weights as JSON, at most 65,536 elements."""

    version: Version
    weights: Tensors


class WeightsBody(BaseModel):
    """Weights to set, as JSON."""

    weights: Tensors


class ReportBody(BaseModel):
    """Values measured outside, such as a validation loss."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    values: Annotated[
        dict[ReportName, Annotated[float, Field(strict=True, allow_inf_nan=False)]],
        Field(min_length=1, max_length=100, description="Finite numbers by name."),
    ]
    version: int | None = Field(
        None, ge=0, le=2**53, strict=True, description="Of the weights they were measured at; absent: the present ones."
    )


class HistoryColumns(Answer):
    """Columns of one length, null where there is nothing; also `metrics/<name>`, and `gradient_norm/<tensor>`."""

    version: list[int]
    step: list[int | None] | None = None
    loss: list[float | None] | None = None
    lr: list[float | None] | None = Field(None, description="Before the staleness weight.")
    gradient_norm: list[float | None] | None = None
    update_norm: list[float | None] | None = Field(None, description="How far the weights went; null if not measured.")
    clip_scale: list[float | None] | None = None
    staleness: list[int | None] | None = None
    samples: list[float | None] | None = None
    time: list[float | None] | None = Field(None, description="Seconds since the epoch.")


class EffectiveRates(Answer):
    """Of all elements of the weights: what stands before the gradient after the last update."""

    min: float | None
    median: float | None
    max: float | None


class TensorStatistics(Answer):
    """One tensor's gradient in the last update that was measured; null if it did not come."""

    name: str
    gradient_norm: float | None
    gradient_max: float | None
    zero_fraction: float | None
    norm_ratio: float | None = Field(description="Norm over the largest tensor's norm.")


class Statistics(Answer):
    """What the last updates say about a run."""

    step: int
    updates: int
    samples_seen: float | None
    epoch: float | None
    gradient_norm: float | None = Field(description="Moving mean over about ten updates.")
    gradient_norm_median: float | None = Field(description="Of the last 64 updates.")
    converged: bool | None = Field(description="The mean norm is below `tolerance`; null without one.")
    effective_lr: EffectiveRates | None = Field(description="null for rules whose rate is the same for all elements.")
    memory: dict[str, float | None] = Field(description="The numbers that the optimizer keeps beside its slots.")
    measured_version: int | None = Field(description="The version whose update `tensors` are of.")
    tensors: list[TensorStatistics]
    warnings: list[str]


class RestoreBody(BaseModel):
    """Where to go back to: one of the two."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: str | None = Field(None, strict=True, pattern=NAME_PATTERN)
    version: int | None = Field(None, ge=0, le=2**53, strict=True, description="One that is still kept.")

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if (self.checkpoint is None) == (self.version is None):
            came = "neither" if self.checkpoint is None else "both"
            raise ValueError(f"expected either checkpoint or version, came {came}")
        return self


class Restored(Answer):
    """Where the run stands now. Its version went on rising."""

    version: Version
    etag: str
    step: int
    position: int


class Checkpoint(Answer):
    """A named state. One that was uploaded is of no version of this run."""

    name: str
    version: int | None
    step: int
    position: int | None
    etag: str | None
    bytes: int
    created_at: int = Field(description="Milliseconds since the epoch.")


class CheckpointList(Answer):
    """All checkpoints of a run."""

    checkpoints: list[Checkpoint]


class WeightsLoaded(Answer):
    """The weights are set."""

    version: Version
    etag: str
    step: int


class ProblemDocument(Answer):
    """RFC 9457. `detail` says what was expected, what came and what to do; each code may add members."""

    type: str = Field(description="/problems/<code>: a page that explains it.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="Path of the request.")
    code: str = Field(json_schema_extra={"enum": list(PROBLEMS)})
    request_id: str = Field(description="As in the Request-Id header, and in the server's log.")
