"""What a late gradient still counts.

The weight multiplies the *learning rate* of its update, not the gradient: an adaptive optimizer would cancel a factor
on the gradient by its own normalisation. It is computed by the decider and written into the entry.
"""

from __future__ import annotations

from gradserve.specs import StalenessSpec

__all__ = ["weight"]


def weight(spec: StalenessSpec, staleness: int) -> float:
    """s(τ) in (0, 1] for a gradient that is `staleness` = τ versions old.

        none      1
        inverse   1 / (1 + τ)

    `max_staleness` is not looked at here: refusing is a rule of the run, not arithmetic.

    Source: the softest of the rules around Zhang et al. 2016 (staleness-aware async SGD), who use 1 / max(1, τ).
    """
    if spec.name == "inverse":
        return 1.0 / (1.0 + staleness)
    return 1.0
