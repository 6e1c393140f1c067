"""All rules of a run: `decide`, `advance`, `update`. Pure: no I/O, no clock, no randomness, no environment.

    decide(control, request, at)   →  Append(entry) | Answered(…) | Rejection      looks, changes nothing
    advance(control, entry)        →  the control state after the entry            instant
    update(arrays, entry, …)       →  weights and slots after the entry            the arithmetic

What could differ between machines or moments (the learning rate of a schedule, the staleness weight, the time) is
computed by `decide` and written into the entry, so replay needs neither a schedule nor a clock. `advance` and
`update` serve the live path and replay alike.

`decide` for a push is an ordered table; the first check that speaks wins, because a later check may only be trusted
when the earlier ones hold: a repeated push must be recognised even while the run is paused, a zombie must hear that it
is fenced and not that its gradient is stale.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gradserve.problems import Refused, Rejection
from gradserve.specs import DEFAULT_GROUP, SAMPLES_MIN, Rate, RunChanges, RunSpec
from gradserve.wire import Layout

from . import schedules, staleness
from .averages import kept_slots
from .batches import EMPTY, Batch
from .control import ETAGS_KEPT, SUPERSEDED_KEPT, WORKERS_KEPT, Control, WorkerRow
from .entries import Entry, etag_of, write_entry
from .gradient import check_fit, spans_between
from .plateau import FRESH, PlateauState, after_report
from .repeats import OWN, Kind, Made, asked_digest, found, made_by, remembered
from .slots import own_layouts
from .sparse import rows_refused

# What is asked of a run. Every request is a value: the same request and control state give the same verdict.


@dataclass(frozen=True, slots=True)
class Push:
    """A gradient, as the rules see it: what it claims and what was measured of it before the queue."""

    worker: str
    sequence: int
    digest: str
    size: int  # bytes of the stored payload
    codec: str
    layout: Layout  # of the tensors present
    rows: Mapping[str, int] = field(default_factory=dict)  # those of which rows came: how many rows their ids need
    non_finite: tuple[str, ...] = ()  # where, e.g. "w[3]"
    base_version: int | None = None
    base: str | None = None
    generation: int | None = None
    after: str | None = None
    samples: float = 1.0
    loss: float | None = None
    cursor: str | None = None
    lr: Rate | None = None
    loss_scale: float | None = None  # what was measured is the gradient divided by it

    @property
    def finite(self) -> bool:
        """All of it are numbers that float32 can square."""
        return not self.non_finite


@dataclass(frozen=True, slots=True)
class Register:
    """A worker comes, comes back, or says that it is still there."""

    worker: str
    instance: str
    generation: int | None = None


@dataclass(frozen=True, slots=True)
class Leave:
    """A worker goes; checked as a push is."""

    worker: str
    generation: int | None = None
    next_sequence: int | None = None
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """Weights from outside."""

    layout: Layout
    digest: str
    size: int
    codec: str
    non_finite: tuple[str, ...] = ()
    if_none_match: str | None = None  # "*" : only if there are none yet
    if_match: str | None = None
    idempotency_key: str | None = None  # the client's
    own_key: str | None = None  # the server's, where the client gave none


@dataclass(frozen=True, slots=True)
class Restore:
    """A whole state from a checkpoint or an older version. Its payload is the weights and then the slots."""

    layout: Layout  # of the weights
    slots: Mapping[str, Mapping[str, Sequence[int]] | None]  # in their order; with shapes where not the weights'
    step: int
    memory: Mapping[str, float]
    plateau: PlateauState
    updates: int
    samples_seen: float
    schedule: Mapping[str, Any] | None  # that the plateau's state belongs to, canonical
    source: Mapping[str, Any]  # where it comes from, for who reads the journal
    digest: str
    size: int
    first_only: bool = False  # a branch: only if the run has no weights yet
    idempotency_key: str | None = None  # the client's
    own_key: str | None = None  # the server's, where the client gave none


@dataclass(frozen=True, slots=True)
class Configure:
    """New settings, absolute values, ordered with the gradients."""

    changes: RunChanges
    idempotency_key: str | None = None  # the client's
    own_key: str | None = None  # the server's, where the client gave none


@dataclass(frozen=True, slots=True)
class Report:
    """Values measured outside, such as a validation loss. The schedule `reduce_on_plateau` lives on them."""

    values: Mapping[str, float]  # finite
    version: int | None = None  # of the weights that they were measured at; None: the present ones
    idempotency_key: str | None = None  # the client's
    own_key: str | None = None  # the server's, where the client gave none


@dataclass(frozen=True, slots=True)
class Look:
    """Nothing is asked but that the answer be given on the present head."""


Request = Push | Register | Leave | Load | Restore | Configure | Report | Look


@dataclass(frozen=True, slots=True)
class Append:
    """Accepted: put this entry on the chain."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Answered:
    """Nothing to append: the chain already holds the answer (a duplicate, a heartbeat, a look)."""

    original: Mapping[str, Any] | None = None  # the recorded outcome, for a duplicate push
    made: Made | None = None  # by the first of two equal loads or restores


