"""What a run is asked to be, and what may change later."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from gradserve.problems import PROBLEMS, Refused
from gradserve.specs import (
    AGGREGATIONS,
    AVERAGES,
    CLIPS,
    OPTIMIZERS,
    STALENESS,
    Adam,
    AdamW,
    Async,
    Constant,
    Ema,
    GlobalNorm,
    HingeStaleness,
    Inverse,
    InverseTime,
    Lookahead,
    NonFinite,
    NoStaleness,
    PolynomialStaleness,
    Power,
    RunChanges,
    RunSpec,
    Sgd,
    SwaAverage,
    Value,
    WarmupCosine,
    validation_refusal,
)


def detail_of(fields, kind=RunSpec):
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(fields)
    return validation_refusal(caught.value).rejection.detail


def test_an_optimizer_is_all_that_is_needed():
    spec = RunSpec.model_validate({"optimizer": "adam"})
    assert spec.optimizer == Adam()
    assert spec.schedule is None
    assert spec.clip == ()
    assert spec.aggregation == Async()
    assert spec.staleness == NoStaleness()
    assert spec.non_finite == NonFinite(policy="reject")
    assert spec.accumulate is None
    assert spec.weights is None


def test_python_and_json_say_the_same():
    python = RunSpec(
        optimizer=AdamW(lr=3e-3),
        schedule=WarmupCosine(warmup_steps=10, total_steps=100),
        clip=(GlobalNorm(max_norm=1.0), Value(value=2.0)),
        aggregation=Async(),
        staleness=Inverse(max_staleness=8),
        non_finite="skip",
    )
    written = {
        "optimizer": {"name": "AdamW", "learning_rate": 3e-3},
        "schedule": {"name": "warmup_cosine", "warmup_steps": 10, "total_steps": 100},
        "clip": [{"name": "global_norm", "max_norm": 1}, {"name": "value", "value": 2}],
        "aggregation": {"mode": "async"},
        "staleness": {"name": "inverse", "max_staleness": 8},
        "non_finite": "skip",
    }
    assert RunSpec.model_validate(written) == python


@pytest.mark.parametrize(
    ("field", "written", "meant"),
    [
        ("clip", None, ()),
        ("clip", {"name": "clip-value", "clip_value": 3}, (Value(value=3.0),)),
        ("clip", {"name": "global_clipnorm", "max_norm": 3}, (GlobalNorm(max_norm=3.0, eps=0.0),)),
        ("clip", GlobalNorm(max_norm=3.0), (GlobalNorm(max_norm=3.0, eps=1e-6),)),
        ("aggregation", "ASYNC", Async()),
        ("aggregation", None, Async()),
        ("staleness", "none", NoStaleness()),
        ("staleness", None, NoStaleness()),
        ("staleness", "inverse", Inverse(max_staleness=None)),
        ("staleness", "sqrt", PolynomialStaleness(a=0.5)),
        ("staleness", {"name": "hinge", "a": 1.0}, HingeStaleness(a=1.0, b=4)),
        ("staleness", {"name": "None", "max_staleness": 0}, NoStaleness(max_staleness=0)),
        ("schedule", "constant", Constant()),
        ("average", None, None),
        ("average", "ema", Ema(decay=0.999, debias=False, warmup=False, every=1)),
        ("average", {"name": "EMA", "ema_momentum": 0.5}, Ema(decay=0.5)),
        ("average", "AveragedModel", SwaAverage(start=0, period=1)),
        ("average", {"name": "swa", "swa_start": 10, "swa_freq": 5}, SwaAverage(start=10, period=5)),
        ("average", "lookahead", Lookahead(sync_period=6, alpha=0.5, reset_state=False)),
        ("average", {"name": "lookahead", "k": 5, "slow_step_size": 0.8}, Lookahead(sync_period=5, alpha=0.8)),
    ],
    ids=str,
)
def test_shorthand_is_read(field, written, meant):
    assert getattr(RunSpec.model_validate({"optimizer": "sgd", field: written}), field) == meant


def test_clipping_that_keras_puts_on_the_optimizer_becomes_the_runs():
    """In both forms; global_clipnorm has no eps."""
    fields = {"learning_rate": 0.1, "global_clipnorm": 1.0, "clipvalue": 0.5, "clipnorm": None}
    for optimizer in ({"class_name": "Adam", "config": fields}, {"name": "adam", **fields}):
        spec = RunSpec.model_validate({"optimizer": optimizer})
        assert spec.clip == (GlobalNorm(max_norm=1.0, eps=0.0), Value(value=0.5))
        assert spec.optimizer.lr == 0.1
        assert detail_of({"optimizer": optimizer, "clip": ["value"]}).startswith("expected clipping once")


def test_averaging_that_keras_puts_on_the_optimizer_becomes_the_runs():
    """In both forms, with its own decay where none is said; a config that turns it off asks for nothing."""
    for fields, average in (
        ({"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": None}, Ema(decay=0.9)),
        ({"use_ema": True}, Ema(decay=0.99)),
        ({"use_ema": False, "ema_momentum": 0.9, "ema_overwrite_frequency": None}, None),
    ):
        for optimizer in ({"class_name": "Adam", "config": fields}, {"name": "adam", **fields}):
            assert RunSpec.model_validate({"optimizer": optimizer}).average == average
    optimizer = {"name": "adam", "use_ema": True}
    assert detail_of({"optimizer": optimizer, "average": "swa"}).startswith("expected averaging once")
    assert detail_of({"optimizer": {**optimizer, "use_ema": 1}}) == "expected use_ema to be true or false, came 1"
    assert "did you mean" not in detail_of({"optimizer": {"name": "adam", "ema_momentum": 0.9}})


@pytest.mark.parametrize(
    "optimizer",
    [
        {"class_name": "Adam", "config": {"lr": 0.001, "decay": 0.01}},
        {"class_name": "RMSprop", "config": {"decay": 0.01}},
        {"name": "rmsprop", "compat": "keras", "decay": 0.01},
        {"name": "sgd", "Decay": 0.01},
    ],
    ids=str,
)
def test_decay_of_keras_becomes_the_runs_schedule(optimizer):
    """lr / (1 + decay · iterations), iterations from 0; beside a schedule it is one too many."""
    spec = RunSpec.model_validate({"optimizer": optimizer})
    assert spec.schedule == InverseTime(decay_rate=0.01)
    assert detail_of({"optimizer": optimizer, "schedule": "constant"}) == (
        "expected one schedule, came schedule and the optimizer's decay 0.01: send schedule"
    )


def test_a_decay_that_asks_for_nothing_is_dropped_and_rmsprops_own_is_not_keras():
    """Zero and null are no schedule; to torch and optax `decay` is RMSprop's alpha."""
    for nothing in (0, 0.0, None):
        spec = RunSpec.model_validate(
            {"optimizer": {"class_name": "SGD", "config": {"decay": nothing}}, "schedule": "constant"}
        )
        assert spec.schedule == Constant()
    spec = RunSpec.model_validate({"optimizer": {"name": "RMSProp", "decay": 0.5}})
    assert (spec.schedule, spec.optimizer.alpha) == (None, 0.5)


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({}, "optimizer: expected a value, came nothing"),
        ({"schedule": "constant"}, "optimizer: expected a value, came nothing"),
        ([], "expected an object, came a list"),
        (None, "expected an object, came None"),
        ({"optimizer": "sgd", "dataset_size": 0}, "dataset_size: expected a number ≥ 1, came 0"),
        ({"optimizer": "sgd", "matrix_layout": "oihw"}, "matrix_layout: expected 'out_in' or 'in_out', came 'oihw'"),
        ({"optimizer": {"name": "muon", "compat": "keras"}, "matrix_layout": "out_in"},
         "expected one layout of the matrices, came matrix_layout 'out_in' and muon's matrix_layout (or its compat's) "
         "'in_out': send one"),
        ({"optimizer": "sgd", "clip": [{"name": "adaptive", "layout": "out_in"}], "matrix_layout": "in_out"},
         "expected one layout of the matrices, came matrix_layout 'in_out' and adaptive's layout (or its compat's) "
         "'out_in': send one"),
        ({"optimizer": "sgd", "branch": {"run": "a"}}, "branch.checkpoint: expected a value, came nothing"),
        ({"optimizer": "sgd", "optimiser": 1}, "expected only the fields optimizer, schedule, clip, aggregation, "
         "staleness, accumulate, groups, average, sparse_semantics, dataset_size, matrix_layout, non_finite, branch, "
         "weights, came 'optimiser' (did you mean optimizer?)"),
        ({"optimizer": "sgd", "non_finite": "keep"},
         "non_finite: expected one of reject, skip, zero, or an object with policy, came 'keep'"),
        ({"optimizer": "sgd", "non_finite": {"policy": "keep"}},
         "non_finite.policy: expected 'reject', 'skip' or 'zero', came 'keep'"),
        ({"optimizer": "sgd", "non_finite": {"max_consecutive": 3}},
         "non_finite: expected max_consecutive with skip or zero, came with reject: a refusal leaves no trace"),
        ({"optimizer": "sgd", "accumulate": {}},
         "accumulate: expected a target, samples or pushes, came neither: send one of them"),
        ({"optimizer": "sgd", "accumulate": {"samples": 8, "pushes": 2}},
         "accumulate: expected a target, samples or pushes, came both: send one of them"),
        ({"optimizer": "sgd", "accumulate": {"pushes": 1025}},
         "accumulate.pushes: expected a number ≤ 1024, came 1025"),
        ({"optimizer": "sgd", "weights": [1.0]}, "weights: expected an object, came a list"),
        ({"optimizer": "sgd", "aggregation": {"mode": "sync", "workers": 4}}, "aggregation: expected one of async; "
         "this version does not build the aggregation 'sync' yet: this server runs async, leave 'aggregation' out"),
        ({"optimizer": "sgd", "aggregation": {"mode": "ssp", "bound": 3}}, "aggregation: expected one of async; this "
         "version does not build the aggregation 'ssp' yet: this server runs async, leave 'aggregation' out"),
        ({"optimizer": "sgd", "aggregation": {"mode": "async", "workers": 4}},
         "aggregation: expected only the fields mode, came 'workers'"),
        ({"optimizer": "sgd", "staleness": "gap"}, "staleness: expected one of none, inverse, divide, polynomial, "
         "hinge, exponential; this version does not build the staleness rule 'gap' yet"),
        ({"optimizer": "sgd", "staleness": {"name": "inverse", "max_staleness": -1}},
         "staleness.max_staleness: expected a number ≥ 0, came -1"),
        ({"optimizer": "sgd", "clip": [{"name": "value", "value": 1}, {"name": "value", "value": 0}]},
         "clip[1].value: expected a number > 0, came 0"),
        ({"optimizer": "sgd", "clip": ["pixel"]},
         "clip[0]: expected one of global_norm, value, tensor_norm, block_rms, "
         "adaptive, normalize, centralize, noise, quantile, came 'pixel'"),
        ({"optimizer": "sgd", "clip": [{"name": "noise", "gamma": 2.5}]},
         "clip[0].gamma: expected a number ≤ 2, came 2.5"),
        ({"optimizer": "sgd", "clip": 1}, "clip: expected a list, came 1"),
        ({"optimizer": "sgd", "average": "mean"}, "average: expected one of ema, swa, lookahead, came 'mean'"),
        ({"optimizer": "sgd", "average": []}, "average: expected a name or an object with 'name', came list"),
        ({"optimizer": "sgd", "average": {"name": "ema", "decay": 1}}, "average.decay: expected a number < 1, came 1"),
        ({"optimizer": "sgd", "average": {"name": "lookahead", "alpha": 0}},
         "average.alpha: expected a number > 0, came 0"),
        ({"optimizer": "sgd", "average": {"name": "swa", "period": 0}},
         "average.period: expected a number ≥ 1, came 0"),
        ({"optimizer": "sgd", "clip": [{"name": "value", "value": 1}] * 9},
         "clip: expected at most 8 items, came a list"),
        ({"optimizer": {"name": "sgd", "lr": -1}, "schedule": {"name": "power"}},
         "optimizer.lr: expected a number ≥ 0, came -1; schedule.s: expected a value, came nothing"),
    ],
    ids=str,
)  # fmt: skip
def test_a_refusal_says_what_was_expected_and_what_came(fields, detail):
    assert detail_of(fields) == detail


