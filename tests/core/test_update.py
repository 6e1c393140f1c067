"""What the driver promises about the arrays it is given."""

from __future__ import annotations

import tracemalloc
from typing import Any, ClassVar

import numpy as np
import pytest

from core.running import Updates, partial, read_only
from core.strategies import EACH, label
from gradserve import specs
from gradserve_service.core.gradient import Gradient
from gradserve_service.core.groups import GroupTerms
from gradserve_service.core.optimizers import RULES, rule_for
from gradserve_service.core.update import apply_update

each = pytest.mark.parametrize("spec", EACH, ids=label)
CLIP = [specs.Value(value=0.5), specs.GlobalNorm(max_norm=1.0)]


@each
@pytest.mark.parametrize("clip", [[], CLIP], ids=["plain", "clipped"])
def test_the_gradient_and_the_old_weights_are_only_read(spec: Any, clip: list[Any]) -> None:
    """The gradient may lie in the journal's payload, the old weights in an answer that is being sent."""
    random = np.random.default_rng(0)
    g, w = random.standard_normal((2, 500), dtype=np.float32)
    kept = g.tobytes(), w.tobytes()
    slots = {slot.name: np.zeros_like(w) for slot in rule_for(spec).slots}
    apply_update(
        rule_for(spec),
        clip,
        weights=read_only(w),
        next_weights=np.empty_like(w),
        slots=slots,
        memory=dict(rule_for(spec).memory),
        gradient=Gradient.whole(read_only(g)),
        terms=[GroupTerms(0.1, rule_for(spec).weight_decay)],
        momentum=None,
        step=1,
    )
    assert (g.tobytes(), w.tobytes()) == kept


@each
def test_a_tensor_left_out_keeps_weights_and_slots(spec: Any) -> None:
    """Its span is copied: the buffer of the next weights holds something older, here NaN."""
    run = Updates(spec, np.arange(10, dtype=np.float32))
    run.step(np.ones(10))
    before = [run.weights.copy(), *[slot.copy() for slot in run.slots.values()]]
    run.step(partial([None, None, 2.0, 2.0, None, None, None, 2.0, None, None], np.float32), block_elements=2)
    after = [run.weights, *run.slots.values()]
    came, absent = [2, 3, 7], [0, 1, 4, 5, 6, 8, 9]
    for old, new in zip(before, after, strict=True):
        assert (old[absent] == new[absent]).all()
    anchors = {"x0"}  # the weights that a rule began with: they stay
    for name, old, new in zip(["weights", *run.slots], before, after, strict=True):
        assert name in anchors or (old[came] != new[came]).all()


@each
def test_an_empty_gradient_changes_nothing(spec: Any) -> None:
    """No tensor came: weights are copied, slots stay. What counts updates has counted one."""
    run = Updates(spec, np.arange(4, dtype=np.float32))
    before = run.state
    statistics = run.step(partial([None] * 4, np.float32))
    run.memory = dict(run.rule.memory)
    assert run.state == before
    assert statistics.gradient_norm == 0.0


@each
def test_nothing_is_ever_computed_in_float64(spec: Any) -> None:
    """NEP 50: one np.float64 among the scalars would make blocks float64, or three times slower, without a word."""
    seen: set[Any] = set()
    rule_type = RULES[spec.name]

    class Spy(rule_type):  # type: ignore[valid-type, misc]
        watched: ClassVar[set[Any]] = seen

        def change(self, c: Any, g: Any, w: Any, s: Any, u: Any, a: Any) -> None:
            self.watched.update((type(x), x.dtype) for x in (*c, g, w, *s, u, *a))
            super().change(c, g, w, s, u, a)

    run = Updates(spec, np.ones(10, np.float32), CLIP, rule=Spy.model_validate(spec.model_dump()))
    run.step(np.ones(10), lr=float(np.float64(0.1)))
    assert seen == {(np.ndarray, np.dtype(np.float32))}


@each
def test_a_numpy_lr_does_no_harm(spec: Any) -> None:
    """A np.float64 from outside is cast like any other number."""
    run, other = (Updates(spec, np.ones(10, np.float32)) for _ in range(2))
    run.step(np.ones(10), lr=np.float64(0.1))
    other.step(np.ones(10), lr=0.1)
    assert run.weights.dtype == np.float32
    assert run.state == other.state


@each
@pytest.mark.parametrize("clip", [[], CLIP], ids=["plain", "clipped"])
def test_a_step_allocates_next_to_nothing(spec: Any, clip: list[Any]) -> None:
    """At a million parameters the peak is below 64 KiB once the scratch blocks exist; they are kept between updates."""
    size = 1_000_000
    weights, next_weights, g = (np.ones(size, np.float32) for _ in range(3))
    rule, slots = rule_for(spec), {slot.name: np.zeros(size, np.float32) for slot in rule_for(spec).slots}
    gradient = Gradient.whole(g)

    def step(t: int) -> None:
        apply_update(
            rule,
            clip,
            weights=weights,
            next_weights=next_weights,
            slots=slots,
            memory=dict(rule_for(spec).memory),
            gradient=gradient,
            terms=[GroupTerms(0.1, rule.weight_decay)],
            momentum=None,
            step=t,
        )

    step(1)
    tracemalloc.start()
    try:
        step(2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 << 10


@each
def test_overflow_is_an_outcome_and_not_a_warning(spec: Any) -> None:
    """A huge lr is the user's business; warnings are errors in this test run."""
    run = Updates(spec, np.ones(4, np.float32))
    run.step(np.full(4, 1e10), lr=1e300)
    run.step(np.full(4, 1e-30), lr=1e-300)


def test_the_state_of_an_optimizer_follows_from_its_spec() -> None:
    """Slots are named as torch names them; plain descent keeps none."""
    expected = {
        specs.Sgd(): [],
        specs.Sgd(momentum=0.9): ["velocity"],
        specs.Adam(): ["exp_avg", "exp_avg_sq"],
        specs.AdamW(amsgrad=True): ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"],
        specs.Adagrad(): ["sum"],
        specs.RmsProp(): ["square_avg"],
        specs.RmsProp(momentum=0.9, centered=True): ["square_avg", "grad_avg", "velocity"],
        specs.Adamax(): ["exp_avg", "exp_inf"],
        specs.Nadam(): ["exp_avg", "exp_avg_sq"],
    }
    for spec, names in expected.items():
        assert [slot.name for slot in rule_for(spec).slots] == names
        assert [slot.initial for slot in rule_for(spec).slots] == [0.0] * len(names)
    started = [
        specs.Adagrad(initial_accumulator_value=0.1),
        specs.RmsProp(initial_accumulator_value=0.1, centered=True),
    ]
    assert [[slot.initial for slot in rule_for(spec).slots] for spec in started] == [[0.1], [0.1, 0.0]]
    for name in (spec.name for spec in expected):
        assert RULES[name]().memory == ({"mu_product": 1.0} if name == "nadam" else {})


@each
def test_a_rule_is_its_spec_with_arithmetic(spec: Any) -> None:
    """Every hyperparameter arrives; equal specs share one rule."""
    rule = rule_for(spec)
    assert isinstance(rule, type(spec))
    assert rule.model_dump() == spec.model_dump()
    assert rule_for(type(spec).model_validate(spec.model_dump())) is rule