Verdict = Append | Answered | Rejection


def decide(control: Control, request: Request, at: int) -> Verdict:
    """The verdict on one request. `at` is the decider's clock in milliseconds: kept as a fact, never a rule."""
    try:
        header = _DECIDERS[type(request)](control, request)
    except Refused as refused:
        return refused.rejection
    if isinstance(header, Answered | Rejection):
        return header
    # Where the run was: whoever reads the journal alone, from anywhere, can then say which version an entry made.
    before = {"version_before": control.version, "step_before": control.step}
    return Append(write_entry(control.head, {"position": control.position + 1, "at": at, **before, **header}))


Draft = dict[str, Any] | Answered | Rejection


def _decide_push(control: Control, push: Push) -> Draft:
    """The ordered table of protocol §3."""
    row = control.row(push.worker)
    if refusal := _same_life(control, row, push.worker, push.generation):
        return refusal
    if push.sequence == row.last_sequence and row.outcome is not None:
        if push.digest == row.last_digest:
            return Answered(row.outcome)
        return Rejection(
            "sequence-reused",
            f"push {push.sequence} of worker '{push.worker}' was another gradient: a sequence number names one "
            f"gradient for ever; register again and continue with {row.next_sequence}",
            {"next_sequence": row.next_sequence},
        )
    if push.sequence != row.next_sequence or (push.after is not None and push.after != row.receipt):
        return _rewound(
            control, row, f"push {push.sequence} of worker '{push.worker}' does not follow what the journal holds"
        )
    for check in (_running, _initialised, _layout_known, _base_holds):
        if refusal := check(control, push):
            return refusal
    policy = control.spec.non_finite.policy
    if push.non_finite and policy == "skip":
        return _push_header(control, push, outcome="skipped")
    if push.non_finite and policy == "reject":
        return Rejection(
            "non-finite-gradient",
            "expected finite numbers whose squares float32 can hold (up to 1.8e19): NaN, Infinity or a larger one came "
            f"in {', '.join(push.non_finite)}; nothing was changed: "
            "skip this batch, or lower the learning rate",
            {"tensors": list(push.non_finite)},
        )
    for check in (_owner_of_the_rate, _loss_for_the_rule, _samples_for_a_batch):
        if refusal := check(control, push):
            return refusal
    return _async_rule(control, push)


def _owner_of_the_rate(control: Control, push: Push) -> Rejection | None:
    """The rate has one owner: the server's schedule, or with the schedule `client` the one who pushes."""
    if push.lr is None:
        return None
    if not _client_owns_rate(control):
        return Rejection(
            "lr-owned-by-server",
            f"the push names lr {push.lr}, but this run's schedule lives on the server; leave lr out",
            {"lr": push.lr},
        )
    known = [DEFAULT_GROUP, *(group.name for group in control.spec.groups)]
    if isinstance(push.lr, Mapping) and (unknown := sorted(push.lr.keys() - known)):
        return Rejection(
            "validation-error",
            f"lr: expected rates for the groups {', '.join(known)}, came {', '.join(unknown)}",
            {"groups": known},
        )
    return None


