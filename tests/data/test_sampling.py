from __future__ import annotations

import collections
import itertools

import numpy as np
import pytest

from vision.data.all_records import labels_of
from vision.data.class_samplers import ClassBalanced, EpisodeSampler, PxK, StratifiedSampler
from vision.data.pipeline import TrainData
from vision.data.samplers import InOrder, Repeated, Shuffle, WeightedSampler, bound, permute_each
from vision.data.source import DataError, SourceInfo
from vision.data.sources.arrays import Arrays


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


def labelled(counts: tuple[int, ...], **more) -> Arrays:
    labels = np.repeat(np.arange(len(counts)), counts)
    labels = labels[Shuffle()(0, 0, np.arange(len(labels)), len(labels))]
    return Arrays({"label": labels, **more}, "labelled")


def epoch_of(sampler, source, seed=1, epoch=0) -> np.ndarray:
    order = bound(sampler, source)
    positions = np.arange(order.epoch_length(len(source)))
    records = order(seed, epoch, positions, len(source))
    some = positions[::3][::-1]  # any position by itself gives the same
    np.testing.assert_array_equal(order(seed, epoch, some, len(source)), records[some])
    assert not np.array_equal(order(seed, epoch + 1, positions, len(source)), records)
    assert not np.array_equal(order(seed + 1, epoch, positions, len(source)), records)
    assert records.dtype == np.int64
    assert records.min() >= 0
    assert records.max() < len(source)
    return records


def test_permute_each_is_a_permutation_for_every_size_and_uniform():
    for n in (1, 2, 3, 5, 7, 12, 100, 997):
        keys = np.full(n, 77 + n, np.uint64)
        assert sorted(permute_each(np.arange(n), np.full(n, n), keys)) == list(range(n))
    trials, n = 4000, 5
    keys = np.repeat(np.arange(trials, dtype=np.uint64), n)
    orders = permute_each(np.tile(np.arange(n), trials), np.full(n * trials, n), keys)
    orders = orders.reshape(trials, n)
    for position in range(n):
        counts = np.bincount(orders[:, position], minlength=n)
        assert ((counts - trials / n) ** 2 / (trials / n)).sum() < 21  # p < 0.0004, 4 degrees


def test_class_balanced():
    source = labelled((3, 50, 9, 138))
    records = epoch_of(ClassBalanced(), source)
    labels = source.arrays["label"]
    assert len(records) == 200
    assert all(sorted(row) == [0, 1, 2, 3] for row in labels[records].reshape(-1, 4))
    assert len({tuple(row) for row in labels[records].reshape(-1, 4)}) > 15
    for label, size in enumerate((3, 50, 9, 138)):
        drawn = records[labels[records] == label]
        for start in range(0, 50 - size + 1, size):  # used up before a record comes again
            assert len(set(drawn[start : start + size])) == size
    root = np.bincount(labels[epoch_of(ClassBalanced(power=0.5), source)])
    expected = np.sqrt([3, 50, 9, 138])
    np.testing.assert_allclose(root, 200 * expected / expected.sum(), atol=2)


def test_stratified_is_complete_and_even():
    source = labelled((20, 300, 80))
    records = epoch_of(StratifiedSampler(), source)
    assert sorted(records) == list(range(400))
    labels = source.arrays["label"][records]
    for start in range(0, 400, 40):
        np.testing.assert_allclose(np.bincount(labels[start : start + 40]), (2, 30, 8), atol=3)
    named = Arrays({"domain": np.array(["x", "y"] * 20), "label": np.zeros(40, int)})
    assert sorted(epoch_of(StratifiedSampler("domain"), named)) == list(range(40))


def test_p_by_k():
    source = labelled((4, 9, 5, 6, 30, 7, 4))
    labels = source.arrays["label"]
    groups = epoch_of(PxK(3, 4), source).reshape(-1, 3, 4)
    assert len(groups) == 65 // 12
    uses = np.zeros(7, int)
    for group in groups:
        assert len(set(group.ravel())) == 12
        assert (labels[group] == labels[group][:, :1]).all()
        chosen = labels[group][:, 0]
        assert len(set(chosen)) == 3
        uses[chosen] += 1
    assert uses.max() <= 3
    with pytest.raises(DataError, match=r"instances=6, but 3 of 7 classes .*0 \(4\), 2 \(5\)"):
        bound(PxK(3, 6), source)
    with pytest.raises(DataError, match="classes=8, but only 7 classes"):
        bound(PxK(8, 1), source)
    large = epoch_of(PxK(2, 7, scarce="leave_out"), source)
    assert set(labels[large]) == {1, 4, 5}
    scarce = epoch_of(PxK(7, 6, scarce="repeat"), source).reshape(-1, 7, 6)
    for row in scarce.reshape(-1, 6):
        counts = np.bincount(np.unique(row, return_counts=True)[1])
        assert len(set(row)) == min(6, (labels == labels[row[0]]).sum())
        assert len(counts) <= 3  # repeated evenly: once or twice


