"""The arithmetic of a plan: what is trained, in how many updates."""

from __future__ import annotations

import dataclasses

import pytest

from gradserve_service.demo.plan import EPOCHS_MAX, EPOCHS_MIN, Plan, batch_size_of, default_epochs, default_lr

PLAN = Plan(run="r", workers=4, batch_size=32, epochs=10, lr=0.01, seed=0)


def test_the_shards_add_up():
    assert [PLAN.rows(rank) for rank in range(4)] == [337, 337, 337, 336]


@pytest.mark.parametrize(("batch_size", "an_epoch"), [(None, 1), (1, 337), (32, 11), (336, 2), (1000, 1)])
def test_an_epoch_is_rows_over_batch_rounded_up(batch_size, an_epoch):
    plan = dataclasses.replace(PLAN, batch_size=batch_size)
    assert plan.updates(0) == 10 * an_epoch


def test_the_total_is_that_of_all_workers():
    assert PLAN.total_updates == 10 * 4 * 11
    assert PLAN.alone.total_updates == 10 * 43  # ⌈1347 / 32⌉


def test_a_plan_survives_the_command_line():
    assert Plan.from_json(PLAN.to_json()) == PLAN


def test_the_schedule_ends_with_the_training():
    spec = PLAN.spec()
    assert spec.schedule.total_steps == PLAN.total_updates
    assert spec.optimizer.lr == 0.01


def test_a_single_update_is_a_valid_plan():
    dataclasses.replace(PLAN, workers=1, batch_size=None, epochs=1).spec()


@pytest.mark.parametrize(("text", "size"), [("full", None), ("1", 1), ("32", 32)])
def test_batch_sizes(text, size):
    assert batch_size_of(text) == size


@pytest.mark.parametrize("text", ["0", "-1", "half", "", "3.5", "²"])
def test_other_batch_sizes_are_refused(text):
    with pytest.raises(ValueError, match="expected 'full', 1 or a larger number"):
        batch_size_of(text)


@pytest.mark.parametrize("batch_size", [None, 1, 8, 32, 128, 1347])
def test_defaults_stay_within_their_bounds(batch_size):
    assert EPOCHS_MIN <= default_epochs(batch_size, 4) <= EPOCHS_MAX
    assert 0.005 <= default_lr(batch_size) <= 0.02
