"""Steps by sign: the twin's steps, any hyperparameters, and one of each arithmetic path."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from core.families.ranges import DECAY, LR, SHARE
from gradserve import specs


def sign(x: float) -> float:
    return float((x > 0) - (x < 0))


class SignSteps:
    """Mixed into `core.twin.Twin`."""

    spec: Any
    updates: int

    def _sign_sgd_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        return -lr * sign(g)

    def _signum_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        beta = self.spec.beta if momentum is None else momentum
        m = memory["exp_avg"] = beta * memory.get("exp_avg", 0.0) + (1 - beta) * g
        return -lr * sign(m)

    def _lion_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec, m = self.spec, memory.get("exp_avg", 0.0)
        beta1 = spec.beta1 if momentum is None else momentum
        memory["exp_avg"] = spec.beta2 * m + (1 - spec.beta2) * g
        return -lr * sign(beta1 * m + (1 - beta1) * g)

    def _rprop_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec = self.spec
        before, length = memory.get("prev", 0.0), memory.get("step_size", spec.lr)
        turn = sign(g) * sign(before)
        factor = {1.0: spec.eta_plus, 0.0: 1.0, -1.0: spec.eta_minus}[turn]
        length = memory["step_size"] = min(max(length * factor, spec.step_min), spec.step_max)
        if turn < 0:
            g = 0.0
        memory["prev"] = g
        return -(lr / spec.lr) * length * sign(g)


OPTIMIZERS = (
    st.builds(specs.SignSgd, lr=LR, **DECAY)
    | st.builds(specs.Signum, lr=LR, beta=SHARE, **DECAY)
    | st.builds(specs.Lion, lr=LR, beta1=SHARE, beta2=SHARE, **DECAY)
    | st.builds(
        specs.Rprop,
        lr=LR,
        eta_minus=st.floats(0.1, 0.9),
        eta_plus=st.floats(1.05, 2.0),
        step_min=st.sampled_from([1e-6, 1e-2]),
        step_max=st.sampled_from([0.5, 50.0]),
        **DECAY,
    )
)

EACH = [
    specs.SignSgd(lr=0.1),
    specs.Signum(lr=0.1, weight_decay=0.01, maximize=True),
    specs.Lion(lr=0.1),
    specs.Lion(lr=0.1, beta1=0.5, weight_decay=0.1),
    specs.Rprop(lr=0.1),
    specs.Rprop(lr=0.1, eta_minus=0.3, eta_plus=1.5, step_max=0.3),
]