def _loss_for_the_rule(control: Control, push: Push) -> Rejection | None:
    if push.loss is None and control.spec.optimizer.needs_loss:
        name = control.spec.optimizer.name
        detail = f"loss: expected the loss of this gradient, none came: {name} computes its step from it"
        return Rejection("validation-error", detail)
    return None


def _samples_for_a_batch(control: Control, push: Push) -> Rejection | None:
    accumulates = control.spec.accumulate is not None or control.batch != EMPTY
    if accumulates and push.samples < SAMPLES_MIN:
        detail = f"samples: expected at least {SAMPLES_MIN} in a run that accumulates, came {push.samples}"
        return Rejection("validation-error", f"{detail}: it is the weight of the gradient in its batch")
    return None


def _client_owns_rate(control: Control) -> bool:
    return control.spec.schedule is not None and control.spec.schedule.name == "client"


def _same_life(control: Control, row: WorkerRow, worker: str, generation: int | None) -> Rejection | None:
    """A number below the present generation is a zombie's; one above it was lost with a tail of the journal."""
    if generation is None or generation == row.generation:
        return None
    if generation < row.generation:
        return _fenced(f"generation {generation} of worker '{worker}'", row)
    return _rewound(
        control, row, f"worker '{worker}' names generation {generation}, the journal knows {row.generation}"
    )


def _fenced(who: str, row: WorkerRow) -> Rejection:
    return Rejection(
        "fenced",
        f"{who} was replaced by generation {row.generation}: stop this process",
        {"generation": row.generation},
    )


def _rewound(control: Control, row: WorkerRow, what: str) -> Rejection:
    return Rejection(
        "history-rewound",
        f"{what} (next sequence {row.next_sequence}); what the worker was told is not in the history: register "
        "again, drop the outstanding gradient, pull, and continue after the returned cursor",
        {"next_sequence": row.next_sequence, "version": control.shown_version},
    )


def _running(control: Control, _: object) -> Rejection | None:
    if control.state == "paused" and paused_itself(control):
        return Rejection("run-paused", why_paused(control), {"bad_gradients": control.bad_gradients})
    if control.state == "paused":
        return Rejection("run-paused", "the run is paused: send the same push again once it is resumed")
    if control.state == "closed":
        return Rejection("run-closed", "the run is closed: it takes no more gradients")
    return None


def paused_itself(control: Control) -> bool:
    """Whether the run was paused by its own rule, for gradients that were no numbers."""
    most = control.spec.non_finite.max_consecutive
    return control.state == "paused" and most is not None and control.bad_gradients >= most


def why_paused(control: Control) -> str:
    """What to tell people of it."""
    return (
        f"the run paused itself: {control.bad_gradients} gradients in a row had NaN, Infinity or numbers too large to "
        "square (non_finite.max_consecutive); lower the learning rate or the loss scale, or restore a checkpoint, then "
        'PATCH the run with {"state": "running"} and send the same push again'
    )


def _initialised(control: Control, _: object) -> Rejection | None:
    if control.initialised:
        return None
    return Rejection(
        "weights-uninitialised", "the run has no weights yet: PUT …/weights first, then compute a gradient"
    )


def _layout_known(control: Control, push: Push) -> Rejection | None:
    assert control.layout is not None
    if not push.layout.names:
        return Rejection("validation-error", "the push has no tensor: expected a gradient for one at least")
    check_fit(push.layout, push.rows, control.layout)  # refuses names, shapes and rows that the run does not have
    return rows_refused(control.spec, control.layout, push.rows) if push.rows else None