def test_episodes():
    source = labelled((6, 8, 7, 9, 10, 6, 2))
    labels = source.arrays["label"]
    sampler = EpisodeSampler(ways=4, shots=2, queries=3, scarce="leave_out")
    query, way = sampler.rows()
    assert query.sum() == 12
    assert np.bincount(way).tolist() == [5, 5, 5, 5]
    records = np.concatenate([epoch_of(sampler, source, epoch=e) for e in range(0, 400, 2)])
    pairs = collections.Counter()
    for episode in records.reshape(-1, 20):
        assert len(set(episode)) == 20
        for number in range(4):
            assert len(set(labels[episode[way == number]])) == 1
        chosen = labels[episode[query]].reshape(4, 3)[:, 0]
        assert len(set(chosen)) == 4
        np.testing.assert_array_equal(chosen, labels[episode[~query]].reshape(4, 2)[:, 0])
        pairs.update(chosen.tolist())
    assert set(pairs) == set(range(6))
    counts = np.array(list(pairs.values()))
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 21  # no class is favoured
    with pytest.raises(DataError, match=r"shots \+ queries = 5, but 1 of 7 classes.*6 \(2\)"):
        bound(EpisodeSampler(4, 2, 3), source)


def test_repeated():
    source = labelled((5, 6))
    records = epoch_of(Repeated(3), source)
    np.testing.assert_array_equal(records, np.repeat(Shuffle()(1, 0, np.arange(11), 11), 3))
    nested = Repeated(2, PxK(2, 3))
    assert nested.group == 12
    assert len(epoch_of(nested, source)) == 12


def test_weighted(tmp_path):
    source = labelled((50, 50))
    weights = np.concatenate([np.zeros(20), np.linspace(0.1, 5, 80)])
    np.save(tmp_path / "hard.npy", weights)
    for given in (weights, tuple(weights.tolist()), str(tmp_path / "hard.npy")):
        counts = np.bincount(epoch_of(WeightedSampler(given, length=500), source), minlength=100)
        exact = 500 * weights / weights.sum()
        assert (counts >= np.floor(exact - 1e-9)).all()
        assert (counts <= np.ceil(exact + 1e-9)).all()
    mean = np.mean([epoch_of(WeightedSampler(weights), source, epoch=e) == 99 for e in range(300)])
    assert abs(mean - weights[99] / weights.sum()) < 0.003
    np.save(tmp_path / "odd.npy", np.array([{}]), allow_pickle=True)
    for wrong, message in (
        (weights[:-1], r"float64\[99\], but labelled has 100 records"),
        (weights - 1, "-1.0 for record labelled/0"),
        (weights * np.nan, "nan for record labelled/0"),
        (weights * 0, "all are 0"),
        (str(tmp_path / "none.npy"), r"none.npy: cannot be read: No such file"),
        (str(tmp_path / "odd.npy"), r"odd.npy: no readable \.npy"),
    ):
        with pytest.raises(DataError, match=message):
            bound(WeightedSampler(wrong), source)


class Slow:
    """The labels only record by record, or only from ``column()``."""

    def __init__(self, labels, quick=False):
        self._labels = labels
        if quick:
            self.column = {"label": labels}.__getitem__

    info = SourceInfo("slow", 0, ("cat", "dog", "eel"))

    def __len__(self):
        return len(self._labels)

    def __getitem__(self, index):
        if hasattr(self, "column"):
            raise AssertionError("column() is there to save this")
        return {"label": self._labels[index]}

    def key(self, index):
        return f"slow/{index}"


def test_labels_are_read_from_any_source():
    labels = np.array([2, 0, 1, 1, 0])
    for source in (Slow(labels), Slow(labels, quick=True), Arrays({"label": labels})):
        read = labels_of(source)
        np.testing.assert_array_equal(read, labels)
        with pytest.raises(ValueError, match="read-only"):
            read[0] = 1
    with pytest.raises(DataError, match="slow/0 has no feature 'domain' but label"):
        bound(StratifiedSampler("domain"), Slow(labels))
    with pytest.raises(DataError, match="one integer or string for each of the 5"):
        labels_of(Slow(labels / 2))
    with pytest.raises(DataError, match="slow/1 has label -1, which is no class"):
        bound(ClassBalanced(), Slow(np.array([0, -1])))
    with pytest.raises(DataError, match=r"instances=2, .*: 'eel' \(1\); lower it"):
        bound(PxK(1, 2), Slow(labels))


def test_batches_hold_whole_groups():
    source = labelled((8, 8, 8), image=np.zeros((24, 2, 2, 1), np.uint8))
    data = TrainData(source, 12, sampler=PxK(3, 2), threads=0)
    with data.loader(seed=0, first_batch=10**9) as loader:
        for batch in itertools.islice(loader, 6):
            for group in batch["label"].reshape(2, 3, 2):
                assert sorted(group[:, 0]) == sorted(group[:, 1]) == [0, 1, 2]
    with pytest.raises(ValueError, match="batch_size=8 would tear apart the groups of 6 rows"):
        TrainData(source, 8, sampler=PxK(3, 2))
