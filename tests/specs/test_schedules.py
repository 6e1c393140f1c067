"""Schedules are read as people write them, and written in one canonical form."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from gradserve.specs import (
    SCHEDULES,
    ClientOwned,
    Constant,
    Cosine,
    Exponential,
    InverseTime,
    Linear,
    OneCycle,
    PiecewiseConstant,
    Polynomial,
    Power,
    ReduceOnPlateau,
    RunSpec,
    Step,
    WarmupCosine,
    validation_refusal,
)

BUILT = (
    "constant, warmup_cosine, power, exponential, inverse_time, step, piecewise_constant, polynomial, linear, cosine, "
    "one_cycle, reduce_on_plateau, client"
)


def read(schedule):
    return RunSpec(optimizer="sgd", schedule=schedule).schedule


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
        ("noam", f"schedule: expected one of {BUILT}; this version does not build the schedule 'noam' yet"),
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
        ({"name": "constant", "per": "epoch"}, "schedule: expected per 'update': this version counts updates only"),
        ({"name": "constant", "lr": 1}, "schedule: expected only the fields name, came 'lr'"),
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
        "one_cycle": {"total_steps": 5, "style": "geron", "div_factor": 3},
    }  # fmt: skip
    spec = RunSpec(optimizer="sgd", schedule={"name": name, **required.get(name, {})})
    text = json.dumps(spec.canonical())
    assert RunSpec.model_validate(json.loads(text)) == spec
    assert json.dumps(RunSpec.model_validate(json.loads(text)).canonical()) == text