def _base_holds(control: Control, push: Push) -> Rejection | None:
    """The gradient was computed at weights that this history made, and not too long ago to know that."""
    version = base_version(push)
    if version is None:
        return None
    kept = control.etags.get(version)
    if version > control.version or (push.base is not None and kept is not None and push.base != kept):
        named = push.base or f"version {version}"
        return _rewound(
            control, control.row(push.worker), f"the gradient was computed at {named}, which this history did not make"
        )
    if version < control.base_floor or kept is None:
        floor = max(control.base_floor, min(control.etags))
        return _stale(control, version, None, f"gradients of versions below {floor} are over")
    return None


def base_version(push: Push) -> int | None:
    """The version a push names, by number or by ETag; None: none named, the present one is meant."""
    if push.base is None:
        return push.base_version
    number, _, rest = push.base.strip('"').partition("-")
    if not number.isascii() or not number.isdecimal():
        raise Refused(
            Rejection("validation-error", f"base: expected an ETag as it came with the weights, {push.base!r} came")
        )
    if "-" in rest:
        detail = f"base: expected the ETag of the weights, came {push.base}, of an average: compute gradients at the"
        raise Refused(Rejection("validation-error", f"{detail} raw weights, which a pull without weights= gives"))
    if push.base_version not in (None, int(number)):
        # Which of the two is the truth cannot be known, and the staleness rule would go by one of them.
        raise Refused(
            Rejection(
                "validation-error",
                f"base_version: expected the version of base {push.base}, {push.base_version} came: send base alone",
            )
        )
    return int(number)


def _stale(control: Control, version: int, max_staleness: int | None, why: str) -> Rejection:
    lag = control.version - version
    return Rejection(
        "stale-gradient",
        f"the gradient was computed at version {version}, the run is at {control.version} ({lag} updates later); "
        f"{why}: pull the weights and compute it again",
        {"version": control.version, "staleness": lag, "max_staleness": max_staleness},
    )


def _async_rule(control: Control, push: Push) -> Draft:
    """Mode `async`: each accepted push is one update, or with `accumulate` part of one."""
    base = base_version(push)
    lag = 0 if base is None else control.version - base
    limit = control.spec.staleness.max_staleness
    if base is not None and limit is not None and lag > limit:
        # A worker that slept through many updates would pull the weights back to where it fell asleep.
        return _stale(control, base, limit, f"at most {limit} are allowed")
    weight = staleness.weight(control.spec.staleness, lag)
    if control.spec.accumulate is None and control.batch == EMPTY:
        return _push_header(control, push, outcome="applied", update=_update_of(control, push), weight=weight)
    batch = control.batch.with_push(push.samples, weight, lag, push.loss)
    complete = batch.reached(control.spec.accumulate)
    return _push_header(
        control,
        push,
        outcome="applied" if complete else "contributed",
        update=_update_of(control, push) if complete else None,
        weight=weight,
        batch=batch,
    )


def _update_of(control: Control, push: Push) -> dict[str, Any]:
    """What replay needs of the schedule: the rate of the default group, those the client named, the momentum."""
    own = dict(push.lr) if isinstance(push.lr, Mapping) else {DEFAULT_GROUP: push.lr}
    base_rate = own.pop(DEFAULT_GROUP, None)
    if base_rate is None:
        base_rate = control.spec.optimizer.lr
    lr, momentum = schedules.resolve(control.spec.schedule, base_rate, control.scheduled, control.plateau)
    update = {"lr": lr, "momentum": momentum}
    return {**update, "group_lr": own} if own else update


def _push_header(
    control: Control,
    push: Push,
    *,
    outcome: str,
    update: dict[str, Any] | None = None,
    weight: float = 1.0,
    batch: Batch | None = None,
) -> dict[str, Any]:
    if push.worker not in control.workers:
        _room_for_a_worker(control)
    base = base_version(push)
    return {
        "kind": "push",
        "worker": push.worker,
        "generation": control.row(push.worker).generation or 1,
        "sequence": push.sequence,
        "base": control.version if base is None else base,
        "samples": push.samples,
        "loss": push.loss,
        "outcome": outcome,
        "update": update,
        "weight": weight,
        "digest": push.digest,
        "size": 0 if outcome == "skipped" else push.size,  # a skipped push is journaled without its payload
        "codec": push.codec,
        "cursor": push.cursor,
        **_not_plain(control, push, batch),
    }


