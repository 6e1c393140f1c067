"""Hypothesis strategies: every optimizer with any hyperparameters, clip lists, gradients."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

import numpy as np
from hypothesis import strategies as st

from core.families import anchored, descent, mixtures, moments, scaled, schedule_free, signs, sparse, variances
from gradserve import specs

FAMILIES = (
    descent,
    scaled,
    moments,
    variances,
    mixtures,
    signs,
    anchored,
    schedule_free,
    sparse,
)
optimizers = reduce(or_, (family.OPTIMIZERS for family in FAMILIES))

clip = st.builds(specs.GlobalNorm, max_norm=st.floats(0.1, 10), eps=st.sampled_from([0.0, 1e-6]))
clips = st.lists(clip | st.builds(specs.Value, value=st.floats(0.05, 5)), max_size=3)
shapes = st.sampled_from([(1,), (7, 5), (5, 7), (3, 4, 6), (64,)])
seeds = st.integers(0, 2**32 - 1)


def gradients(seed: int, updates: int, size: int) -> Any:
    """float64[updates, size] of very different magnitudes, exactly representable in float32."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((updates, size)) * np.exp(random.standard_normal((updates, size)))
    return values.astype(np.float32).astype(np.float64)


def first_weights(seed: int, size: int) -> Any:
    return np.random.default_rng([seed, 1]).standard_normal(size).astype(np.float32).astype(np.float64)


# One of each arithmetic path, for tests that need no random hyperparameters.
EACH = [spec for family in FAMILIES for spec in family.EACH]


def label(spec: Any) -> str:
    """A test's id: the fields that differ from the defaults."""
    return "-".join([spec.name, *sorted(spec.model_fields_set - {"lr", "name"})])
