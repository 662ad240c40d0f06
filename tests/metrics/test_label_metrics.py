"""Label sets, weighted averages and quality correlations against scikit-learn and SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.stats import pearsonr
from sklearn.metrics import precision_recall_fscore_support

from vision.metrics.annotators import annotator_scores
from vision.metrics.arrays import MetricError, predictions
from vision.metrics.label_sets import by_size, mix_and_rate, variable_k
from vision.metrics.multilabel import mean_average_precision, real_accuracy
from vision.metrics.quality import Logistic, fit_logistic, pearson
from vision.metrics.weighted import weighted


def random_labels(seed: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.random((90, 6)) < 0.35
    scores = rng.normal(size=labels.shape) + labels
    return (np.round(scores) if ties else scores), labels


@pytest.mark.parametrize("ties", [False, True])
def test_variable_k_is_the_share_found_among_the_best(ties: bool):
    scores, labels = random_labels(0, ties)
    scores[3] = np.nan
    got = variable_k(scores, labels)
    for i, row in enumerate(labels):
        best = sorted(range(6), key=lambda k, i=i: (-scores[i, k], k))[: row.sum()]
        share = sum(row[k] for k in best) / row.sum() if row.any() else np.nan
        np.testing.assert_equal(got[i], 0.0 if i == 3 and row.any() else share)
    assert np.isnan(got[~labels.any(1)]).all()
    assert not labels.any(1).all()


def test_rows_without_a_finite_maximum_predict_nothing():
    inf = np.inf
    scores = np.array(
        [[inf, inf, inf], [inf, 0, 0], [-inf, -inf, -inf], [0, inf, -inf], [2, -inf, -inf]]
    )
    for values in (scores, scores.astype(np.float16)):
        assert predictions(values).tolist() == [-1, -1, -1, -1, 0]
    first = np.tile([True, False, False], (5, 1))
    assert variable_k(scores, first).tolist() == [0, 0, 0, 0, 1]
    assert real_accuracy(scores, first).value == 0.2
    assert annotator_scores(scores, first.astype(float), (1, 3)).any_of == {1: 0.2, 3: 0.2}
    assert weighted(predictions(scores), np.zeros(5, np.int64), 3).undefined == 4
    with pytest.raises(MetricError, match="scores of plus infinity, the first in row 0, class 0"):
        mean_average_precision(scores, first)


def test_one_label_each_is_top1():
    scores, _ = random_labels(1, ties=True)
    single = np.random.default_rng(2).integers(0, 6, len(scores))
    labels = np.eye(6, dtype=bool)[single]
    got = variable_k(scores, labels)
    np.testing.assert_array_equal(got, predictions(scores) == single)
    assert got.mean() == real_accuracy(scores, labels).value
    sizes = by_size(got, labels.sum(1), 6)
    assert sizes.asma("uniform") == pytest.approx(got.mean()) == sizes.asma("size")


def test_mix_and_rate_add_up_also_where_a_size_is_absent():
    def of(seed: int, most: int):
        scores, labels = random_labels(seed)
        count = labels.sum(1)
        keep = (count > 0) & (count <= most)
        return by_size(variable_k(scores, labels)[keep], count[keep], 6)

    few, many = of(3, 2), of(4, 6)
    split = mix_and_rate(few, many)
    assert split.difference == pytest.approx(few.overall - many.overall, abs=1e-12)
    assert split.mix + split.rate == pytest.approx(split.difference, abs=1e-12)
    same = mix_and_rate(many, many)
    assert (same.mix, same.rate) == (0.0, 0.0)
    # Equal accuracy at every size: all of the difference is the mix.
    a, b = by_size(np.array([1.0, 0.5, 0.5]), np.array([1, 2, 2]), 2), few
    b = by_size(np.array([1.0, 1.0, 0.5]), np.array([1, 1, 2]), 2)
    assert mix_and_rate(a, b).rate == 0
    assert mix_and_rate(a, b).mix == pytest.approx(2 / 3 - 5 / 6)
    none = by_size(np.zeros(0), np.zeros(0, np.int64), 2)
    assert np.isnan(mix_and_rate(a, none).mix)
    assert np.isnan(none.asma("uniform"))
    assert np.isnan(none.asma("size"))
    with pytest.raises(ValueError, match="sizes up to 2"):
        mix_and_rate(a, few)


@pytest.mark.parametrize("classes", [2, 5])
def test_weighted_is_scikit_learns(classes: int):
    rng = np.random.default_rng(classes)
    labels, actual = rng.integers(-1, classes, 80), rng.integers(-1, classes - 1, 80)
    got, keep = weighted(actual, labels, classes), labels >= 0
    nothing: Any = 0  # its annotation knows texts only
    expected = precision_recall_fscore_support(
        labels[keep], actual[keep], labels=range(classes), average="weighted", zero_division=nothing
    )
    assert (got.precision, got.recall, got.f1) == pytest.approx(expected[:3])
    assert got.accuracy == pytest.approx(got.recall)
    assert got.majority == np.bincount(labels[keep]).max() / keep.sum()
    assert got.unlabelled == (~keep).sum()
    assert got.undefined == (actual[keep] < 0).sum()


def test_weighted_of_one_class_and_without_examples():
    one = np.zeros(4, np.int64)
    assert weighted(one, one, 1).f1 == 1
    nothing = weighted(one, one - 1, 3)
    assert nothing.examples == 0
    assert np.isnan([nothing.accuracy, nothing.f1, nothing.majority]).all()
    with pytest.raises(MetricError, match="out of range"):
        weighted(one, one + 3, 3)


def test_pearson_is_scipys():
    rng = np.random.default_rng(0)
    x = rng.normal(size=50)
    y = x + rng.normal(size=50)
    assert pearson(x, y) == pytest.approx(pearsonr(x, y)[0])
    assert pearson(x * 1e-170, y * 1e170) == pytest.approx(pearsonr(x, y)[0])
    assert np.isnan(pearson(np.ones(5), x[:5]))
    assert np.isnan(pearson(x[:1], y[:1]))
    with pytest.raises(MetricError):
        pearson(np.array([np.inf, 1, 2]), x[:3])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_logistic_map_is_the_least_squares_one(sign: float):
    rng = np.random.default_rng(1)
    x = rng.normal(5, 2, 120)
    y = Logistic(10, 80, 4.5, sign * 0.9)(x) + rng.normal(size=120)
    actual = fit_logistic(x, y)

    def model(x, low, high, centre, width):
        return Logistic(low, high, centre, width)(x)

    start = (actual.low + 1, actual.high - 1, actual.centre + 0.1, actual.width * 1.1)
    best = curve_fit(model, x, y, start)[0]
    ours, theirs = (np.square(f - y).sum() for f in (actual(x), model(x, *best)))
    assert ours <= theirs * (1 + 1e-6)
    assert actual.width > 0
    with pytest.raises(MetricError, match="4 parameters"):
        fit_logistic(np.ones(9), y[:9])
