"""A batch of pushes on its way to one update: what the rules know of it. Its sum is in `accumulating`.

Each contribution's entry carries the batch as it is with it, so `advance` copies, and whoever reads the journal alone
sees the batch grow. The numbers are means and sums in journal order, which is the order of the additions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gradserve.specs import Accumulate

__all__ = ["EMPTY", "Batch"]

_LARGEST = (2.0 - 2.0**-52) * 2.0**1023  # the largest double


@dataclass(frozen=True, slots=True)
class Batch:
    """The pushes that wait for an update together, as sums over them and means weighted by their samples."""

    pushes: int = 0
    samples: float = 0.0
    weight: float = 0.0  # mean staleness weight: the update's learning rate is multiplied with it
    staleness: int = 0  # of the stalest
    loss: float | None = None  # mean, over those that named one
    loss_samples: float = 0.0  # of those

    def with_push(self, samples: float, weight: float, staleness: int, loss: float | None) -> Batch:
        """The batch with one more push."""
        total = self.samples + samples
        return Batch(
            pushes=self.pushes + 1,
            samples=total,
            weight=_mean(self.weight, self.samples, weight, samples, total),
            staleness=max(self.staleness, staleness),
            loss=self.loss if loss is None else self._loss_with(loss, samples),
            loss_samples=self.loss_samples if loss is None else self.loss_samples + samples,
        )

    def _loss_with(self, loss: float, samples: float) -> float:
        if self.loss is None:
            return loss
        return _mean(self.loss, self.loss_samples, loss, samples, self.loss_samples + samples)

    def reached(self, wanted: Accumulate | None) -> bool:
        """Whether the batch is complete. Without a target it is: a run may have stopped to accumulate."""
        if wanted is None:
            return True
        if wanted.pushes is not None:
            return self.pushes >= wanted.pushes
        assert wanted.samples is not None
        return self.samples >= wanted.samples

    def to_json(self) -> dict[str, Any]:
        """The inverse of `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Batch:
        """From an entry's header or an image; nothing is the empty batch."""
        return EMPTY if value is None else cls(**value)

    def shown(self, wanted: Accumulate | None) -> dict[str, Any]:
        """As answers tell it. A target of null: the next push completes the batch."""
        return {"pushes": self.pushes, "samples": self.samples, "target": None if wanted is None else wanted.target}


EMPTY = Batch()


def _mean(mean: float, before: float, value: float, samples: float, total: float) -> float:
    """The mean with one more value. As shares of the two, because a sum of losses may be beyond all doubles."""
    joined = mean * (before / total) + value * (samples / total)
    return max(-_LARGEST, min(_LARGEST, joined))
