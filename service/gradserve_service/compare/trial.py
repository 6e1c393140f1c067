"""One optimizer at one learning rate on the problem: the curve that it leaves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradserve.losses import softmax_cross_entropy
from gradserve.specs import RunSpec
from gradserve.specs.optimizer_fields import OptimizerFields
from gradserve_service.demo.digits import CLASSES, PIXELS, Digits, batches, load_digits
from gradserve_service.demo.mlp import accuracy, initial_parameters, logits, loss_and_gradients

from .in_memory import InMemoryRun, Refusal

__all__ = ["HIDDEN", "Problem", "Trial", "train"]

HIDDEN = 64
LOOKS = 100  # points of a curve: the loss over all training rows at each of them
LAST_LOOKS = 5  # the final loss is a mean over these: a single look depends on the last batch
LOSS_MAX = 1e3  # 400 times that of a guess: nothing comes back from there


@dataclass(frozen=True, slots=True)
class Problem:
    """What is the same for every trial: data, first weights, batches and their order."""

    digits: Digits
    updates: int
    batch_size: int
    seed: int

    @classmethod
    def of(cls, updates: int, batch_size: int, seed: int) -> Problem:
        """The digits, split by the seed."""
        return cls(load_digits(seed), updates, batch_size, seed)

    @property
    def look_every(self) -> int:
        """Updates between two looks at the loss."""
        return max(1, self.updates // LOOKS)

    def batches(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """`updates` batches, the same ones in the same order every time."""
        rng = np.random.default_rng([self.seed, 0])
        x, t = self.digits.train_x, self.digits.train_t
        epochs = (batches(x, t, self.batch_size, rng) for _ in itertools.count())
        return itertools.islice(itertools.chain.from_iterable(epochs), self.updates)


@dataclass(frozen=True, slots=True)
class Trial:
    """What one training came to. A diverged one has no loss: it is NaN."""

    lr: float
    curve: tuple[tuple[int, float], ...]  # (updates applied, loss over all training rows), until it diverged
    loss: float
    accuracy: float  # share of the held-out digits named right
    diverged: bool
    bytes_a_parameter: float
    microseconds: float  # median time of one update's arithmetic

    def updates_to(self, target: float) -> int | None:
        """Updates until a look saw the target loss; None: never."""
        return next((at for at, loss in self.curve if loss <= target), None)


def train(problem: Problem, optimizer: OptimizerFields) -> Trial:
    """Train from the common start. Too large a rate ends early, as diverged. Raises `Refusal`."""
    first = initial_parameters(PIXELS, HIDDEN, CLASSES, problem.seed)
    run = InMemoryRun(RunSpec.model_validate({"optimizer": optimizer}), first)
    curve = [(0, _loss(run, problem.digits))]
    with np.errstate(all="ignore"):  # overflow is an outcome here
        diverged = not _descend(problem, run, curve)
        share = accuracy(run.parameters(), problem.digits.test_x, problem.digits.test_labels)
    return Trial(
        lr=optimizer.model_dump()["lr"],
        curve=tuple(curve),
        loss=math.nan if diverged else float(np.mean([loss for _, loss in curve[-LAST_LOOKS:]])),
        accuracy=share,
        diverged=diverged,
        bytes_a_parameter=run.bytes_a_parameter,
        microseconds=float(np.median(run.update_nanoseconds or [0])) / 1e3,
    )


def _descend(problem: Problem, run: InMemoryRun, curve: list[tuple[int, float]]) -> bool:
    """All updates; False as soon as the loss has run away."""
    for done, (x, t) in enumerate(problem.batches(), start=1):
        loss, gradients = loss_and_gradients(run.parameters(), x, t)
        if not loss < LOSS_MAX:
            return False
        try:
            run.push(gradients, loss, len(x))
        except Refusal as refusal:
            if refusal.code == "non-finite-gradient":
                return False
            raise
        if done % problem.look_every == 0 or done == problem.updates:
            seen = _loss(run, problem.digits)
            if not seen < LOSS_MAX:
                return False
            curve.append((done, seen))
    return True


def _loss(run: InMemoryRun, digits: Digits) -> float:
    """Mean cross-entropy over all training rows."""
    total, _ = softmax_cross_entropy(logits(run.parameters(), digits.train_x), digits.train_t)
    return total / len(digits.train_x)
