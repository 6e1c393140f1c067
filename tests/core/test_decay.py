"""Weight decay beside the rule: one line of each mode, in numbers that one can follow, for every kind of rule."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import numpy as np
import pytest

from core.running import Updates
from core.strategies import EACH
from core.tensor_strategies import EACH as EACH_WITH_TENSORS
from gradserve.specs import OPTIMIZERS, Sgd
from gradserve_service.core.blocks import RunAll
from gradserve_service.core.decay import decay_of
from gradserve_service.core.groups import GroupTerms

BESIDE = ["decoupled", "independent", "corrected", "cautious", "proximal"]


@pytest.fixture(scope="module")
def four_threads() -> Iterator[RunAll]:
    with ThreadPoolExecutor(4) as pool:
        yield lambda tasks: [future.result() for future in [pool.submit(task) for task in tasks]] and None


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # w = [4, 4], u = lr g = 0.25 [4, -4]; lr 0.25 is half of the base rate, λ = 0.5
        ("decoupled", [4 * (1 - 0.25 * 0.5) - 1, 4 * (1 - 0.25 * 0.5) + 1]),
        ("independent", [4 * (1 - 0.5 * 0.5) - 1, 4 * (1 - 0.5 * 0.5) + 1]),
        ("corrected", [4 * (1 - 0.25 * 0.5 * 0.5) - 1, 4 * (1 - 0.25 * 0.5 * 0.5) + 1]),
        ("cautious", [4 * (1 - 0.25 * 0.5) - 1, 4 + 1]),
        ("proximal", [(4 - 1) / (1 + 0.25 * 0.5), (4 + 1) / (1 + 0.25 * 0.5)]),
    ],
)
def test_each_mode_does_what_its_line_says(mode: str, expected: list[float]) -> None:
    """A rate that a schedule has halved, on a weight that the gradient makes smaller and one that it makes larger."""
    run = Updates(Sgd(lr=0.5, weight_decay=0.5, weight_decay_mode=mode), [4.0, 4.0])
    run.step([4.0, -4.0], lr=0.25)
    assert run.weights.tolist() == expected


def test_a_cautious_weight_that_does_not_move_does_not_decay() -> None:
    """Nor does one that is 0: its sign is that of no change."""
    run = Updates(Sgd(lr=0.5, weight_decay=0.5, weight_decay_mode="cautious"), [4.0, 0.0, -0.0, -4.0])
    run.step([0.0, 0.0, 0.0, 0.0])
    assert run.weights.tolist() == [4.0, 0.0, 0.0, -4.0]


def test_at_a_base_rate_of_zero_nothing_decays_by_its_share() -> None:
    """0 / 0 would destroy every weight; a client may well name rates for such a run."""
    for mode in ("independent", "corrected"):
        assert decay_of(mode, 0.25, 0.0, 0.5) is None


def test_each_group_decays_by_its_own_terms() -> None:
    """`independent` with a group's lr: its share of the base rate."""
    run = Updates(Sgd(lr=0.5, weight_decay=0.5, weight_decay_mode="independent"), [4.0])
    run.step([0.0], terms=[GroupTerms(1.0, 0.25)])
    assert run.weights.tolist() == [4.0 * (1 - 2 * 0.25)]


DECAY_OF_THEIR_OWN = ("momo", "momo_adam", "dadapt_adam", "prodigy", "adafactor", "soap")  # it is in their formula


def test_every_rule_with_decoupled_decay_has_the_other_modes() -> None:
    """They are the driver's, not the rule's, unless the rule reckons with the decay that it is told of."""
    for name, spec in OPTIMIZERS.built.items():
        modes = get_args(spec.model_fields["weight_decay_mode"].annotation)
        assert set(BESIDE) <= set(modes) or "decoupled" not in modes or name in DECAY_OF_THEIR_OWN, name


@pytest.mark.parametrize("mode", BESIDE)
@pytest.mark.parametrize("spec", [EACH[0], EACH_WITH_TENSORS[0], EACH_WITH_TENSORS[-2]], ids=lambda spec: spec.name)
def test_blocks_and_threads_do_not_change_the_bits(spec: Any, mode: str, four_threads: RunAll) -> None:
    """Of an elementwise rule, of one with sums and of a shaped one."""
    spec = spec.model_copy(update={"weight_decay": 0.125, "weight_decay_mode": mode})
    g, w = np.random.default_rng(4).standard_normal((2, 70_001)).astype(np.float32)
    alone, shared = Updates(spec, w), Updates(spec, w)
    for _ in range(2):
        alone.step(g)
        shared.step(g, run_all=four_threads, block_elements=1_000)
    assert alone.state == shared.state
    plain = Updates(spec.model_copy(update={"weight_decay": 0.0}), w)
    plain.step(g)
    plain.step(g)
    assert plain.state != alone.state
