"""Shampoo and SOAP equal their dumb twin, at full rank: the rest of an eigenbasis is the library's choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core.families.preconditioned import EACH
from core.running import Updates, tensors_of
from core.strategies import gradients, label
from core.tensor_twin import TensorTwin
from core.test_tensor_twin import assert_agrees, both, walk
from gradserve import specs

SHAPES: list[tuple[int, ...]] = [(4, 4), (2, 3, 4), (1,)]
each = pytest.mark.parametrize("spec", EACH, ids=label)


def walked(spec: Any, seed: int, dtype: Any, updates: int = 7, present: Any = None) -> tuple[Updates, TensorTwin]:
    run, twin = both(spec, SHAPES, seed, dtype)
    walk(run, twin, gradients(seed, updates, run.weights.size), present)
    return run, twin


@each
def test_float64_agrees_with_the_twin(spec: Any) -> None:
    """Eigenvectors by Jacobi's rotations, bases by Gram and Schmidt: 1e-10 of the way walked."""
    for seed in (1, 2):
        assert_agrees(*walked(spec, seed, np.float64), 1e-10)


@each
def test_float32_stays_near_the_twin(spec: Any) -> None:
    """Decompositions are in float64, what they are made of and made for is not."""
    assert_agrees(*walked(spec, 1, np.float32), 1e-4)


@each
def test_a_tensor_that_comes_late_begins_its_matrices_then(spec: Any) -> None:
    """And one that does not come keeps them."""
    present = [[True, False, True], [False, True, True], [True, True, False], [True, True, True]]
    assert_agrees(*walked(spec, 3, np.float64, 4, present), 1e-10)


def _one(*shape: int) -> Any:
    return tensors_of([shape])


def test_shampoo_sees_no_turn_of_the_space() -> None:
    """Statistics turn with the gradients: for U G Vᵀ the step is U u Vᵀ (Gupta et al., of full matrices)."""
    random = np.random.default_rng(5)
    (left, _), (right, _) = (np.linalg.qr(random.standard_normal((3, 3))) for _ in range(2))
    plain, other = (Updates(specs.Shampoo(lr=0.1), np.zeros(9), layout=_one(3, 3)) for _ in range(2))
    for g in random.standard_normal((5, 3, 3)):
        plain.step(g.reshape(-1))
        other.step((left @ g @ right.T).reshape(-1))
    assert other.weights.reshape(3, 3) == pytest.approx(left @ plain.weights.reshape(3, 3) @ right.T, rel=1e-9)


def test_the_first_gradient_of_soap_moves_nothing() -> None:
    """It only begins the basis: no gradient is seen in coordinates that it made itself."""
    run = Updates(specs.Soap(lr=0.1), np.ones(9), layout=_one(3, 3))
    run.step(np.random.default_rng(1).standard_normal(9))
    assert (run.weights == 1.0).all()
    assert not run.slots["exp_avg"].any()
    basis = run.slots["eigenbasis"][:9].reshape(3, 3)
    assert basis @ basis.T == pytest.approx(np.eye(3), abs=1e-12)
