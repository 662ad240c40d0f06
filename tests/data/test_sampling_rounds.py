"""Orders of few records are uniform, and P x K uses everything once in a round."""

from __future__ import annotations

import collections
import math

import numpy as np
import pytest
from scipy.stats import chi2

from vision.data.class_samplers import PxK
from vision.data.samplers import Shuffle, bound, permute_each
from vision.data.sources.arrays import Arrays


def p_value(orders: np.ndarray) -> float:
    """Of the hypothesis that the rows (trials, n) are permutations, all equally likely."""
    trials, n = orders.shape
    codes = orders @ (n ** np.arange(n))
    counts = np.unique(codes, return_counts=True)[1]
    kinds, expected = math.factorial(n), trials / math.factorial(n)
    distance = ((counts - expected) ** 2 / expected).sum() + (kinds - len(counts)) * expected
    return float(chi2.sf(distance, kinds - 1))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_every_order_of_a_few_records_is_equally_likely(n):
    """Five records had orders four times as likely as others (chi squared 4.4 per degree)."""
    orders = [Shuffle()(seed, 0, np.arange(n), n) for seed in range(1500)]
    assert p_value(np.stack(orders)) > 1e-4


@pytest.mark.parametrize("n", [2, 3, 5, 6, 7, 8])
def test_every_order_of_a_few_is_equally_likely_under_keys(n):
    """Of eight, odd permutations were eight times as likely as even ones."""
    trials = min(20_000, max(4000, 10 * math.factorial(n)))
    keys = np.repeat(np.arange(trials, dtype=np.uint64), n)
    orders = permute_each(np.tile(np.arange(n), trials), np.full(n * trials, n), keys)
    if n < 8:
        assert p_value(orders.reshape(trials, n)) > 1e-4
    signs = [
        np.linalg.det(np.eye(n)[order]) > 0 for order in orders.reshape(trials, n)[:2000].tolist()
    ]
    assert abs(np.mean(signs) - 0.5) < 0.06  # 5 sigma


def test_sizes_of_both_kinds_at_once():
    sizes = np.repeat([3, 16, 17, 40], [3, 16, 17, 40])
    positions = np.concatenate([np.arange(n) for n in (3, 16, 17, 40)])
    keys = np.full(len(sizes), 5, np.uint64)
    permuted = permute_each(positions, sizes, keys)
    for n in (3, 16, 17, 40):
        assert sorted(permuted[sizes == n]) == list(range(n))
        np.testing.assert_array_equal(
            permuted[sizes == n], permute_each(np.arange(n), np.full(n, n), keys[:n])
        )
    assert permute_each(positions[:0], sizes[:0], keys[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("classes", "group"), [(10, 8), (7, 3), (10, 4), (12, 4), (5, 5), (9, 5), (6, 1), (97, 8)]
)
def test_all_classes_are_used_once_before_one_comes_again(classes, group):
    """Two of ten classes waited for a later round, and one could wait for long."""
    instances, size = 3, 7
    source = Arrays({"label": np.repeat(np.arange(classes), size * group)}, "s")
    sampler = bound(PxK(group, instances), source)
    length = sampler.epoch_length(len(source))
    positions = np.arange(length)
    records = sampler(1, 2, positions, len(source))
    labels = source.arrays["label"][records].reshape(-1, instances)
    assert (labels == labels[:, :1]).all()
    visits = labels[:, 0]
    for row in visits.reshape(-1, group):
        assert len(set(row)) == group
    whole = len(visits) // classes * classes
    for row in visits[:whole].reshape(-1, classes):
        assert sorted(row) == list(range(classes))
    # Any position by itself is what it is among all others.
    some = np.random.default_rng(0).permutation(length)[:50]
    np.testing.assert_array_equal(sampler(1, 2, some, len(source)), records[some])
    assert (sampler(1, 3, positions, len(source)) != records).mean() > 0.5


@pytest.mark.parametrize("size", [3, 4, 7, 20])
def test_all_records_of_a_class_are_used_once_before_one_comes_again(size):
    """What did not fill a visit was skipped."""
    source = Arrays({"label": np.repeat(np.arange(4), [size, 200, 200, 200])}, "s")
    sampler = bound(PxK(2, 3), source)
    records = sampler(0, 0, np.arange(sampler.epoch_length(len(source))), len(source))
    drawn = records[records < size]
    assert len(drawn) > 2 * size
    for row in drawn[: len(drawn) // size * size].reshape(-1, size):
        assert len(set(row)) == size
    for visit in drawn.reshape(-1, 3):
        assert len(set(visit)) == 3


def test_every_class_is_as_often_at_any_place_of_a_round():
    source = Arrays({"label": np.repeat(np.arange(9), 40)}, "s")
    sampler, counts = bound(PxK(4, 2), source), collections.Counter()
    for seed in range(30):
        visits = source.arrays["label"][sampler(seed, 0, np.arange(90 * 4), len(source))][::2]
        counts.update((i % 9, c) for i, c in enumerate(visits.tolist()))
    expected = 30 * 180 / 81
    distance = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi2.sf(distance, 64) > 1e-4
