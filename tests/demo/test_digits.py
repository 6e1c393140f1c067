"""The data of the demo: split once, dealt out without overlap, shuffled anew each epoch."""

from __future__ import annotations

import numpy as np

from gradserve_service.demo.digits import batches, load_digits


def test_the_split_holds_a_quarter_out_in_proportion():
    digits = load_digits(seed=0)
    assert digits.train_x.shape == (1347, 64)
    assert digits.test_x.shape == (450, 64)
    assert digits.train_x.dtype == np.float32
    assert digits.train_x.min() == 0
    assert digits.train_x.max() == 1
    shares = np.bincount(digits.test_labels) / 450
    np.testing.assert_allclose(shares, digits.train_t.mean(axis=0), atol=0.005)


def test_the_shards_are_disjoint_and_together_all():
    digits = load_digits(seed=0)
    shards = [digits.shard(rank, 4)[0] for rank in range(4)]
    assert sorted(len(x) for x in shards) == [336, 337, 337, 337]
    together = np.concatenate(shards)
    assert np.array_equal(np.sort(together, axis=0), np.sort(digits.train_x, axis=0))


def test_an_epoch_shows_every_row_once_and_ends_with_the_smaller_batch():
    x = np.arange(10)
    sizes, rows = [], []
    for batch, _ in batches(x, x, 4, np.random.default_rng(0)):
        sizes.append(len(batch))
        rows.extend(batch)
    assert sizes == [4, 4, 2]
    assert sorted(rows) == list(range(10))


def test_each_epoch_has_another_order():
    x, rng = np.arange(50), np.random.default_rng(0)
    first, second = (np.concatenate([b for b, _ in batches(x, x, 8, rng)]) for _ in range(2))
    assert not np.array_equal(first, second)