def test_a_refusal_lists_its_findings_for_programs_too():
    with pytest.raises(ValidationError) as caught:
        RunSpec.model_validate({"optimizer": {"name": "sgd", "lr": -1, "momentum": "x"}})
    rejection = validation_refusal(caught.value).rejection
    assert PROBLEMS[rejection.code].status == 422
    assert rejection.extras["errors"] == [
        {"field": "optimizer.lr", "expected": "a number ≥ 0", "came": "-1"},
        {"field": "optimizer.momentum", "expected": "a number", "came": "'x'"},
    ]


def test_no_weight_is_in_a_message():
    """Messages are logged."""
    assert "123.5" not in detail_of({"optimizer": "sgd", "weights": [123.5]})
    assert "123.5" not in detail_of({"optimizer": "foo", "weights": {"w": [123.5]}})
    assert "123.5" not in repr(RunSpec(optimizer="sgd", weights={"w": [123.5]}))


# ------------------------------------------------------------------------------------------------- canonical form


def test_the_canonical_form_is_sorted_json_without_weights():
    spec = RunSpec.model_validate({"optimizer": "adam", "weights": {"w": [1.0]}, "clip": {"name": "value", "value": 1}})
    canonical = spec.canonical()
    text = json.dumps(canonical)
    assert text == json.dumps(json.loads(text), sort_keys=True)
    assert "weights" not in canonical
    assert list(canonical) == [
        "aggregation",
        "clip",
        "dataset_size",
        "groups",
        "non_finite",
        "optimizer",
        "schedule",
        "staleness",
    ]
    assert RunSpec.model_validate(canonical).canonical() == canonical


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"optimizer": "adam"}, {"optimizer": {"name": "Adam", "lr": 0.001, "betas": [0.9, 0.999]}}),
        ({"optimizer": "sgd"}, {"optimizer": "gd", "schedule": "constant", "clip": [], "aggregation": "async"}),
        ({"optimizer": {"name": "sgd", "lr": 1}}, {"optimizer": {"name": "sgd", "lr": 1.0}, "weights": {"w": 1}}),
        ({"optimizer": "nag"}, {"optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True}}),
    ],
    ids=str,
)
def test_equal_runs_have_equal_canonical_forms(one, other):
    """Creating a run twice in other words is the same run."""
    first, second = (json.dumps(RunSpec.model_validate(fields).canonical()) for fields in (one, other))
    assert first == second