def _not_plain(control: Control, push: Push, batch: Batch | None) -> dict[str, Any]:
    """Members that most pushes' entries go without: `finite` is false there, never true."""
    said: dict[str, Any] = {} if push.loss_scale is None else {"loss_scale": push.loss_scale}
    if batch is not None:
        said["batch"] = batch.to_json()
    if not push.finite:
        said["finite"] = False
        if control.bad_gradients + 1 == control.spec.non_finite.max_consecutive:
            said["state"] = "paused"
    return said


def _decide_register(control: Control, request: Register) -> Draft:
    row = control.row(request.worker)
    same = row.instance == request.instance
    if request.instance in row.superseded or (request.generation or row.generation) < row.generation:
        # A zombie's late heartbeat must not fence the living.
        return _fenced(f"this instance of worker '{request.worker}'", row)
    if same and not row.departed:
        return Answered()
    if request.worker not in control.workers:
        _room_for_a_worker(control)
    return {
        "kind": "join",
        "worker": request.worker,
        "generation": row.generation if same else row.generation + 1,
        "instance": request.instance,
    }


def _room_for_a_worker(control: Control) -> None:
    if len(control.workers) >= WORKERS_KEPT and _forgettable(control) is None:
        raise Refused(
            Rejection(
                "quota-exceeded",
                f"the run keeps at most {WORKERS_KEPT} workers and all of them are present: let one leave first",
                {"workers_max": WORKERS_KEPT},
            )
        )


def _decide_leave(control: Control, request: Leave) -> Draft:
    row = control.row(request.worker)
    claims = request.generation is not None or request.after is not None or request.next_sequence not in (None, 1)
    forgotten = len(control.workers) >= WORKERS_KEPT  # maybe: then its row was dropped after it had left
    if request.worker not in control.workers and (forgotten or not claims):
        return Rejection("worker-not-found", f"the run knows no worker '{request.worker}'")
    if refusal := _same_life(control, row, request.worker, request.generation):
        return refusal
    if (request.next_sequence not in (None, row.next_sequence)) or (request.after not in (None, row.receipt)):
        # Leaving is a worker's last chance to hear that an acknowledged push of its was lost, be it that its row is
        # back in the state of an earlier departure, or gone.
        return _rewound(control, row, f"worker '{request.worker}' leaves from a place that the journal does not hold")
    if row.departed:
        return Answered()
    return {"kind": "leave", "worker": request.worker, "generation": row.generation}


def repeated(
    control: Control, kind: Kind, content: Any, key: str | None, own_key: str | None = None
) -> Answered | Rejection | None:
    """A request that was carried out before is answered with what it made, never carried out again. Another one under
    its key is a mistake of its sender, who would take the answer for a change that never happened."""
    known = found(control.repeats, key, own_key)
    if known is None:
        return None
    used_for, done = known
    if used_for not in (OWN, kind):
        came = f"belongs to another request of this run ({used_for}), this one is a {kind}"
    elif done.asked != asked_digest(content):
        came = f"belongs to a {kind} of this run with another body"
    else:
        return Answered(made=done.made)
    return Rejection(
        "validation-error",
        f"Idempotency-Key {key!r} {came}: nothing was changed; take a new key for each new request",
        {"used_for": used_for},
    )


def made(verdict: Verdict) -> Made:
    """What a load or a restore that was not refused has made, now or when the same was asked for first."""
    it = made_by(verdict.entry) if isinstance(verdict, Append) else getattr(verdict, "made", None)
    assert it is not None
    return it


def _named(content: Any, key: str | None, own_key: str | None) -> dict[str, Any]:
    """The members of an entry that its request is known again by."""
    if key is None and own_key is None:
        return {}
    return {"key": key, "own_key": None if key else own_key, "asked": asked_digest(content)}


