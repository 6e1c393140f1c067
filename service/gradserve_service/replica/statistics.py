"""What the latest updates say about a run, computed when somebody asks."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from ..core.arrays import Arrays
from ..core.history import History
from ..core.optimizers import Rule
from .descriptions import warnings_of
from .recovery import State

__all__ = ["statistics_json"]

NORM_KEEP: Final = 0.9  # of the moving mean of the gradient's norm: about the last ten updates


def statistics_json(state: State, tolerance: float | None) -> dict[str, Any]:
    """The answer of GET …/statistics. `converged`: the moving mean of the gradient's norm is below the tolerance."""
    control, history = state.control, state.arrays.history
    norm = _moving_norm(history)
    converged = None if tolerance is None or norm is None else norm < tolerance
    return {
        "step": control.step,
        "updates": control.updates,
        "samples_seen": control.samples_seen,
        "epoch": control.epoch,
        "gradient_norm": norm,
        "gradient_norm_median": _finite(history.median_norm()),
        "converged": converged,
        "effective_lr": _effective_lr(state),
        "memory": _memory(state.arrays),
        "measured_version": None if history.measured is None else history.measured_at,
        "tensors": _tensors(state),
        "warnings": warnings_of(state),
    }


def _memory(arrays: Arrays) -> dict[str, float | None]:
    """The optimizer's own numbers, without those of an average of the weights. None before the first weights."""
    rule: Rule = arrays.rule
    return {name: _finite(arrays.memory[name]) for name in rule.memory if name in arrays.memory}


def _moving_norm(history: History) -> float | None:
    """Σ 0.9^i norm_i / Σ 0.9^i, i = 0 for the last update."""
    norms = history.column("gradient_norm")[-256:][::-1]
    if not norms.size:
        return None
    shares = NORM_KEEP ** np.arange(norms.size)
    return float((shares * norms).sum() / shares.sum())


def _effective_lr(state: State) -> dict[str, float | None] | None:
    """The rate that each element's gradient got in the last update, for rules that have one an element: its group's,
    with the staleness weight. What is frozen has none."""
    arrays, rates = state.arrays, state.arrays.history.rates
    if not rates or arrays.rule_step < 1:
        return None
    rule: Rule = arrays.rule
    slots = [arrays.slots[slot.name] for slot in rule.slots]
    found = []
    with np.errstate(all="ignore"):
        for start, stop, group in _trained(arrays):
            part = rule.element_rates(arrays.rule_step, rates[group], [slot[start:stop] for slot in slots])
            if part is None:
                return None
            found.append(part)
        if not sum(part.size for part in found):
            return None
        every = found[0] if len(found) == 1 else np.concatenate(found)
        least, most = float(every.min()), float(every.max())
        median = float(np.median(every, overwrite_input=True))
    return {"min": _finite(least), "median": _finite(median), "max": _finite(most)}


def _trained(arrays: Arrays) -> list[tuple[int, int, int]]:
    """From where to where, and in which group: all parameters that are not frozen."""
    assert arrays.layout is not None
    if not arrays.stretches:
        return [(0, arrays.layout.parameters, 0)]
    frozen = {place for place, group in enumerate(arrays.spec.groups, 1) if group.frozen}
    return [(each.start, each.stop, each.group) for each in arrays.stretches if each.group not in frozen]


def _tensors(state: State) -> list[dict[str, Any]]:
    arrays, measured = state.arrays, state.arrays.history.measured
    if arrays.layout is None or measured is None:
        return []
    largest = float(np.fmax.reduce(measured.norm, initial=0.0))
    return [
        {
            "name": name,
            "gradient_norm": _finite(norm),
            "gradient_max": _finite(most),
            "zero_fraction": _finite(zeros),
            "norm_ratio": _finite(norm / largest) if largest else None,
        }
        for name, norm, most, zeros in zip(
            arrays.layout.names,
            measured.norm.tolist(),
            measured.largest.tolist(),
            measured.zeros.tolist(),
            strict=True,
        )
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