def test_an_average_is_in_the_canonical_form_where_there_is_one():
    """The form of a run without one, and so the hash of its chain, is what it was before there were averages."""
    spec = RunSpec.model_validate({"optimizer": "sgd", "average": "swa"})
    assert spec.canonical()["average"] == {"name": "swa", "period": 1, "start": 0}
    assert RunSpec.model_validate(spec.canonical()) == spec.model_copy(update={"schedule": Constant()})


def test_the_canonical_form_is_this_one():
    """It is in the hash of every chain: a change here makes runs of yesterday unreadable."""
    assert json.dumps(RunSpec(optimizer=Sgd(), schedule=Power(s=10.0)).canonical(), separators=(",", ":")) == (
        '{"aggregation":{"mode":"async"},"clip":[],"dataset_size":null,"groups":[],"non_finite":"reject",'
        '"optimizer":{"dampening":0.0,"lr":0.001,"lr_in_momentum":false,"maximize":false,"momentum":0.0,"name":"sgd","nesterov":false,"weight_decay":0.0,'
        '"weight_decay_mode":"l2"},"schedule":{"c":1.0,"name":"power","s":10.0},'
        '"staleness":{"max_staleness":null,"name":"none"}}'
    )


def test_lazy_rows_are_in_the_canonical_form_only_where_they_are_said():
    """The form of all other runs is as it was before there were any."""
    canonical = RunSpec(optimizer=Sgd(), sparse_semantics="lazy").canonical()
    assert canonical["sparse_semantics"] == "lazy"
    assert RunSpec.model_validate(canonical).canonical() == canonical


