"""Learning-rate schedules: pure functions of k, the number of updates applied before this one.

Closed forms in double precision: no recursion, so no drift, no stored state, and any k can be asked for (but for
`reduce_on_plateau`, which lives on reports: `plateau.py`). `cos` and
powers may differ between machines in the last bit; that is why the decider alone calls this and writes the result into
the entry.

No spec makes them raise, at no k: the decider could neither answer nor go on.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any, Final

from gradserve.specs import (
    Chained,
    ConstantFactor,
    Cosine,
    Exponential,
    InverseTime,
    Linear,
    MultiStep,
    PiecewiseConstant,
    Polynomial,
    Power,
    RunSpec,
    ScheduleSpec,
    Sequential,
    Step,
    Warmup,
    WarmupCosine,
)

from . import plateau as plateaus
from . import ramps
from .cycles import cosine_restarts, cyclic
from .one_cycle import one_cycle
from .plateau import FRESH, PlateauState
from .powers import RATE_MAX, cosine_down, power_of

__all__ = ["counted", "resolve"]

COUNT_MAX: Final = 2.0**53


def counted(spec: RunSpec, updates: int, samples: float) -> int:
    """k of the schedule of a run that has seen so much: updates, whole epochs, or samples."""
    schedule = spec.schedule
    if schedule is None or schedule.per == "update":
        return updates
    samples = min(samples, COUNT_MAX)
    if schedule.per == "sample":
        return int(samples)
    if schedule.steps_per_epoch is not None:
        return updates // schedule.steps_per_epoch
    return 0 if spec.dataset_size is None else int(samples // spec.dataset_size)


def resolve(
    schedule: ScheduleSpec | None, lr: float, k: int, plateau: PlateauState = FRESH
) -> tuple[float, float | None]:
    """The learning rate, and the momentum or None, of the update that follows `k` applied ones.

    `lr` is the optimizer's base rate. A momentum that is not None replaces `momentum` or `beta1` for that update, and
    is passed over by a rule that has neither. The schedule `client` has no rate of its own: `lr` stands for it here.
    `plateau` is what the reports so far mean to `reduce_on_plateau`; no other schedule looks at it. For a schedule that
    counts epochs or samples `k` is their number: see `counted`.
    """
    if schedule is None:
        return lr, None
    if schedule.name == "reduce_on_plateau":
        return plateaus.rate(schedule, plateau, lr), None
    rate, momentum = _resolved(schedule, lr, k)
    return max(rate, 0.0) if math.isfinite(rate) else RATE_MAX, momentum


def _resolved(schedule: Any, lr: float, k: int) -> tuple[float, float | None]:
    if schedule.name in ("constant", "client"):
        return lr, None
    if (both := _RATES_AND_MOMENTA.get(schedule.name)) is not None:
        return both(schedule, lr, k)
    return _RATES[schedule.name](schedule, lr, k), None


def warmup(schedule: Warmup, lr: float, k: int) -> tuple[float, float | None]:
    """start + (peak - start) (k + warmup_offset) / W for k < W = warmup_steps, then `then` from its own beginning.

    Without a peak the line ends at the rate that `then` begins with. With `warmup_offset` 0 the first update has the
    rate `start`; with 1 the line is one step ahead and reaches the peak at k = W - 1.

    Source: Goyal et al. 2017 (arXiv:1706.02677); optax.join_schedules of a line and another schedule.
    """
    steps = schedule.warmup_steps
    if k >= steps:
        return _resolved(schedule.then, lr, k - steps)
    first, momentum = _resolved(schedule.then, lr, 0)
    peak = first if schedule.peak is None else schedule.peak
    return schedule.start + (peak - schedule.start) * ((k + schedule.warmup_offset) / steps), momentum


def sequential(schedule: Sequential, lr: float, k: int) -> tuple[float, float | None]:
    """parts[i](k - milestones[i - 1]), i the number of milestones that are behind: at a milestone the next begins.

    Source: torch.optim.lr_scheduler.SequentialLR, optax.join_schedules.
    """
    i = bisect_right(schedule.milestones, k)
    return _resolved(schedule.parts[i], lr, k - schedule.milestones[i - 1] if i else k)


def chained(schedule: Chained, lr: float, k: int) -> tuple[float, float | None]:
    """lr times the product of the parts, each computed with lr = 1; the momentum of the last part that has one.

    Source: torch.optim.lr_scheduler.ChainedScheduler.
    """
    rate, momentum = lr, None
    for part in schedule.parts:
        factor, own = _resolved(part, 1.0, k)
        rate, momentum = rate * factor, momentum if own is None else own
    return rate, momentum


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


def inverse_time(schedule: InverseTime, lr: float, k: int) -> float:
    """lr / (1 + rate k / decay_steps), the quotient rounded down with `staircase`.

    Keras 2 divided so by 1 + decay · iterations when an optimizer had a `decay`, iterations counted from 0.

    Source: keras.optimizers.schedules.InverseTimeDecay.
    """
    return lr / (1.0 + schedule.decay_rate * _stairs(k / schedule.decay_steps, schedule.staircase))


def exponential(schedule: Exponential, lr: float, k: int) -> float:
    """lr rate^(j / decay_steps), j = k - begin updates into the decay; `lr` until then; `end` bounds it.

    The bound is a floor for a rate below 1 and a ceiling above. With rate 0.1 and decay_steps s the rate falls tenfold
    every s updates (Géron's exponential scheduling).

    Source: optax.exponential_decay, whose first update past `begin` is the first that falls.
    """
    j = k - schedule.begin
    rate = lr if j <= 0 else lr * power_of(schedule.decay_rate, _stairs(j / schedule.decay_steps, schedule.staircase))
    if schedule.end is None:
        return rate
    return max(rate, schedule.end) if schedule.decay_rate < 1.0 else min(rate, schedule.end)


def step(schedule: Step, lr: float, k: int) -> float:
    """lr gamma^floor(k / step_size): the first rate holds for step_size updates, k = 0 … step_size - 1.

    Source: torch.optim.lr_scheduler.StepLR.
    """
    return lr * power_of(schedule.gamma, k // schedule.step_size)


def multistep(schedule: MultiStep, lr: float, k: int) -> float:
    """lr gamma^n, n the number of milestones at or before k; one that is there twice counts twice.

    Source: torch.optim.lr_scheduler.MultiStepLR.
    """
    return lr * power_of(schedule.gamma, sum(milestone <= k for milestone in schedule.milestones))


def constant_factor(schedule: ConstantFactor, lr: float, k: int) -> float:
    """lr factor for k < N = total_steps, then lr.

    Source: torch.optim.lr_scheduler.ConstantLR.
    """
    return lr * schedule.factor if k < schedule.total_steps else lr


def piecewise_constant(schedule: PiecewiseConstant, lr: float, k: int) -> float:
    """values[i], i the number of boundaries that are behind: b <= k, or b < k with `right_closed`.

    Source: keras.optimizers.schedules.PiecewiseConstantDecay keeps the old value at k = b; torch and optax do not.
    """
    behind = (b < k if schedule.right_closed else b <= k for b in schedule.boundaries)
    return schedule.values[sum(behind)]


def polynomial(schedule: Polynomial, lr: float, k: int) -> float:
    """end + (lr - end) (1 - min(j, N) / N)^power, j = k - begin updates into the decay, N = total_steps.

    With `cycle` N is the first multiple of total_steps that j has not passed: at the end the rate jumps back up to the
    line from lr to a later end, as in Keras.

    Source: keras.optimizers.schedules.PolynomialDecay, optax.polynomial_schedule.
    """
    j, total = max(k - schedule.begin, 0), schedule.total_steps
    if schedule.cycle:
        total *= max(1, -(-j // total))
    left = 1.0 - min(j, total) / total
    return schedule.end + (lr - schedule.end) * power_of(left, schedule.power)


def linear(schedule: Linear, lr: float, k: int) -> float:
    """lr (a + (b - a) min(k, N) / N): a line from the factor a at k = 0 to b at k = N = total_steps, then b.

    Source: torch.optim.lr_scheduler.LinearLR in closed form.
    """
    a, b = schedule.start_factor, schedule.end_factor
    return lr * (a + (b - a) * (min(k, schedule.total_steps) / schedule.total_steps))


def cosine(schedule: Cosine, lr: float, k: int) -> float:
    """end + (lr - end) ((1 + cos(π j / N)) / 2)^exponent, N = total_steps, j = min(k, N), or k with `bounce`.

    Source: Loshchilov & Hutter 2017, equation 5 (arXiv:1608.03983); exponent: optax. Keras and optax hold the end,
    torch's CosineAnnealingLR climbs back to lr at k = 2 N.
    """
    end = schedule.end if schedule.end_factor is None else lr * schedule.end_factor
    total = schedule.total_steps
    j = k % (2 * total) if schedule.after == "bounce" else min(k, total)
    if j == total:
        return end  # (1 + cos π) / 2 is 0 but for rounding
    return end + (lr - end) * power_of(cosine_down(j / total), schedule.exponent)


def _stairs(x: float, staircase: bool) -> float:
    x = min(x, RATE_MAX)
    return float(math.floor(x)) if staircase else x


_RATES: Final[Mapping[str, Callable[[Any, float, int], float]]] = {
    "warmup_cosine": warmup_cosine,
    "power": power,
    "inverse_time": inverse_time,
    "exponential": exponential,
    "step": step,
    "multistep": multistep,
    "constant_factor": constant_factor,
    "piecewise_constant": piecewise_constant,
    "polynomial": polynomial,
    "linear": linear,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
    "wsd": ramps.wsd,
    "inverse_sqrt": ramps.inverse_sqrt,
    "noam": ramps.noam,
    "table": ramps.table,
    "swa": ramps.swa,
}
_RATES_AND_MOMENTA: Final[Mapping[str, Callable[[Any, float, int], tuple[float, float | None]]]] = {
    "one_cycle": one_cycle,
    "cyclic": cyclic,
    "warmup": warmup,
    "sequential": sequential,
    "chained": chained,
}
