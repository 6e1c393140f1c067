"""Scikit-learn's bundled digits: 1,797 handwritten digits of 8 × 8 pixels, real data without a download."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLASSES", "PIXELS", "Digits", "batches", "load_digits"]

Array = NDArray[Any]

PIXELS = 64
CLASSES = 10
TEST_SHARE = 0.25  # 450 digits: one of them is 0.2 points of accuracy


@dataclass(frozen=True, slots=True)
class Digits:
    """The data, split once: x in [0, 1] float32[n, 64], t one-hot float32[n, 10], labels int[n]."""

    train_x: Array
    train_t: Array
    test_x: Array
    test_labels: Array

    def shard(self, rank: int, workers: int) -> tuple[Array, Array]:
        """Every `workers`-th training row, starting at `rank`: the shards are disjoint and together are all."""
        return self.train_x[rank::workers], self.train_t[rank::workers]


def load_digits(seed: int) -> Digits:
    """Shuffle by the seed and hold a quarter out for the test, each class in proportion."""
    from sklearn.datasets import load_digits as bundled
    from sklearn.model_selection import train_test_split

    pixels, labels = bundled(return_X_y=True)
    x = (pixels / 16).astype(np.float32)
    train_x, test_x, train_labels, test_labels = train_test_split(
        x, labels, test_size=TEST_SHARE, random_state=seed, stratify=labels
    )
    return Digits(train_x, np.eye(CLASSES, dtype=np.float32)[train_labels], test_x, test_labels)


def batches(x: Array, t: Array, size: int, rng: np.random.Generator) -> Iterator[tuple[Array, Array]]:
    """One epoch: all rows in a new order, `size` at a time, the last batch smaller; ⌈len(x) / size⌉ batches."""
    order = rng.permutation(len(x))
    for start in range(0, len(x), size):
        rows = order[start : start + size]
        yield x[rows], t[rows]
