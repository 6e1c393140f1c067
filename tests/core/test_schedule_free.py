"""Rules that train at an average: sentences of their paper, and one average for all groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core.families.schedule_free import EACH
from core.running import Updates
from core.strategies import first_weights, gradients, label
from core.twin import Twin
from gradserve import specs
from gradserve_service.core.groups import GroupTerms, Stretch

each = pytest.mark.parametrize("spec", EACH, ids=label)


def averaged(run: Updates) -> Any:
    return run.rule.average(run.weights, list(run.slots.values()))


@each
def test_what_is_best_to_evaluate_at_is_the_x_of_the_paper(spec: Any) -> None:
    """It is not kept: it follows from the weights and z. Here it is computed as the paper has it."""
    run, twin = Updates(spec, first_weights(1, 8)), Twin(spec, [], first_weights(1, 8))
    assert averaged(run).tolist() == run.weights.tolist()
    for g in gradients(1, 12, 8):
        run.step(g)
        twin.step(g.tolist(), spec.lr)
        assert averaged(run) == pytest.approx([memory["x"] for memory in twin.memory], rel=1e-9)


def test_the_average_of_a_constant_rate_is_the_mean_of_all_z() -> None:
    """c = 1/t: "an equal-weighted average of the z sequence"."""
    run, seen = Updates(specs.ScheduleFreeSgd(lr=0.1), np.ones(5)), []
    for g in gradients(2, 9, 5):
        run.step(g)
        seen.append(run.slots["z"].copy())
        assert averaged(run) == pytest.approx(np.mean(seen, axis=0), rel=1e-12)


@each
def test_a_group_is_averaged_as_if_it_were_alone_whichever_group_comes_last(spec: Any) -> None:
    """Half the rate, or none at all, in a group of its own: the share of an update in the average is the run's."""
    weights, pushed = first_weights(3, 8), gradients(3, 6, 8)
    for scale in (0.5, 0.0):
        whole, alone = Updates(spec, weights), Updates(spec, weights)
        for k, g in enumerate(pushed):
            rate, decay = 0.1 + 0.05 * k, spec.weight_decay
            terms = [GroupTerms(rate, decay), GroupTerms(rate * scale, decay)]
            whole.step(g, terms=terms, stretches=(Stretch(0, 5, 0), Stretch(5, 8, 1)))
            alone.step(g, lr=rate)
        assert np.array_equal(whole.weights[:5], alone.weights[:5])
        assert np.array_equal(whole.weights[5:], weights[5:]) == (scale == 0.0)
        assert whole.memory == alone.memory


def test_each_group_has_its_own_decay_inside_the_rule() -> None:
    """The decay beside the divided gradient is the group's, not the run's."""
    spec, weights = specs.ScheduleFreeAdamW(lr=0.1, weight_decay=0.5), np.ones(4)
    whole, alone = Updates(spec, weights), Updates(spec.model_copy(update={"weight_decay": 0.0}), weights[2:])
    for g in gradients(4, 3, 4):
        whole.step(
            g, terms=[GroupTerms(0.1, 0.5), GroupTerms(0.1, 0.0)], stretches=(Stretch(0, 2, 0), Stretch(2, 4, 1))
        )
        alone.step(g[2:])
    assert np.array_equal(whole.weights[2:], alone.weights)


def test_the_largest_learning_rate_there_is_leaves_numbers_in_the_memory() -> None:
    """An image of a run holds no infinity."""
    run = Updates(specs.ScheduleFreeSgd(lr=1e300, weight_lr_power=10.0, r=10.0), np.ones(2))
    for _ in range(3):
        run.step([0.0, 0.0])
    assert np.isfinite(list(run.memory.values())).all()