# -------------------------------------------------------------------------------------------------------- changes

SPEC = RunSpec(
    optimizer=Adam(lr=0.1, beta1=0.5),
    schedule=Power(s=10.0),
    clip=(Value(value=1.0),),
    staleness=Inverse(max_staleness=3),
    non_finite="skip",
)


def changed(fields):
    return RunChanges.model_validate(fields).apply(SPEC)


def test_the_layout_of_the_matrices_is_said_once():
    """It is handed on to whatever depends on it, now and after a change; another one said there is refused."""
    spec = RunSpec.model_validate({"optimizer": "muon", "clip": ["centralize", "adaptive"], "matrix_layout": "in_out"})
    assert (spec.optimizer.matrix_layout, spec.clip[1].layout) == ("in_out", "in_out")
    assert RunSpec.model_validate(spec.canonical()).canonical() == spec.canonical()
    assert "matrix_layout" not in RunSpec.model_validate({"optimizer": "muon"}).canonical()
    changed = RunChanges.model_validate({"clip": "adaptive", "optimizer": {"lr": 0.5}}).apply(spec)
    assert (changed.clip[0].layout, changed.optimizer.matrix_layout, changed.optimizer.lr) == ("in_out", "in_out", 0.5)
    with pytest.raises(Refused, match="expected one layout of the matrices"):
        RunChanges.model_validate({"optimizer": {"matrix_layout": "out_in"}}).apply(spec)
    turned = RunSpec.branched(spec.canonical(), {"branch": {"run": "a", "checkpoint": "b"}, "matrix_layout": "out_in"})
    assert (turned.optimizer.matrix_layout, turned.clip[1].layout) == ("out_in", "out_in")


