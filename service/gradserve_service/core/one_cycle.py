"""One cycle: the rate rises once and falls for long; the momentum moves the other way.

A cycle is a list of phases, each with an end in k and the rate and momentum that it ends with; a phase begins where the
one before ended. A phase without length is passed over.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from gradserve.specs import OneCycle

__all__ = ["one_cycle"]


class _Phase(NamedTuple):
    end: float  # in k; torch's fall between two updates
    lr: float
    momentum: float


def one_cycle(schedule: OneCycle, lr: float, k: int) -> tuple[float, float | None]:
    """The rate and, with `cycle_momentum`, the momentum of the update that follows `k` applied ones.

        peak = max_lr or lr,  a = peak / div_factor,  z = a / final_div_factor,  N = total_steps,  p = pct_start

        torch         k = 0: a      p N - 1: peak      N - 1: z                        lines or half cosines
        three_phase   k = 0: a      p N - 1: peak      2 p N - 2: a     N - 1: z
        geron         k = 0: a      H: peak            2 H: a           N: z           lines; momentum flat at the end
                      L = floor(N / 10) + 1 updates for the last phase, H = floor((N - L) / 2)

    After the last phase z holds; torch allows one update more, in which its rate bounces back.

    Source: Smith 2018 (arXiv:1803.09820). torch.optim.lr_scheduler.OneCycleLR, fractional ends included; Géron,
    Hands-On Machine Learning, ch. 11 (OneCycleScheduler), with total_steps as `iterations`.
    """
    peak = lr if schedule.max_lr is None else schedule.max_lr
    first = peak / schedule.div_factor
    last = first / schedule.final_div_factor
    phases = _geron(schedule, first, peak, last) if schedule.style == "geron" else _torch(schedule, first, peak, last)
    lines = schedule.style == "geron" or schedule.anneal_strategy == "linear"
    before = _Phase(0.0, first, schedule.max_momentum)
    for phase in phases:
        if (before.end < phase.end and k <= phase.end) or phase is phases[-1]:
            break
        before = phase
    length = phase.end - before.end
    share = min((k - before.end) / length, 1.0) if length > 0 else 1.0
    momentum = _between(before.momentum, phase.momentum, share, lines) if schedule.cycle_momentum else None
    return _between(before.lr, phase.lr, share, lines), momentum


def _torch(schedule: OneCycle, first: float, peak: float, last: float) -> list[_Phase]:
    low, high, total = schedule.base_momentum, schedule.max_momentum, schedule.total_steps
    phases = [_Phase(schedule.pct_start * total - 1, peak, low), _Phase(total - 1, last, high)]
    if schedule.three_phase:
        phases.insert(1, _Phase(2 * schedule.pct_start * total - 2, first, high))
    return phases


def _geron(schedule: OneCycle, first: float, peak: float, last: float) -> list[_Phase]:
    low, high, total = schedule.base_momentum, schedule.max_momentum, schedule.total_steps
    half = (total - (total // 10 + 1)) // 2
    return [_Phase(half, peak, low), _Phase(2 * half, first, high), _Phase(total, last, high)]


def _between(start: float, end: float, share: float, line: bool) -> float:
    if line:
        return (end - start) * share + start
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1.0)
