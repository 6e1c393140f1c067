"""The same training in one loop of one process: what the workers are measured against.

The same network, data, optimizer, schedule and clipping, by the very functions that the service applies; no server,
no staleness, no shards.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from gradserve.wire import Layout, allocate
from gradserve_service.core.blocks import sum_of_squares
from gradserve_service.core.gradient import Gradient, Span
from gradserve_service.core.groups import GroupTerms
from gradserve_service.core.optimizers import rule_for
from gradserve_service.core.schedules import resolve
from gradserve_service.core.slots import new_slots
from gradserve_service.core.update import apply_update

from .digits import CLASSES, PIXELS, Digits, batches
from .mlp import initial_parameters, loss_and_gradients
from .plan import Plan
from .trace import Trace

__all__ = ["train_alone"]


def train_alone(
    plan: Plan, digits: Digits, on_update: Callable[[Trace], None] = lambda _: None
) -> tuple[dict[str, np.ndarray], Trace]:
    """Train by the plan of one worker; answers the weights and the trace. `on_update` sees the trace at each update."""
    x, t = digits.shard(0, 1)
    rng = np.random.default_rng([plan.seed, 0])
    spec = plan.spec()
    rule = rule_for(spec.optimizer)
    parameters = initial_parameters(PIXELS, plan.hidden, CLASSES, plan.seed)
    layout = Layout.of({name: value.shape for name, value in parameters.items()})
    weights, spare = layout.flatten(parameters), allocate(layout.parameters)
    slots = new_slots(rule.slots, layout, weights)
    memory = dict(rule.memory)
    trace = Trace()
    began = time.monotonic()
    for _ in range(plan.epochs):
        for batch_x, batch_t in batches(x, t, plan.batch_rows(0), rng):
            loss, gradients = loss_and_gradients(layout.views(weights), batch_x, batch_t)
            k = len(trace)
            lr, momentum = resolve(spec.schedule, spec.optimizer.lr, k)
            apply_update(
                rule,
                spec.clip,
                weights=weights,
                next_weights=spare,
                slots=slots,
                memory=memory,
                gradient=_whole(layout.flatten(gradients)),
                terms=[GroupTerms(lr, rule.weight_decay)],
                layout=layout,
                momentum=momentum,
                step=k + 1,
                loss=loss,
            )
            weights, spare = spare, weights
            trace.extend([(k + 1, time.monotonic() - began, loss, lr, 0)])
            on_update(trace)
    return layout.views(weights), trace


def _whole(vector: np.ndarray) -> Gradient:
    """A gradient that has every tensor."""
    squares = sum_of_squares(vector)
    return Gradient(vector, (Span(0, 0, vector.size),), squares, bool(np.isfinite(squares)))