def _decide_load(control: Control, request: Load) -> Draft:
    content, keys = [request.digest, request.codec], (request.idempotency_key, request.own_key)
    if repetition := repeated(control, "load", content, *keys):
        return repetition
    current = control.etag
    if (request.if_none_match == "*" and control.initialised) or (request.if_match not in (None, "*", current)):
        wanted = "no weights yet" if request.if_none_match else f"ETag {request.if_match}"
        return Rejection(
            "precondition-failed",
            f"expected {wanted}, the run is at {current}: the weights stay as they are",
            {"version": control.shown_version, "etag": current},
        )
    if request.if_match is not None and not control.initialised:
        return Rejection("precondition-failed", f"expected ETag {request.if_match}, the run has no weights yet", {})
    if refusal := _open(control, "its weights stay as they are"):
        return refusal
    if not request.layout.names:
        return Rejection("validation-error", "the body has no tensor: expected the weights of the run")
    if request.non_finite:
        where = ", ".join(request.non_finite)
        return Rejection("validation-error", f"weights: expected finite numbers, NaN or Infinity came in {where}")
    if control.layout is not None and (refusal := whole_layout(control.layout, request.layout)):
        return refusal
    return {
        "kind": "load",
        "layout": None if control.layout else dict(zip(request.layout.names, request.layout.shapes, strict=True)),
        "digest": request.digest,
        "size": request.size,
        "codec": request.codec,
        **_named(content, *keys),
    }


def _decide_restore(control: Control, request: Restore) -> Draft:
    """Rows, keys, settings and the version stay the present ones: no push of before can be applied again."""
    content, keys = request.source, (request.idempotency_key, request.own_key)
    if repetition := repeated(control, "restore", content, *keys):
        return repetition
    if request.first_only and control.initialised:
        return Rejection("precondition-failed", f"expected no weights yet, the run is at {control.etag}")
    if refusal := _open(control, "its weights stay as they are"):
        return refusal
    if control.layout is not None and (refusal := whole_layout(control.layout, request.layout)):
        return refusal
    same_schedule = request.schedule == control.spec.canonical()["schedule"]
    return {
        "kind": "load",
        "layout": None if control.layout else dict(zip(request.layout.names, request.layout.shapes, strict=True)),
        "state": {
            "slots": dict(request.slots),
            "step": request.step,
            "memory": dict(request.memory),
            "plateau": asdict(request.plateau if same_schedule else FRESH),
            "updates": request.updates,
            "samples_seen": request.samples_seen,
        },
        "source": dict(request.source),
        "digest": request.digest,
        "size": request.size,
        "codec": "float32",
        **_named(content, *keys),
    }


def whole_layout(expected: Layout, came: Layout) -> Rejection | None:
    """Weights come whole: every tensor of the run, in its shape, and no other. Raises `Refused` for a strange one."""
    if came == expected:
        return None
    spans_between(came, expected)
    missing = next(name for name in expected.names if name not in came)
    return Rejection(
        "layout-mismatch", f"weights replace all tensors of a run: {missing!r} is missing", {"tensor": missing}
    )


def _open(control: Control, consequence: str) -> Rejection | None:
    """Closed is final: what a closed run holds is what its readers may rely on. A branch goes on from it."""
    if control.state != "closed":
        return None
    return Rejection("run-closed", f"the run is closed for good: {consequence}; to go on, branch a new run from it")


def _decide_configure(control: Control, request: Configure) -> Draft:
    content, keys = request.changes.asked(), (request.idempotency_key, request.own_key)
    if repetition := repeated(control, "configure", content, *keys):
        return repetition
    spec = request.changes.apply(control.spec)
    state = request.changes.state or control.state
    restarts = "schedule" in request.changes.model_fields_set
    changed = spec != control.spec or state != control.state
    if changed and (refusal := _open(control, "its settings and its state stay as they are")):
        return refusal
    # With a key, settings that are already so become an entry: a late copy of it must not revert a newer change.
    keyed = request.idempotency_key is not None and request.changes.model_fields_set and control.state != "closed"
    if not (changed or keyed or (restarts and control.plateau != FRESH)):
        return Answered()
    return {
        "kind": "configure",
        "spec": spec.canonical(),
        "state": state,
        "plateau": asdict(FRESH) if restarts else None,
        **_named(content, *keys),
    }


