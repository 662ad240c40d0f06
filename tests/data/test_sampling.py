from __future__ import annotations

import numpy as np
import pytest

from vision.data.samplers import InOrder, Shuffle


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 10, 17, 31, 100, 1438, 65536, 70001])
def test_shuffle_is_a_permutation(n):
    order = Shuffle()(3, 0, np.arange(n), n)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


def test_shuffle_is_a_function_of_seed_epoch_and_position():
    n = 1000
    whole = Shuffle()(7, 2, np.arange(n), n)
    np.testing.assert_array_equal(Shuffle()(7, 2, np.array([999, 0, 5]), n), whole[[999, 0, 5]])
    for seed, epoch in ((7, 3), (8, 2), (2, 7), (8, 1)):
        other = Shuffle()(seed, epoch, np.arange(n), n)
        assert (other == whole).sum() < 10
        assert abs(np.corrcoef(other, whole)[0, 1]) < 0.15


def test_shuffle_is_uniform():
    """Where a record lands, and where a pair lands, is uniform over seeds (chi squared)."""
    n, trials = 7, 3000
    orders = np.stack([Shuffle()(seed, 0, np.arange(n), n) for seed in range(trials)])
    for position in range(n):
        counts = np.bincount(orders[:, position], minlength=n)
        assert ((counts - trials / n) ** 2 / (trials / n)).sum() < 25  # p < 0.0004 for 6 degrees
    pairs = np.bincount(orders[:, 0] * n + orders[:, 1], minlength=n * n).reshape(n, n)
    apart = pairs[~np.eye(n, dtype=bool)]
    expected = trials / len(apart)
    assert ((apart - expected) ** 2 / expected).sum() < 75  # p < 0.001 for 41 degrees


def test_shuffle_leaves_no_runs():
    order = Shuffle()(0, 0, np.arange(5000), 5000)
    assert (np.abs(np.diff(order)) == 1).sum() < 15
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05


def test_shuffle_of_billions_costs_no_memory():
    n = 10**12
    order = Shuffle()(0, 0, np.arange(n - 1000, n), n)
    assert len(np.unique(order)) == 1000
    assert order.max() < n
    assert order.min() >= 0
    assert order.std() > n / 5


def test_in_order():
    np.testing.assert_array_equal(InOrder()(5, 9, np.array([3, 1]), 10), [3, 1])
    assert InOrder().epoch_length(10) == Shuffle().epoch_length(10) == 10
