"""Learning-rate schedules: pure functions of k, the number of updates applied before this one.

Closed forms in double precision: no recursion, so no drift, no stored state, and any k can be asked for. `cos` and
powers may differ between machines in the last bit; that is why the decider alone calls this and writes the result into
the entry.
"""

from __future__ import annotations

import math

from gradserve.specs import Power, ScheduleSpec, WarmupCosine

__all__ = ["resolve"]


def resolve(schedule: ScheduleSpec | None, lr: float, k: int) -> tuple[float, float | None]:
    """The learning rate, and the momentum or None, of the update that follows `k` applied ones.

    `lr` is the optimizer's base rate. A momentum that is not None replaces `momentum` or `beta1` for that update.
    """
    if schedule is None or schedule.name == "constant":
        return lr, None
    if schedule.name == "warmup_cosine":
        return warmup_cosine(schedule, lr, k), None
    return power(schedule, lr, k), None


def warmup_cosine(schedule: WarmupCosine, lr: float, k: int) -> float:
    """A straight line up to `lr`, half a cosine down to `end`, then `end` for good.

        k < W      start + (lr - start) (k + warmup_offset) / W              W = warmup_steps
        k >= W     end + (lr - end) (1 + cos(π j / N)) / 2                   N = total_steps - W, j = min(k - W, N)

    `total_steps` includes the warmup (as in optax; Keras counts the decay alone). With `warmup_offset` 0 the first
    update has the rate `start`; with 1 the line is one step ahead and reaches `lr` at k = W - 1.

    Source: Loshchilov & Hutter 2017, equation 5 (arXiv:1608.03983), after a linear warmup (Goyal et al. 2017).
    """
    warmup = schedule.warmup_steps
    if k < warmup:
        return schedule.start + (lr - schedule.start) * (k + schedule.warmup_offset) / warmup
    decay = schedule.total_steps - warmup
    if k - warmup >= decay:
        return schedule.end
    return schedule.end + (lr - schedule.end) * 0.5 * (1.0 + math.cos(math.pi * (k - warmup) / decay))


def power(schedule: Power, lr: float, k: int) -> float:
    """lr / (1 + k / s)^c: half the rate after s updates for c = 1, a third after 2 s, and so on.

    Source: Géron, Hands-On Machine Learning, ch. 11 (power scheduling); c = 1 is Keras' InverseTimeDecay.
    """
    return lr * math.pow(1.0 + k / schedule.s, -schedule.c)  # a positive exponent could overflow, and raise
