"""Groups, long tails, trees of classes, ordered classes and real targets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr
from sklearn.metrics import (
    balanced_accuracy_score,
    cohen_kappa_score,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
)

from vision.metrics import groups, ordinal
from vision.metrics.arrays import MetricError
from vision.metrics.hierarchy import (
    hierarchical_accuracy,
    hierarchical_distance_at,
    hierarchy,
)


def test_wilson_ends_are_where_the_score_test_just_rejects() -> None:
    successes, trials = np.array([0, 3, 7, 10, 812]), np.array([10, 10, 10, 10, 1000])
    low, high = groups.wilson_interval(successes, trials)
    p = successes / trials
    for end, inner in ((low, slice(1, None)), (high, slice(0, 3))):
        z = (p - end) / np.sqrt(end * (1 - end) / trials, where=end * (1 - end) > 0, out=np.ones(5))
        np.testing.assert_allclose(np.abs(z[inner]), 1.959963984540054, rtol=1e-9)
    assert (low[0], high[3]) == (0, 1)
    # Agresti and Coull's well-known one: 0 of 10 at 95% reaches to 0.2775.
    assert high[0] == pytest.approx(0.27753, abs=1e-5)
    np.testing.assert_allclose(low, 1 - groups.wilson_interval(trials - successes, trials)[1])
    assert np.isnan(groups.wilson_interval(np.array(0), np.array(0))).all()
    with pytest.raises(ValueError, match="confidence=1"):
        groups.wilson_interval(successes, trials, 1.0)
    with pytest.raises(ValueError, match=r"0\.\.trials"):
        groups.wilson_interval(trials + 1, trials)


def test_groups() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 200)
    predicted = np.where(rng.random(200) < 0.1 * (5 + labels), labels, 0)
    right = predicted == labels
    actual = groups.group_accuracy(right, labels, 6)
    assert actual.mean == pytest.approx(balanced_accuracy_score(labels, predicted), rel=1e-12)
    assert actual.overall == pytest.approx(right.mean(), rel=1e-12)
    assert actual.count.tolist() == [*np.bincount(labels).tolist(), 0]
    assert np.isnan([actual.accuracy[5], actual.low[5], actual.high[5]]).all()
    each = [right[labels == g].mean() for g in range(5)]
    np.testing.assert_array_equal(actual.accuracy[:5], each)
    assert actual.worst == int(np.argmin(each))
    assert actual.worst_accuracy == min(each)
    assert actual.gap == pytest.approx(max(each) - min(each))
    some = groups.group_accuracy(right, np.where(labels == 0, -1, labels), 6)
    assert some.left_out == (labels == 0).sum()
    assert np.isnan(some.accuracy[0])
    nothing = groups.group_accuracy(right, np.full(200, -1), 2)
    numbers = (nothing.worst_accuracy, nothing.gap, nothing.mean, nothing.overall)
    assert np.isnan(numbers).all()
    assert (nothing.worst, nothing.left_out) == (-1, 200)
    with pytest.raises(MetricError, match=r"groups: .* out of range"):
        groups.group_accuracy(right, labels, 4)
    with pytest.raises(ValueError, match="num_groups=0"):
        groups.group_accuracy(right, labels, 0)
    with pytest.raises(ValueError, match="correct is float64"):
        groups.group_accuracy(right * 0.5, labels, 5)


def test_tail_split() -> None:
    counts = np.array([1000, 101, 100, 50, 20, 19, 0])
    assert groups.tail_split(counts).tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert groups.tail_split(counts, 100, 101).tolist() == [0, 0, 2, 2, 2, 2, 2]
    with pytest.raises(ValueError, match="tail_below=102"):
        groups.tail_split(counts, 100, 102)
    with pytest.raises(ValueError, match="train_counts"):
        groups.tail_split(counts - 1)


PATHS = [
    ("animal", "mammal", "dog"),
    ("animal", "mammal", "cat"),
    ("animal", "fish"),
    ("thing", "car"),
    ("thing", "lamp", "desk"),
]
# By hand: heights of animal 2, mammal 1, thing 2, lamp 1, root 3.
HEIGHTS = np.array(
    [[0, 1, 2, 3, 3], [1, 0, 2, 3, 3], [2, 2, 0, 3, 3], [3, 3, 3, 0, 2], [3, 3, 3, 2, 0]]
)


def test_hierarchy() -> None:
    tree = hierarchy(PATHS)
    every = np.arange(5)
    np.testing.assert_array_equal(tree.distance(every[:, None], every), HEIGHTS)
    labels = np.array([0, 0, 0, 3, 4, 2, -1, 1])
    predicted = np.array([0, 1, 2, 4, 0, 2, 3, -1])
    actual = hierarchical_accuracy(predicted, labels, tree)
    assert actual.severity == (1 + 2 + 2 + 3) / 4
    assert actual.distance == (1 + 2 + 2 + 3) / 6
    assert (actual.examples, actual.mistakes, actual.undefined) == (6, 4, 1)
    np.testing.assert_allclose(actual.level_accuracy, np.array([5, 3, 2]) / 7)
    flat = hierarchy([("a",), ("b",), ("c",)])
    same = hierarchical_accuracy(np.array([0, 1, 2]), np.array([0, 1, 2]), flat)
    assert np.isnan(same.severity)
    assert same.distance == 0
    empty = hierarchical_accuracy(np.array([1]), np.array([-1]), tree)
    assert np.isnan([empty.severity, empty.distance, *empty.level_accuracy]).all()


def test_hierarchical_distance_at_k() -> None:
    tree, rng = hierarchy(PATHS), np.random.default_rng(0)
    scores = rng.integers(0, 4, (40, 5)).astype(float)  # ties: by class
    labels = rng.integers(-1, 5, 40)
    for k in range(1, 6):
        rows = [
            HEIGHTS[y][sorted(range(5), key=lambda c, s=s: (-s[c], c))[:k]].mean()
            for s, y in zip(scores, labels, strict=True)
            if y >= 0
        ]
        actual = hierarchical_distance_at(scores, labels, tree, k)
        assert actual == pytest.approx(np.mean(rows), rel=1e-12)
    scores[1] = np.nan
    labels[1] = -1
    assert hierarchical_distance_at(scores, labels, tree, 2) > 0
    labels[1] = 0
    for row in (np.nan, np.inf, -np.inf):
        scores[1] = row
        for k in (1, 2):
            with pytest.raises(MetricError, match=r"1 of \d+ labelled rows predict no class"):
                hierarchical_distance_at(scores, labels, tree, k)
    with pytest.raises(MetricError, match="scores have 4 classes, the hierarchy 5"):
        hierarchical_distance_at(scores[:, :4], labels, tree, 2)
    with pytest.raises(ValueError, match="k=6"):
        hierarchical_distance_at(scores, labels, tree, 6)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "no classes"),
        ([("a",), ()], "class 1: the path is empty"),
        ([("a", "b"), ("a", "b")], "class 1: path 'a/b' occurs twice"),
        ([("a", "b"), ("a",)], "'a' is a class and on the way to another"),
    ],
)
def test_broken_hierarchies(paths: list[tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hierarchy(paths)


def test_ordinal_equal_to_scikit_learn_and_scipy() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 150)
    predicted = np.clip(labels + rng.integers(-2, 3, 150), 0, 5)  # class 5 is never true
    predicted[labels == 1] = 2  # class 1 hardly predicted
    actual = ordinal.ordinal_accuracy(predicted, labels, 6)
    expected = cohen_kappa_score(labels, predicted, labels=np.arange(6), weights="quadratic")
    assert actual.kappa == pytest.approx(expected, rel=1e-12)
    assert actual.mean_absolute_error == mean_absolute_error(labels, predicted)
    assert actual.off_by_one == np.mean(np.abs(labels - predicted) <= 1)
    assert actual.spearman == pytest.approx(spearmanr(labels, predicted)[0], rel=1e-12)
    assert actual.kendall == pytest.approx(kendalltau(labels, predicted)[0], rel=1e-12)
    scores = ordinal.ordinal_accuracy(np.full(4, 2), np.full(4, 2), 3)
    assert np.isnan([scores.kappa, scores.spearman, scores.kendall]).all()
    assert (scores.mean_absolute_error, scores.off_by_one) == (0, 1)
    none = ordinal.ordinal_accuracy(np.array([-1, 2]), np.array([1, -1]), 3)
    assert np.isnan([none.mean_absolute_error, none.off_by_one, none.kappa, none.kendall]).all()
    assert (none.examples, none.left_out) == (0, 2)
    with pytest.raises(MetricError, match="predicted: 1 of 2 are out of range"):
        ordinal.ordinal_accuracy(np.array([3, 0]), np.array([0, 0]), 3)


@pytest.mark.parametrize("kind", ["real", "ties", "one constant but for one", "infinite", "two"])
def test_rank_correlations_equal_to_scipy(kind: str) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 133))
    b += a
    if kind == "ties":
        a, b = np.round(a), np.round(2 * b)
    elif kind == "one constant but for one":
        a = np.zeros(133)
        a[5] = 1
    elif kind == "infinite":
        a[:4], b[2:5] = np.inf, -np.inf
    elif kind == "two":
        a, b = a[:2], b[:2]
    assert ordinal.kendall(a, b) == pytest.approx(kendalltau(a, b)[0], rel=1e-12)
    x, y = (np.where(np.isinf(v), np.sign(v) * 1e9, v) for v in (a, b))
    assert ordinal.spearman(a, b) == pytest.approx(spearmanr(x, y)[0], rel=1e-12)
    assert ordinal.kendall(a, -b) == pytest.approx(-ordinal.kendall(a, b), rel=1e-12)


def test_inversions_by_loop() -> None:
    for seed, top in enumerate((1, 2, 7, 1000)):
        x = np.random.default_rng(seed).integers(0, top, 90)
        expected = sum(int((x[:i] > x[i]).sum()) for i in range(90))
        assert ordinal.inversions(x) == expected
    assert ordinal.inversions(np.zeros(0, int)) == 0
    assert ordinal.inversions(np.arange(50)[::-1]) == 50 * 49 // 2


def test_regression_equal_to_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    y, p = rng.normal(size=(2, 60)) + 1e3
    actual = ordinal.regression(p, y)
    assert actual.mean_absolute_error == pytest.approx(mean_absolute_error(y, p), rel=1e-12)
    assert actual.root_mean_square_error == pytest.approx(root_mean_squared_error(y, p), rel=1e-12)
    assert actual.r2 == pytest.approx(r2_score(y, p), rel=1e-9)
    known = np.where(np.arange(60) < 40, y, np.nan)
    some = ordinal.regression(p, known)
    part = ordinal.regression(p[:40], y[:40])
    assert some == dataclasses.replace(part, left_out=20)
    assert np.isnan(ordinal.regression(p, np.full(60, 0.1)).r2)
    assert np.isnan(ordinal.regression(p, np.full(60, np.nan)).root_mean_square_error)
    with pytest.raises(MetricError, match="predicted: 1 of 60"):
        ordinal.regression(np.where(np.arange(60) == 3, np.nan, p), y)
    with pytest.raises(MetricError, match="a: 1 of 3"):
        ordinal.kendall(np.array([0, np.nan, 1]), np.arange(3))
