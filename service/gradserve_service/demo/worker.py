"""One worker process of the demo: `python -m gradserve_service.demo.worker URL RANK PLAN`.

It does what any training script does, with one line in place of `optimizer.step()`.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import gradserve as gs

from .digits import CLASSES, PIXELS, batches, load_digits
from .mlp import initial_parameters, loss_and_gradients
from .plan import Plan
from .trace import Row

__all__ = ["main"]

REPORT_SECONDS = 0.1


def main(url: str, rank: int, plan: Plan) -> None:
    """Train on one shard of the digits, through the server."""
    x, t = load_digits(plan.seed).shard(rank, plan.workers)
    rng = np.random.default_rng([plan.seed, rank])
    first = initial_parameters(PIXELS, plan.hidden, CLASSES, plan.seed)
    with gs.connect(url) as client:
        run = client.run(plan.run, init=first, spec=plan.spec())
        with run.worker(f"worker-{rank}") as worker:
            parameters = worker.pull()
            report = Report.when_all_are_ready()
            for _ in range(plan.epochs):
                for batch_x, batch_t in batches(x, t, plan.batch_rows(rank), rng):
                    loss, gradients = loss_and_gradients(parameters, batch_x, batch_t)
                    parameters = worker.step(gradients, loss=loss, samples=len(batch_x))
                    report.push(worker.last_push, loss)
            report.done(bytes_up=client.bytes_sent, bytes_down=client.bytes_received)


@dataclass(slots=True)
class Report:
    """What this worker tells the demo that started it, a few times a second: see `crew`."""

    began: float  # seconds, on the clock that all processes of the machine share
    rows: list[Row] = field(default_factory=list)
    told: float = 0.0
    not_applied: int = 0

    @classmethod
    def when_all_are_ready(cls) -> Report:
        """Say that this worker is ready, and wait until all are: the answer is the second to count from."""
        _tell(ready=True)
        return cls(began=float(sys.stdin.readline()))

    def push(self, result: gs.PushResult | None, loss: float) -> None:
        """Note one gradient."""
        now = time.monotonic()
        assert result is not None, "a gradient was just pushed"
        if result.accepted:
            self.rows.append((result.version, now - self.began, loss, result.lr or 0.0, result.staleness or 0))
        else:
            self.not_applied += 1
            print(
                f"{now - self.began:.3f} s: a gradient was not applied ({result.outcome}), "
                f"going on from version {result.version}",
                file=sys.stderr,
                flush=True,
            )
        if now - self.told >= REPORT_SECONDS:
            self._tell_rows(now)

    def done(self, **counters: int) -> None:
        """Tell the rest."""
        self._tell_rows(time.monotonic())
        _tell(done={**counters, "not_applied": self.not_applied})

    def _tell_rows(self, now: float) -> None:
        _tell(rows=self.rows)
        self.rows, self.told = [], now


def _tell(**message: Any) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Plan.from_json(sys.argv[3]))
