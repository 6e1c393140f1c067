"""Schedules with a warmup of their own, and rates from a table."""

from __future__ import annotations

import math
from bisect import bisect_right
from operator import itemgetter

from gradserve.specs import InverseSqrt, Noam, Swa, Table, Wsd

from .powers import cosine_down

__all__ = ["inverse_sqrt", "noam", "swa", "table", "wsd"]

TIMESCALE = 10_000  # of an inverse root without a warmup


def wsd(schedule: Wsd, lr: float, k: int) -> float:
    """lr (f + (1 - f) r), f = min_ratio: r rises from 0 to 1, stays, falls to 0, each for its number of updates.

    Source: Hu et al. 2024 (arXiv:2404.06395); transformers.get_wsd_schedule, whose warmup too begins at min_ratio.
    """
    stable = k - schedule.warmup_steps
    decaying = stable - schedule.stable_steps
    if stable < 0:
        share = 1.0 - _falling(schedule.warmup, k / schedule.warmup_steps, rising=True)
    elif decaying < 0:
        share = 1.0
    elif decaying < schedule.decay_steps:
        share = _falling(schedule.decay, decaying / schedule.decay_steps)
    else:
        share = 0.0
    return lr * (share * (1.0 - schedule.min_ratio) + schedule.min_ratio)


def _falling(form: str, x: float, rising: bool = False) -> float:
    """From 1 at x = 0 to 0 at x = 1. The root's way up is its way down, read backwards and upside down."""
    if form == "cosine":
        return cosine_down(x)
    if form == "1-sqrt":
        return math.sqrt(1.0 - x) if rising else 1.0 - math.sqrt(x)
    return 1.0 - x


def inverse_sqrt(schedule: InverseSqrt, lr: float, k: int) -> float:
    """lr k / W up to k = W, then lr / sqrt((k + T - W) / T): with T = W the rate falls as 1 / sqrt(k / W).

    Source: transformers.get_inverse_sqrt_schedule, after big_vision; T5 (Raffel et al. 2020) has T = W.
    """
    warmup = schedule.warmup_steps
    if k < warmup:
        return lr * (k / warmup)
    timescale = schedule.timescale or warmup or TIMESCALE
    return lr / math.sqrt((k - warmup + timescale) / timescale)


def noam(schedule: Noam, lr: float, k: int) -> float:
    """factor d^-0.5 min(n^-0.5, n W^-1.5), n = k + 1 the number of this update.

    Source: Vaswani et al. 2017, equation 3 (arXiv:1706.03762).
    """
    n, warmup = k + 1, schedule.warmup_steps
    factor = lr if schedule.factor == "lr" else schedule.factor
    return factor / math.sqrt(schedule.d_model) * min(1.0 / math.sqrt(n), n / (warmup * math.sqrt(warmup)))


def table(schedule: Table, lr: float, k: int) -> float:
    """The value of the last point at or before k, or a line or half a cosine from it to the next.

    Source: optax.piecewise_interpolate_schedule.
    """
    points = schedule.points
    after = bisect_right(points, k, key=itemgetter(0))
    start, value = points[max(after - 1, 0)]
    if schedule.interpolate != "none" and 0 < after < len(points):
        end, goal = points[after]
        share = (k - start) / (end - start)
        value = value + (goal - value) * (share if schedule.interpolate == "linear" else 1.0 - cosine_down(share))
    return lr * value if schedule.relative else value


def swa(schedule: Swa, lr: float, k: int) -> float:
    """lr until swa_start; a swa_lr + (1 - a) lr with a from 0 to 1 in anneal_steps updates; then swa_lr.

    Source: Izmailov et al. 2018 (arXiv:1803.05407); torch.optim.swa_utils.SWALR.
    """
    j = k - schedule.swa_start
    if j < 0:
        return lr
    share = min(1.0, j / schedule.anneal_steps) if schedule.anneal_steps else 1.0
    a = share if schedule.anneal_strategy == "linear" else 1.0 - cosine_down(share)
    return schedule.swa_lr * a + lr * (1.0 - a)
