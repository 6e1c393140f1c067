"""Schedules that come round again: cosines with restarts, and triangles."""

from __future__ import annotations

import math

from gradserve.specs import CosineRestarts, Cyclic

from .powers import cosine_down, power_of

__all__ = ["cosine_restarts", "cyclic"]


def cosine_restarts(schedule: CosineRestarts, lr: float, k: int) -> float:
    """end + (lr - end) m_mul^i (1 + cos(π j / T_i)) / 2 in cycle i, j updates after its beginning.

    T_i = first_steps t_mul^i. Finished cycles are subtracted one by one: a logarithm would miss a restart by one
    update where it is rounded the wrong way.

    Source: Loshchilov & Hutter 2017 (arXiv:1608.03983). torch's CosineAnnealingWarmRestarts (m_mul 1), Keras'
    CosineDecayRestarts, where m_mul scales the cosine and not the end.
    """
    end = schedule.end if schedule.end_factor is None else lr * schedule.end_factor
    length, left, cycle = float(schedule.first_steps), float(k), 0
    if schedule.t_mul == 1.0:
        cycle, rest = divmod(k, schedule.first_steps)
        left = float(rest)
    else:
        while left >= length:
            left, length, cycle = left - length, length * schedule.t_mul, cycle + 1
    return end + (lr - end) * power_of(schedule.m_mul, cycle) * cosine_down(left / length)


def cyclic(schedule: Cyclic, lr: float, k: int) -> tuple[float, float | None]:
    """A triangle of height h s above base: h goes 0, 1, 0 in up + down updates, s makes later triangles lower.

        triangular  s = 1        triangular2  s = 1 / 2^c, c whole cycles are over        exp_range  s = gamma^k

    The momentum is max_momentum - (max_momentum - base_momentum) h s.

    Source: Smith 2017 (arXiv:1506.01186). torch.optim.lr_scheduler.CyclicLR.
    """
    base = lr if schedule.base_lr is None else schedule.base_lr
    up = schedule.step_size_up
    down = up if schedule.step_size_down is None else schedule.step_size_down
    over, j = divmod(k, up + down)
    height = j / up if j <= up else (up + down - j) / down
    if schedule.mode == "triangular2":
        height = math.ldexp(height, -min(over, 2_000))
    elif schedule.mode == "exp_range":
        height *= power_of(schedule.gamma, k)
    momentum = schedule.max_momentum - (schedule.max_momentum - schedule.base_momentum) * height
    return base + (schedule.max_lr - base) * height, momentum if schedule.cycle_momentum else None