def _decide_report(control: Control, request: Report) -> Draft:
    """Taken in every state of a run: the last evaluation comes after the last gradient."""
    content, keys = [dict(request.values), request.version], (request.idempotency_key, request.own_key)
    if repetition := repeated(control, "report", content, *keys):
        return repetition
    if request.version is not None and request.version > control.version:
        return Rejection(
            "validation-error",
            f"version: expected one that this run has made, up to {control.shown_version}, {request.version} came",
            {"version": control.shown_version},
        )
    schedule, plateau = control.spec.schedule, None
    if schedule is not None and schedule.name == "reduce_on_plateau" and schedule.monitor in request.values:
        value = request.values[schedule.monitor]
        plateau = asdict(after_report(schedule, control.plateau, value, control.spec.optimizer.lr))
    return {
        "kind": "report",
        "values": dict(request.values),
        "version": control.shown_version if request.version is None else request.version,
        "plateau": plateau,
        **_named(content, *keys),
    }


def _decide_look(control: Control, request: Look) -> Draft:
    return Answered()


_DECIDERS: Mapping[type, Callable[[Control, Any], Draft]] = {
    Push: _decide_push,
    Register: _decide_register,
    Leave: _decide_leave,
    Load: _decide_load,
    Restore: _decide_restore,
    Configure: _decide_configure,
    Report: _decide_report,
    Look: _decide_look,
}


# What an entry does to the control state.


def advance(control: Control, entry: Entry) -> None:
    """Move the control state over one entry. Reads nothing but the header; the caller owns `control`."""
    header = entry.header
    _ADVANCERS[entry.kind](control, entry, header)
    if "asked" in header:
        control.repeats = remembered(control.repeats, entry)
    control.position = entry.position
    control.head = entry.hash
    control.journal_bytes += len(entry.raw) + header.get("size", 0)
    if control.journal_bytes >= _snapshot_due_bytes(control):
        control.snapshot_position = entry.position
        control.journal_bytes = 0


def _advance_push(control: Control, entry: Entry, header: Mapping[str, Any]) -> None:
    row = _row_for(control, header["worker"])
    lag = control.version - header["base"]
    batch = Batch.from_json(header.get("batch"))
    if header["outcome"] == "applied":
        control.step += 1
        control.updates += 1
        control.samples_seen += batch.samples if batch.pushes else header["samples"]
        _new_version(control, entry)
        control.batch = EMPTY
    elif header["outcome"] == "contributed":
        control.batch = batch
    finite = header.get("finite", True)
    control.bad_gradients = 0 if finite else control.bad_gradients + 1
    control.state = header.get("state", control.state)
    update = header["update"]
    outcome = {
        "outcome": header["outcome"],
        "version": control.version,
        "step": control.step,
        "staleness": lag,
        "staleness_weight": batch.weight if update is not None and batch.pushes else header["weight"],
        "lr": None if update is None else update["lr"],
    }
    if batch.pushes:
        outcome["batch"] = batch.shown(control.spec.accumulate)
    if not finite:
        outcome["finite"] = False
    control.workers[header["worker"]] = WorkerRow(
        generation=header["generation"],
        instance=row.instance,
        superseded=row.superseded,
        last_sequence=header["sequence"],
        last_digest=header["digest"],
        receipt=entry.short_hash,
        outcome=outcome,
        largest_base=max(row.largest_base, header["base"]),
        cursor=row.cursor if header["cursor"] is None else header["cursor"],
    )


