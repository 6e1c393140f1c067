"""One worker process: `python -m faults.worker URLS RUN INDEX PARAMETERS SEED LOG [rewinds]`.

It pushes gradients through the real SDK until its standard input ends. Every acknowledgement is first written to its
log, a line of JSON flushed at once, and then told on standard output, one byte for each. What the SDK warns of, a
history that was rewound, is a line of the log as well.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import sys
import warnings
from typing import IO, Any

import gradserve as gs
from faults.gradients import framed, gradient, layout_of
from gradserve import PushResult, Weights

PAUSE_SECONDS_MAX = 1.0  # between retries: the SDK's own bound is made for outages of minutes


def main(url: str, run: str, index: int, parameters: int, seed: int, log: IO[str], *, rewinds: bool) -> None:
    """Push until told to stop. Every second gradient is one request with the new weights, every fourth only pulls.
    With `rewinds` a pull may show a history that lost the last push; the next push is told."""
    layout = layout_of(parameters)
    keep_warnings(log)
    with gs.connect(url) as client:
        client.patience = dataclasses.replace(client.patience, pause_seconds_max=PAUSE_SECONDS_MAX)
        with client.run(run).worker(f"w{index}") as worker:
            base = worker.pull()
            number = 0
            while not stopped():
                number += 1
                vector = gradient(layout, seed, index, number)
                if number % 2:
                    worker.step(vector, cursor=str(number))
                    assert worker.last_push is not None
                    result = worker.last_push
                else:
                    result = worker.push(vector, cursor=str(number))
                write_line(log, acknowledgement(result, number, framed(layout, vector).digest))
                os.write(sys.stdout.fileno(), b"+")
                if number % 4 == 0:
                    base = worker.pull()
                    if not rewinds:
                        seen(base, result)


def keep_warnings(log: IO[str]) -> None:
    """Write every warning of the SDK to the log from now on."""

    def keep(message: Warning | str, *_: Any, **__: Any) -> None:
        write_line(log, {"outcome": "told", "what": str(message)})

    warnings.simplefilter("always", gs.GradserveWarning)
    warnings.showwarning = keep


def write_line(log: IO[str], record: dict[str, Any]) -> None:
    """One line of JSON, out of this process at once."""
    log.write(json.dumps(record) + "\n")
    log.flush()


def acknowledgement(result: PushResult, number: int, digest: str) -> dict[str, Any]:
    """What the server promised, for the auditor."""
    return {
        "number": number,
        "sequence": result.sequence,
        "outcome": result.outcome,
        "version": result.version,
        "original": result.original,
        "digest": digest,
    }


def seen(weights: Weights, result: PushResult) -> None:
    """Weights pulled after an acknowledgement hold the acknowledged gradient."""
    assert weights.version >= result.version, f"version {weights.version} came after {result.version} was acknowledged"


def stopped() -> bool:
    """Whether standard input has ended."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


if __name__ == "__main__":
    url, run, index, parameters, seed, log, *more = sys.argv[1:]
    with open(log, "a", encoding="utf-8") as kept:
        main(url, run, int(index), int(parameters), int(seed), kept, rewinds=more == ["rewinds"])
