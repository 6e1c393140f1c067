"""Schedules are read as people write them, and written in one canonical form."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from gradserve.problems import Refused
from gradserve.specs import (
    SCHEDULES,
    Chained,
    ClientOwned,
    Constant,
    ConstantFactor,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    InverseSqrt,
    InverseTime,
    Linear,
    MultiStep,
    Noam,
    OneCycle,
    PiecewiseConstant,
    Polynomial,
    Power,
    ReduceOnPlateau,
    RunChanges,
    RunSpec,
    Sequential,
    Step,
    Swa,
    Table,
    Warmup,
    WarmupCosine,
    Wsd,
    validation_refusal,
)

BUILT = (
    "constant, warmup_cosine, power, exponential, inverse_time, step, multistep, piecewise_constant, polynomial, "
    "linear, constant_factor, cosine, cosine_restarts, one_cycle, cyclic, wsd, inverse_sqrt, noam, swa, table, warmup, "
    "sequential, chained, reduce_on_plateau, client"
)


def read(schedule):
    return RunSpec.model_validate({"optimizer": "sgd", "schedule": schedule}).schedule


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (None, None),
        ("constant", Constant()),
        ({"name": "Constant"}, Constant()),
        ({"name": "constant", "per": "update"}, Constant()),
        ({"name": "warmup_cosine", "warmup_steps": 5, "total_steps": 10}, WarmupCosine(warmup_steps=5, total_steps=10)),
        (
            {"name": "WarmupCosine", "num_warmup_steps": 0, "T_max": 10, "eta_min": 1, "init_value": 0.5},
            WarmupCosine(warmup_steps=0, total_steps=10, start=0.5, end=1.0),
        ),
        (
            {"name": "warmup-cosine", "num_warmup_steps": 1, "num_training_steps": 9, "min_lr": 1e-5, "first_step": 1},
            WarmupCosine(warmup_steps=1, total_steps=9, end=1e-5, warmup_offset=1),
        ),
        ({"name": "power", "s": 100}, Power(s=100.0, c=1.0)),
        ("client", ClientOwned()),
        ({"name": "exponential", "decay_rate": 0.1, "s": 20}, Exponential(decay_rate=0.1, decay_steps=20.0)),
        ({"name": "ExponentialLR", "gamma": 0.9}, Exponential(decay_rate=0.9)),
        (
            {"name": "ExponentialDecay", "decay_rate": 0.9, "decay_steps": 7, "staircase": True},
            Exponential(decay_rate=0.9, decay_steps=7.0, staircase=True),
        ),
        (
            {"name": "exponential", "transition_steps": 3, "decay_rate": 0.5, "transition_begin": 2, "end_value": 0.1},
            Exponential(decay_rate=0.5, decay_steps=3.0, begin=2, end=0.1),
        ),
        ({"name": "time_based", "decay": 0.1}, InverseTime(decay_rate=0.1)),
        (
            {"name": "InverseTimeDecay", "decay_rate": 0.5, "decay_steps": 9},
            InverseTime(decay_rate=0.5, decay_steps=9.0),
        ),
        ({"name": "StepLR", "step_size": 30}, Step(step_size=30, gamma=0.1)),
        ({"name": "step", "decay_rate": 0.5, "decay_steps": 3}, Step(step_size=3, gamma=0.5)),
        (
            {"name": "piecewise_constant", "milestones": [3, 6], "values": [1, 2, 3]},
            PiecewiseConstant(boundaries=(3, 6), values=(1.0, 2.0, 3.0)),
        ),
        (
            {"name": "PiecewiseConstantDecay", "boundaries": [], "values": [1]},
            PiecewiseConstant(boundaries=(), values=(1.0,), right_closed=True),
        ),
        ({"name": "PolynomialLR", "total_iters": 5, "power": 2}, Polynomial(total_steps=5, power=2.0)),
        ({"name": "PolynomialDecay", "decay_steps": 5}, Polynomial(total_steps=5, end=1e-4)),
        ("LinearLR", Linear(start_factor=1 / 3, end_factor=1.0, total_steps=5)),
        ({"name": "linear", "start_factor": 0, "total_iters": 9}, Linear(start_factor=0.0, total_steps=9)),
        ({"name": "CosineAnnealingLR", "T_max": 9, "eta_min": 0.1}, Cosine(total_steps=9, end=0.1, after="bounce")),
        ({"name": "CosineDecay", "decay_steps": 9, "alpha": 0.1}, Cosine(total_steps=9, end_factor=0.1)),
        ({"name": "OneCycleLR", "max_lr": 0.1, "total_steps": 9}, OneCycle(max_lr=0.1, total_steps=9)),
        (
            {"name": "1cycle", "total_steps": 9, "style": "geron"},
            OneCycle(total_steps=9, style="geron", div_factor=10.0, final_div_factor=1000.0),
        ),
        (
            {"name": "onecycle", "total_steps": 9, "style": "geron", "div_factor": 4},
            OneCycle(total_steps=9, style="geron", div_factor=4.0, final_div_factor=1000.0),
        ),
        ({"name": "MultiStepLR", "milestones": [30, 80]}, MultiStep(milestones=(30, 80))),
        ("ConstantLR", ConstantFactor(factor=1 / 3, total_steps=5)),
        (
            {"name": "CosineAnnealingWarmRestarts", "T_0": 10, "T_mult": 2, "eta_min": 0.1},
            CosineRestarts(first_steps=10, t_mul=2.0, end=0.1),
        ),
        (
            {"name": "CosineDecayRestarts", "first_decay_steps": 9, "alpha": 0.1},
            CosineRestarts(first_steps=9, t_mul=2.0, end_factor=0.1),
        ),
        ({"name": "CyclicLR", "base_lr": 0.1, "max_lr": 1}, Cyclic(base_lr=0.1, max_lr=1.0)),
        (
            {"name": "trapezoid", "num_warmup_steps": 1, "num_stable_steps": 2, "num_decay_steps": 3},
            Wsd(warmup_steps=1, stable_steps=2, decay_steps=3),
        ),
        ({"name": "rsqrt", "warmup_steps": 9}, InverseSqrt(warmup_steps=9)),
        ({"name": "transformer", "d_model": 512, "factor": "lr"}, Noam(d_model=512, factor="lr")),
        ({"name": "SWALR", "swa_lr": 0.05, "anneal_epochs": 3}, Swa(swa_lr=0.05, anneal_steps=3)),
        ({"name": "table", "values": [3, 2, 1]}, Table(points=((0, 3.0), (1, 2.0), (2, 1.0)))),
        ({"name": "table", "points": [[0, 3], [9, 1]]}, Table(points=((0, 3.0), (9, 1.0)))),
        (
            {"name": "warmup", "warmup_steps": 5, "schedule": {"name": "power", "s": 9}},
            Warmup(warmup_steps=5, then=Power(s=9.0)),
        ),
        (
            {"name": "SequentialLR", "schedulers": ["constant", {"name": "power", "s": 9}], "milestones": [4]},
            Sequential(parts=(Constant(), Power(s=9.0)), milestones=(4,)),
        ),
        ({"name": "ChainedScheduler", "schedulers": ["ConstantLR"]}, Chained(parts=(ConstantFactor(),))),
        (
            {"name": "step", "step_size": 30, "per": "epoch", "steps_per_epoch": 10},
            Step(step_size=30, per="epoch", steps_per_epoch=10),
        ),
        ({"name": "step", "step_size": 30, "per": "sample"}, Step(step_size=30, per="sample")),
    ],
    ids=str,
)
def test_schedules_are_read(written, meant):
    assert read(written) == meant


def test_the_defaults_are_those_of_the_design():
    schedule = WarmupCosine(warmup_steps=1, total_steps=2)
    assert (schedule.start, schedule.end, schedule.warmup_offset) == (0.0, 0.0, 0)


@pytest.mark.parametrize(
    ("written", "detail"),
    [
        ("LambdaLR", f"schedule: expected one of {BUILT}; this version does not build the schedule 'LambdaLR' yet: no "
         "code is taken; send its values as the schedule 'table'"),
        ({"name": "sgdr", "T_0": 5, "T_mult": 1.001}, "schedule: expected t_mul 1 or ≥ 1.01, came 1.001"),
        ({"name": "sgdr", "T_0": 5, "end": 0.1, "alpha": 0.1},
         "schedule: expected end or end_factor, came both: send one"),
        ({"name": "cyclic", "max_lr": 1, "gamma": 2}, "schedule.gamma: expected a number ≤ 1, came 2"),
        ({"name": "table", "points": [[0, 1], [0, 2]]}, "schedule: expected points with ascending k"),
        ({"name": "table", "points": []}, "schedule.points: expected at least 1 items, came a list"),
        ({"name": "sequential", "parts": ["constant"], "milestones": [5]},
         "schedule: expected one part more than milestones, came 1 and 1"),
        ({"name": "sequential", "parts": ["constant"] * 3, "milestones": [5, 5]},
         "schedule: expected milestones that ascend"),
        ({"name": "sequential", "parts": [{"name": "step", "step_size": 0}]},
         "schedule.parts[0].step_size: expected a number ≥ 1, came 0"),
        ({"name": "warmup", "warmup_steps": 5, "then": {"name": "power", "s": 0}},
         "schedule.then.s: expected a number > 0, came 0"),
        ({"name": "warmup", "warmup_steps": 5, "then": "client"}, "schedule.then: expected a schedule that k alone "
         "decides, came 'client': it cannot be a part of another"),
        ({"name": "chained", "parts": [{"name": "constant", "per": "epoch"}]}, "schedule.parts[0]: expected no per, a "
         "part counts what the whole schedule counts: send per there"),
        ({"name": "chained", "parts": ["constant"] * 64}, "schedule: expected at most 64 parts, 8 levels deep"),
        ("sawtooth", f"schedule: expected one of {BUILT}, came 'sawtooth'"),
        ({"name": "exponential", "decay_rate": 2}, "schedule: expected end with decay_rate > 1, came 2 alone: the rate "
         "has no bound"),
        ({"name": "exponential", "decay_rate": 0}, "schedule.decay_rate: expected a number > 0, came 0"),
        ({"name": "step", "step_size": 0}, "schedule.step_size: expected a number ≥ 1, came 0"),
        ({"name": "step", "step_size": 1, "gamma": 2}, "schedule.gamma: expected a number ≤ 1, came 2"),
        ({"name": "piecewise_constant", "boundaries": [5], "values": [1]},
         "schedule: expected one value more than boundaries, came 1 and 1"),
        ({"name": "piecewise_constant", "boundaries": [5, 5], "values": [1, 2, 3]},
         "schedule: expected boundaries that ascend"),
        ({"name": "piecewise_constant", "boundaries": [1, "x"], "values": [1, 2, -3]},
         "schedule.boundaries[1]: expected an integer, came 'x'; schedule.values[2]: expected a number ≥ 0, came -3"),
        ({"name": "cosine", "total_steps": 5, "end": 0.1, "alpha": 0.1}, "schedule: expected end or end_factor, came "
         "both: send one"),
        ({"name": "cosine", "total_steps": 5, "after": "repeat"},
         "schedule.after: expected 'hold' or 'bounce', came 'repeat'"),
        ({"name": "one_cycle", "total_steps": 5, "three_phase": True, "pct_start": 0.6}, "schedule: expected pct_start "
         "≤ 0.5 with three_phase, came 0.6: falling takes as long as rising"),
        ({"name": "one_cycle", "total_steps": 5, "style": "fastai"},
         "schedule.style: expected 'torch' or 'geron', came 'fastai'"),
        ("warmup_cosine", "schedule.warmup_steps: expected a value, came nothing; "
                          "schedule.total_steps: expected a value, came nothing"),
        ({"name": "warmup_cosine", "warmup_steps": 5, "total_steps": 5}, "schedule: expected total_steps > "
         "warmup_steps (the total includes the warmup), came 5 and 5"),
        ({"name": "warmup_cosine", "warmup_steps": 1.5, "total_steps": 5},
         "schedule.warmup_steps: expected an integer, came 1.5"),
        ({"name": "warmup_cosine", "warmup_steps": -1, "total_steps": 2**60},
         "schedule.warmup_steps: expected a number ≥ 0, came -1; "
         "schedule.total_steps: expected a number ≤ 9007199254740991, came 1152921504606846976"),
        ({"name": "warmup_cosine", "warmup_steps": 1, "total_steps": 5, "warmup_offset": 2},
         "schedule.warmup_offset: expected a number ≤ 1, came 2"),
        ({"name": "warmup_cosine", "warmup_steps": 1, "total_steps": 5, "warmup_offset": True},
         "schedule.warmup_offset: expected an integer, came True"),
        ({"name": "warmup_cosine", "warmup_steps": 1, "decay_steps": 5}, "schedule: expected total_steps, came "
         "decay_steps, which counts the warmup in one library and not in another: send total_steps, the warmup "
         "included"),
        ({"name": "power", "s": 0}, "schedule.s: expected a number > 0, came 0"),
        ({"name": "power", "s": 1, "c": -1}, "schedule.c: expected a number ≥ 0, came -1"),
        ({"name": "constant", "per": "epoch"}, "schedule: expected to know how long an epoch is: send steps_per_epoch "
         "with the schedule, or the run's dataset_size"),
        ({"name": "constant", "per": "day"}, "schedule.per: expected 'update', 'epoch' or 'sample', came 'day'"),
        ({"name": "constant", "steps_per_epoch": 5},
         "schedule: expected steps_per_epoch only with per 'epoch', came per 'update'"),
        ({"name": "constant", "lr": 1},
         "schedule: expected only the fields per, steps_per_epoch, name, came 'lr'"),
    ],
    ids=str,
)  # fmt: skip
def test_a_refusal_says_what_was_expected_and_what_came(written, detail):
    with pytest.raises(ValidationError) as caught:
        read(written)
    assert validation_refusal(caught.value).rejection.detail == detail


@pytest.mark.parametrize("name", SCHEDULES.built)
def test_every_schedule_explains_itself(name):
    entry = SCHEDULES.built[name].catalogue_entry()
    assert entry["name"] == name
    assert all(entry[key] for key in ("summary", "formula", "use_when"))
    assert all("description" in schema for schema in entry["hyperparameters"]["properties"].values())


def test_no_built_schedule_is_announced_as_planned():
    assert not set(SCHEDULES.built) & set(SCHEDULES.planned)
    assert set(SCHEDULES.planned_aliases.values()) <= set(SCHEDULES.planned)


def test_a_plateau_has_the_defaults_of_its_style():
    """It is declared and not yet to be had: see `planned`."""
    torch, keras = ReduceOnPlateau(), ReduceOnPlateau(style="keras")
    assert (torch.factor, torch.patience, torch.threshold_mode, torch.eps) == (0.1, 10, "rel", 1e-8)
    assert (keras.threshold, keras.threshold_mode, keras.eps) == (1e-4, "abs", 0.0)
    assert ReduceOnPlateau(style="optax", rtol=0.1, atol=0.2, accumulation_size=3) == ReduceOnPlateau(
        style="optax", threshold=0.1, threshold_abs=0.2, every=3, eps=0.0
    )
    assert ReduceOnPlateau(style="keras", min_delta=0.5).threshold == 0.5


@pytest.mark.parametrize("name", SCHEDULES.built)
def test_the_canonical_form_is_read_as_what_it_was(name):
    """Through JSON, as creation and configure entries keep it."""
    required = {
        "warmup_cosine": {"warmup_steps": 1, "total_steps": 5}, "power": {"s": 5}, "exponential": {"decay_rate": 0.5},
        "inverse_time": {"decay_rate": 0.5}, "step": {"step_size": 3}, "polynomial": {"total_steps": 5},
        "piecewise_constant": {"boundaries": [3], "values": [1, 0.1]}, "cosine": {"total_steps": 5},
        "one_cycle": {"total_steps": 5, "style": "geron", "div_factor": 3}, "multistep": {"milestones": [3, 3]},
        "cosine_restarts": {"first_steps": 5}, "cyclic": {"max_lr": 1, "per": "epoch", "steps_per_epoch": 3},
        "wsd": {"warmup_steps": 1, "stable_steps": 2, "decay_steps": 3}, "inverse_sqrt": {"warmup_steps": 5},
        "noam": {"d_model": 8, "factor": "lr"}, "swa": {"swa_lr": 0.1}, "table": {"points": [1, 0.1]},
        "warmup": {"warmup_steps": 3, "then": {"name": "power", "s": 5}, "per": "sample"},
        "sequential": {"parts": ["constant", {"name": "chained", "parts": ["linear"]}], "milestones": [5]},
        "chained": {"parts": ["linear", {"name": "warmup", "warmup_steps": 3}]},
    }  # fmt: skip
    spec = RunSpec(optimizer="sgd", schedule={"name": name, **required.get(name, {})})
    text = json.dumps(spec.canonical())
    assert RunSpec.model_validate(json.loads(text)) == spec
    assert json.dumps(RunSpec.model_validate(json.loads(text)).canonical()) == text


def test_epochs_need_a_length_in_a_change_too():
    """dataset_size is said when a run is made, so a change can be refused at once."""
    changes = RunChanges(schedule={"name": "step", "step_size": 1, "per": "epoch"})
    assert changes.apply(RunSpec(optimizer="sgd", dataset_size=10)).schedule == Step(step_size=1, per="epoch")
    with pytest.raises(Refused, match="expected to know how long an epoch is"):
        changes.apply(RunSpec(optimizer="sgd"))


def test_the_usual_unit_is_not_written():
    """What an older program wrote stays the canonical form."""
    assert RunSpec(optimizer="sgd", schedule={"name": "constant", "per": "update"}).canonical()["schedule"] == {
        "name": "constant"
    }


def test_a_nest_of_schedules_is_refused_before_it_is_read():
    """As deep as a body of JSON may be, and deeper."""
    nest = "constant"
    for _ in range(5_000):
        nest = {"name": "chained", "parts": [nest]}
    with pytest.raises(ValidationError, match="8 levels deep"):
        read(nest)