def _advance_join(control: Control, entry: Entry, header: Mapping[str, Any]) -> None:
    row = _row_for(control, header["worker"])
    superseded = row.superseded
    if row.instance not in (None, header["instance"]):
        superseded = (*superseded, row.instance)[-SUPERSEDED_KEPT:]
    control.workers[header["worker"]] = dataclasses.replace(
        row,
        generation=header["generation"],
        instance=header["instance"],
        superseded=superseded,
        receipt=entry.short_hash if header["generation"] > row.generation else row.receipt,
        departed=False,
    )


def _advance_leave(control: Control, entry: Entry, header: Mapping[str, Any]) -> None:
    # The row stays: its sequence and digest are what keeps a late duplicate from being applied.
    row = control.row(header["worker"])
    control.workers[header["worker"]] = dataclasses.replace(row, departed=True)


def _advance_load(control: Control, entry: Entry, header: Mapping[str, Any]) -> None:
    if header["layout"] is not None:
        control.layout = Layout.of(header["layout"])
    if (state := header.get("state")) is not None:
        control.step = state["step"]
        control.plateau = PlateauState(**state["plateau"])
        control.updates, control.samples_seen = state["updates"], state["samples_seen"]
    first = not control.initialised
    _new_version(control, entry)
    control.batch = EMPTY  # its gradients were computed at weights that are no more
    if not first:
        # A gradient computed before these weights came has nothing to say about them.
        control.base_floor = control.version


def _advance_configure(control: Control, entry: Entry, header: Mapping[str, Any]) -> None:
    control.spec = RunSpec.model_validate(header["spec"])
    if control.state == "paused" and header["state"] == "running":
        control.bad_gradients = 0  # somebody has looked at it
    control.state = header["state"]
    control.configured = entry.position
    _advance_plateau(control, entry, header)


def _advance_plateau(control: Control, entry: Entry, header: Mapping[str, Any]) -> None:
    if header["plateau"] is not None:
        control.plateau = PlateauState(**header["plateau"])


_ADVANCERS: Mapping[str, Callable[[Control, Entry, Mapping[str, Any]], None]] = {
    "push": _advance_push,
    "join": _advance_join,
    "leave": _advance_leave,
    "load": _advance_load,
    "configure": _advance_configure,
    "report": _advance_plateau,
}


def _new_version(control: Control, entry: Entry) -> None:
    control.version += 1
    control.etags[control.version] = etag_of(control.version, entry.hash)
    _keep(control.etags, ETAGS_KEPT)


def _keep(table: dict[Any, Any], count: int) -> None:
    while len(table) > count:
        del table[next(iter(table))]


def _row_for(control: Control, worker: str) -> WorkerRow:
    """The worker's row; a new worker may need another's place. A departed row goes only together with the base
    versions of its pushes, so that no forgotten push that names a base can be applied again."""
    if worker in control.workers:
        return control.workers[worker]
    if len(control.workers) >= WORKERS_KEPT and (gone := _forgettable(control)) is not None:
        control.base_floor = max(control.base_floor, control.workers.pop(gone).largest_base + 1)
    return control.row(worker)


def _forgettable(control: Control) -> str | None:
    rows: Iterator[tuple[str, WorkerRow]] = iter(control.workers.items())
    return next((name for name, row in rows if row.departed and row.largest_base < control.version), None)


def _snapshot_due_bytes(control: Control) -> float:
    """Journal bytes between snapshots: writing state must stay a small share of writing gradients. Part of control,
    so that every replica takes (and compares) its snapshot at the same position."""
    if control.layout is None:
        return float("inf")
    created = control.creation
    slots = kept_slots(control.spec)
    own = own_layouts(slots, control.layout)
    sizes = (own.get(slot.name, control.layout).parameters for slot in slots)
    vectors = 1 if control.spec.accumulate is None else 2
    state_bytes = 4 * (vectors * control.layout.parameters + sum(sizes))
    due = max(created.journal_bytes_min, created.journal_state_factor * state_bytes)
    return due if created.journal_bytes_max is None else min(due, created.journal_bytes_max)
