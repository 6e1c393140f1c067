"""What a late gradient still counts.

The weight multiplies the *learning rate* of its update, not the gradient: an adaptive optimizer would cancel a factor
on the gradient by its own normalisation. It is computed by the decider and written into the entry.
"""

from __future__ import annotations

import math

from gradserve.specs import (
    DivideStaleness,
    ExponentialStaleness,
    HingeStaleness,
    Inverse,
    PolynomialStaleness,
    StalenessSpec,
)

__all__ = ["weight"]


def weight(spec: StalenessSpec, staleness: int) -> float:
    """s(τ) in [0, 1] for a gradient that is `staleness` = τ versions old.

        none         1
        inverse      1 / (1 + τ)
        divide       1 / max(1, τ)
        polynomial   (1 + τ)^-a
        hinge        1 where τ <= b, else 1 / (a (τ - b) + 1)
        exponential  e^(-a τ)

    `max_staleness` is not looked at here: refusing is a rule of the run, not arithmetic. `pow` and `exp` differ between
    machines: the decider's result is what counts, it stands in the entry.

    Source: Zhang et al. 2016 (arXiv:1511.05950) for `divide`, of which `inverse` is the softer form; Xie et al. 2019
    (FedAsync, arXiv:1903.03934) for `polynomial` and `hinge`.
    """
    match spec:
        case Inverse():
            return 1.0 / (1.0 + staleness)
        case DivideStaleness():
            return 1.0 / max(1.0, staleness)
        case PolynomialStaleness():
            return math.pow(1.0 + staleness, -spec.a)
        case HingeStaleness():
            return 1.0 / (spec.a * max(0, staleness - spec.b) + 1.0)
        case ExponentialStaleness():
            return math.exp(-spec.a * staleness)
        case _:
            return 1.0
