"""Schedules: constant, warmup_cosine, power."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from gradserve.specs import SCHEDULES, Constant, Power, RunSpec, WarmupCosine, validation_refusal


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
        ("one_cycle", "schedule: expected one of constant, warmup_cosine, power; this version does not build the "
                      "schedule 'one_cycle' yet"),
        ("OneCycleLR", "schedule: expected one of constant, warmup_cosine, power; this version does not build the "
                       "schedule 'one_cycle' yet"),
        ("sawtooth", "schedule: expected one of constant, warmup_cosine, power, came 'sawtooth'"),
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