def test_an_optimizer_is_merged():
    assert changed({"optimizer": {"learning_rate": 0.2}}).optimizer == Adam(lr=0.2, beta1=0.5)
    assert changed({"optimizer": {"name": "ADAM", "betas": [0.1, 0.2]}}).optimizer == Adam(lr=0.1, beta1=0.1, beta2=0.2)
    assert changed({"optimizer": {"eps": None}}).optimizer == SPEC.optimizer


def test_all_else_is_replaced_whole_and_null_is_the_default():
    assert changed({"schedule": "constant"}).schedule == Constant()
    assert changed({"schedule": None}).schedule is None
    assert changed({"staleness": {"name": "inverse"}}).staleness == Inverse(max_staleness=None)
    assert changed({"staleness": None}).staleness == NoStaleness()
    assert changed({"clip": None}).clip == ()
    assert changed({"average": "ema"}).average == Ema()
    assert changed({"average": None}).average is None
    assert changed({"sparse_semantics": "lazy"}).sparse_semantics == "lazy"
    assert changed({"sparse_semantics": None}).sparse_semantics == "exact"
    assert changed({"clip": "value", "aggregation": "async"} | {"clip": {"name": "value", "value": 2}}).clip == (
        Value(value=2.0),
    )


@pytest.mark.parametrize("fields", [{}, {"state": "paused"}, {"optimizer": None}, {"optimizer": {}}], ids=str)
def test_what_is_not_named_stays(fields):
    assert changed(fields) == SPEC


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"name": "sgd"}, "optimizer: expected name 'adam', came 'sgd': another rule needs another run"),
        ({"name": "mechanic"}, f"optimizer: expected one of {', '.join(OPTIMIZERS.built)}; this version "
                           "does not build the optimizer 'mechanic' yet"),
        ({"lr": -1}, "optimizer.lr: expected a number ≥ 0, came -1"),
        ({"compat": "keras"}, "optimizer: compat sets defaults when a run is created: send the fields to change"),
        ({"momentum": 0.9}, "optimizer: expected only the fields lr, beta1, beta2, eps, eps_root, eps_hat, "
         "bias_correction, amsgrad, amsgrad_corrected, name, weight_decay, weight_decay_mode, maximize, "
         "came 'momentum'"),
    ],
    ids=str,
)  # fmt: skip
def test_a_merge_that_cannot_be_is_refused(fields, detail):
    with pytest.raises(Refused) as refused:
        changed({"optimizer": fields})
    assert refused.value.rejection.code == "validation-error"
    assert refused.value.rejection.detail == detail


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"state": "stopped"}, "state: expected 'running', 'paused' or 'closed', came 'stopped'"),
        ({"optimizer": "sgd"}, "optimizer: expected an object, came 'sgd'"),
        ({"non_finite": "skip"},
         "expected only the fields optimizer, schedule, clip, aggregation, staleness, accumulate, "
         "groups, average, sparse_semantics, state, came 'non_finite'"),
        ({"weights": {}},
         "expected only the fields optimizer, schedule, clip, aggregation, staleness, accumulate, "
         "groups, average, sparse_semantics, state, came 'weights'"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_change_is_refused(fields, detail):
    assert detail_of(fields, RunChanges) == detail


@pytest.mark.parametrize("family", [CLIPS, AGGREGATIONS, STALENESS, AVERAGES], ids=lambda family: family.kind)
def test_every_rule_explains_itself(family):
    for name, member in family.built.items():
        entry = member.catalogue_entry()
        assert entry["name"] == name
        assert all(entry[key] for key in ("summary", "formula", "use_when"))
    assert not set(family.built) & set(family.planned)
    assert set(family.planned_aliases.values()) <= set(family.planned)
