"""What one demo trains, and how: a frozen record that the parent, the workers and the baseline share."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass

from gradserve.specs import AdamW, GlobalNorm, Inverse, RunSpec, WarmupCosine

__all__ = ["Plan", "batch_size_of", "default_epochs", "default_lr"]

HIDDEN = 64
TRAIN_ROWS = 1347
UPDATES_WANTED = 8_000  # a training that lasts long enough to be watched: about ten seconds on two cores
EPOCHS_MIN, EPOCHS_MAX = 8, 400
WARMUP_SHARE = 0.05
STALENESS_A_WORKER = 16  # past 16 updates a worker, a gradient is too old to help: the worker slept


@dataclass(frozen=True, slots=True)
class Plan:
    """The training of one demo; `batch_size` None is batch training: the whole shard in one gradient."""

    run: str
    workers: int
    batch_size: int | None
    epochs: int
    lr: float
    seed: int
    hidden: int = HIDDEN

    def rows(self, rank: int) -> int:
        """Training rows of one worker's shard."""
        return len(range(rank, TRAIN_ROWS, self.workers))

    def batch_rows(self, rank: int) -> int:
        """Rows that one gradient of this worker sees (the last of an epoch may see fewer)."""
        return self.rows(rank) if self.batch_size is None else self.batch_size

    def updates(self, rank: int) -> int:
        """Gradients that one worker pushes: ⌈rows / batch⌉ an epoch."""
        return self.epochs * math.ceil(self.rows(rank) / self.batch_rows(rank))

    @property
    def total_updates(self) -> int:
        """Gradients of all workers together."""
        return sum(self.updates(rank) for rank in range(self.workers))

    @property
    def alone(self) -> Plan:
        """The same training by one worker: the baseline's."""
        return dataclasses.replace(self, workers=1)

    def spec(self) -> RunSpec:
        """The run: AdamW, a warm-up and a cosine, a clipped norm; late gradients count 1 / (1 + staleness)."""
        return RunSpec(
            optimizer=AdamW(lr=self.lr),
            schedule=WarmupCosine(
                warmup_steps=max(1, round(WARMUP_SHARE * self.total_updates)), total_steps=max(2, self.total_updates)
            ),
            clip=(GlobalNorm(max_norm=1.0),),
            staleness=Inverse(max_staleness=STALENESS_A_WORKER * self.workers),
        )

    def to_json(self) -> str:
        """As one argument of a worker's command line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """What `to_json` wrote."""
        return cls(**json.loads(text))


def batch_size_of(text: str) -> int | None:
    """`full` is batch training (None), `1` stochastic, any other number mini-batch. Raises `ValueError`."""
    if text == "full":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"batch size: expected 'full', 1 or a larger number, came {text!r}")
    return int(text)


def default_epochs(batch_size: int | None, workers: int) -> int:
    """Epochs that make about `UPDATES_WANTED` updates, within bounds."""
    an_epoch = workers if batch_size is None else math.ceil(TRAIN_ROWS / batch_size)
    return min(EPOCHS_MAX, max(EPOCHS_MIN, round(UPDATES_WANTED / an_epoch)))


def default_lr(batch_size: int | None) -> float:
    """A base rate that suits the noise of the gradient: it grows with the root of the batch, within bounds."""
    return 0.02 if batch_size is None else min(0.02, max(0.005, 0.01 * math.sqrt(batch_size / 32)))
