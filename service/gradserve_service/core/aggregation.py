"""One gradient out of several: the mean, and rules that a few wrong gradients cannot pull far.

Pure functions of a matrix with one gradient a row, all of the same parameters. The result has its dtype. Memory stays
rows × `BLOCK`: coordinates are worked on in blocks, distances are summed over fixed chunks of differences in float64 (a
difference of squares would cancel). n is the number of rows, f how many of them may be wrong. All but `mean` ignore
how many samples a gradient is of, by definition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .blocks import Array, sum_of_squares

__all__ = [
    "bulyan", "centered_clip", "geometric_median", "krum", "majority_vote", "mean", "median", "norm_bound",
    "trimmed_mean",
]  # fmt: skip

BLOCK = 32 << 10
CLOSE = 1e-6  # nu of the geometric median: a row nearer than this counts as if it were so far away

Doubles = NDArray[np.float64]


def mean(rows: Array, weights: Sequence[float] | None = None) -> Array:
    """Σ n_i g_i / Σ n_i, added in the order of the rows."""
    shares = [1.0] * len(rows) if weights is None else [float(weight) for weight in weights]
    total = 0.0
    for share in shares:
        total += share

    def weighted(block: Doubles) -> Doubles:
        added = np.zeros(block.shape[1])
        for row, share in zip(block, shares, strict=True):
            added += row * share
        return added / total

    return _by_block(rows, weighted)


def median(rows: Array) -> Array:
    """The middle value of each coordinate; for even n the mean of the two in the middle. n > 2f."""
    low, high = (len(rows) - 1) // 2, len(rows) // 2
    return _by_block(rows, lambda block: _halfway(np.partition(block, (low, high), axis=0), low, high))


def _halfway(ordered: Doubles, low: int, high: int) -> Doubles:
    middle: Doubles = ordered[low] if low == high else (ordered[low] + ordered[high]) / 2.0
    return middle


def trimmed_mean(rows: Array, beta: float = 0.2) -> Array:
    """The mean of each coordinate without its floor(beta n) smallest and largest values. n > 2f, beta ≥ f / n.

    Source: Yin et al. 2018 (arXiv:1803.01498).
    """
    cut = math.floor(beta * len(rows))
    _enough(rows, 2 * cut + 1, "trimmed_mean")
    return _by_block(
        rows, lambda block: _added(np.sort(block, axis=0)[cut : len(block) - cut]) / (len(block) - 2 * cut)
    )


def krum(rows: Array, f: int, m: int = 1) -> Array:
    """The mean of the m rows whose n - f - 2 nearest others are nearest, by squared distance. n ≥ 2f + 3.

    Source: Blanchard et al. 2017 (arXiv:1703.02757).
    """
    _enough(rows, max(2 * f + 3, m), "krum")
    best = _krum_order(_squared_distances(rows), len(rows) - f - 2)[:m]
    return mean(rows[np.sort(best)])


def bulyan(rows: Array, f: int) -> Array:
    """n - 2f rows chosen by repeated Krum, then by coordinate the mean of the n - 4f values nearest their median.
    n ≥ 4f + 3.

    Source: El Mhamdi et al. 2018 (arXiv:1802.07927).
    """
    _enough(rows, 4 * f + 3, "bulyan")
    distances, left = _squared_distances(rows), list(range(len(rows)))
    chosen: list[int] = []
    while len(chosen) < len(rows) - 2 * f:
        order = _krum_order(distances[np.ix_(left, left)], max(len(left) - f - 2, 1))
        chosen.append(left.pop(int(order[0])))
    keep = len(rows) - 4 * f

    def nearest(block: Doubles) -> Doubles:
        ordered = np.sort(block, axis=0)
        middle = _halfway(ordered, (len(ordered) - 1) // 2, len(ordered) // 2)
        order = np.argsort(np.abs(ordered - middle), axis=0, kind="stable")[:keep]
        return _added(np.take_along_axis(ordered, np.sort(order, axis=0), axis=0)) / keep

    return _by_block(rows[np.sort(chosen)], nearest)


def geometric_median(rows: Array, iterations: int = 8) -> Array:
    """The point of least summed distance to all rows, by smoothed Weiszfeld steps from the mean. n > 2f.

    Source: Pillutla et al. 2022 (RFA, arXiv:1912.13445).
    """
    point = mean(rows)
    for _ in range(iterations):
        point = mean(rows, [1.0 / max(_distance(row, point), CLOSE) for row in rows])
    return point


def centered_clip(rows: Array, before: Array, tau: float = 10.0) -> Array:
    """`before` plus the mean of the ways from it to the rows, each cut to the length tau.

    Source: Karimireddy et al. 2021 (arXiv:2012.10333); `before` is the aggregate of the last round.
    """
    shares = []
    for row in rows:
        length = _distance(row, before)
        shares.append(min(1.0, tau / length) if length else 1.0)
    moved = mean(np.concatenate((rows, before[None])), [*shares, len(rows) - sum(shares)])
    return moved


def norm_bound(rows: Array) -> Array:
    """The mean of the rows, each cut to the median of their norms."""
    norms = [math.sqrt(sum_of_squares(row)) for row in rows]
    ordered = sorted(norms)
    bound = (ordered[(len(norms) - 1) // 2] + ordered[len(norms) // 2]) / 2.0
    factors = [min(1.0, bound / norm) if norm else 1.0 for norm in norms]
    return _by_block(rows, lambda block: _added(block * np.array(factors)[:, None]) / len(block))


def majority_vote(rows: Array) -> Array:
    """The sign that most rows have, by coordinate; 0 where they are as many. For `sign_sgd`.

    Source: Bernstein et al. 2018 (arXiv:1802.04434).
    """
    return _by_block(rows, lambda block: np.sign(_added(np.sign(block))))


def _by_block(rows: Array, combine: Callable[[Doubles], Doubles]) -> Array:
    """`combine` of each block of columns, in float64, written into a new vector."""
    out = np.empty(rows.shape[1], rows.dtype)
    for here in _blocks(rows.shape[1]):
        out[here] = combine(rows[:, here].astype(np.float64))
    return out


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, size, BLOCK))


def _added(block: Doubles) -> Doubles:
    """The rows added one after the other: NumPy's own order is its business."""
    total = np.zeros(block.shape[1])
    for row in block:
        total += row
    return total


def _squared_distances(rows: Array) -> Doubles:
    n = len(rows)
    found = np.zeros((n, n))
    for i in range(n):
        for j in range(i):
            found[i, j] = found[j, i] = _squared_distance(rows[i], rows[j])
    return found


def _squared_distance(a: Array, b: Array) -> float:
    total = 0.0
    for here in _blocks(a.size):
        difference = a[here].astype(np.float64) - b[here]
        total += float(np.add.reduce(difference * difference))
    return total


def _distance(a: Array, b: Array) -> float:
    return math.sqrt(_squared_distance(a, b))


def _krum_order(distances: Doubles, nearest: int) -> NDArray[np.intp]:
    """The rows by the sum of their `nearest` smallest squared distances to others; of equal ones, two that are nearest
    to each other for instance, the one nearer to all comes first."""
    others = distances.copy()
    np.fill_diagonal(others, np.inf)  # itself, by its place: two equal rows are as near
    ordered = np.sort(others, axis=1)
    return np.lexsort((_added(ordered[:, :-1].T), _added(ordered[:, :nearest].T)))


def _enough(rows: Array, least: int, rule: str) -> None:
    if len(rows) < least:
        raise ValueError(f"{rule}: expected at least {least} gradients, came {len(rows)}")
