"""Two sets of scores against scikit-learn, on random scores, ties, constants and infinities."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    auc,
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from vision.metrics import detection
from vision.metrics.arrays import MetricError

RNG = np.random.default_rng(0)
CASES = {
    "random": (RNG.normal(1, 1, 83), RNG.normal(0, 1, 57)),
    "ties": (RNG.integers(1, 5, 60).astype(float), RNG.integers(0, 4, 90).astype(float)),
    "constant": (np.ones(5), np.ones(3)),
    "reversed": (-np.arange(20.0), np.arange(20.0) + 1),
    "twenty": (np.arange(20.0), np.array([0.5, 1.0, 7.0])),
    "one": (np.array([2.0]), np.array([1.0, 3.0])),
    "huge": (np.array([1e300, 2, 2]), np.array([-1e300, 2])),
}


@pytest.mark.parametrize("name", CASES)
def test_equal_to_scikit_learn(name: str) -> None:
    positive, negative = CASES[name]
    scores = np.concatenate([positive, negative])
    truth = np.arange(len(scores)) < len(positive)
    assert detection.auroc(positive, negative) == pytest.approx(
        roc_auc_score(truth, scores), rel=1e-12
    )
    step = average_precision_score(truth, scores)
    assert detection.average_precision(positive, negative) == pytest.approx(step, rel=1e-12)
    precision, recall, _ = precision_recall_curve(truth, scores)
    actual = detection.average_precision(positive, negative, "trapezoid")
    assert actual == pytest.approx(auc(recall, precision), rel=1e-12)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert detection.best_f1(positive, negative) == pytest.approx(f1.max(), rel=1e-12)
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    for level in (0.95, 0.5, 1.0):
        expected = fpr[np.argmax(tpr >= level)]
        assert detection.false_positive_rate(positive, negative, level) == pytest.approx(expected)
    both = detection.detection(positive, negative)
    assert both.aupr_out == pytest.approx(average_precision_score(~truth, -scores), rel=1e-12)
    assert (both.inside, both.outside) == (len(positive), len(negative))
    assert (both.auroc, both.aupr_in) == (
        detection.auroc(positive, negative),
        detection.average_precision(positive, negative),
    )


def test_fpr_takes_the_greatest_threshold_that_reaches_the_recall() -> None:
    inside = np.arange(1.0, 21)
    assert detection.false_positive_rate(inside, np.array([1.0, 1.9, 2.0, 3.0])) == 0.5
    # Of tied insiders all or none: at 5 only half are reached, so everything down to 1 passes.
    assert detection.false_positive_rate(np.array([5.0, 1, 1, 5]), np.array([1.0, 0.9])) == 0.5


def test_infinite_scores_are_ordered() -> None:
    inside, outside = np.array([np.inf, 0]), np.array([-np.inf, 0])
    assert detection.auroc(inside, outside) == 0.875
    assert detection.average_precision(inside, outside) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_open_set_curve_by_loop() -> None:
    rng = np.random.default_rng(3)
    known, unknown = rng.integers(2, 9, 40) / 2.0, rng.integers(0, 7, 30) / 2.0
    right = rng.random(40) < 0.7
    actual = detection.open_set(known, right, unknown)
    points = [
        (np.mean(unknown >= t), np.mean((known >= t) & right))
        for t in sorted({*known, *unknown}, reverse=True)
    ]
    assert actual.false_positive_rate.tolist() == [0, *(x for x, _ in points)]
    assert actual.classification_rate.tolist() == [0, *(y for _, y in points)]
    above = (known[:, None] > unknown) + 0.5 * (known[:, None] == unknown)
    assert actual.area == pytest.approx((above * right[:, None]).mean(), rel=1e-12)
    assert actual.classification_rate[-1] == right.mean()
    everything = detection.open_set(known, np.ones(40, bool), unknown)
    assert everything.area == pytest.approx(detection.auroc(known, unknown), rel=1e-12)
    assert detection.open_set(known, np.zeros(40, bool), unknown).area == 0


def test_empty_sets_and_bad_scores() -> None:
    some, none = np.ones(3), np.zeros(0)
    for pair in ((some, none), (none, some), (none, none)):
        assert np.isnan(detection.auroc(*pair))
        assert np.isnan(detection.false_positive_rate(*pair))
        assert np.isnan(detection.open_set(pair[0], np.ones(len(pair[0]), bool), pair[1]).area)
    assert np.isnan(detection.average_precision(none, some))
    assert detection.average_precision(some, none) == average_precision_score([1, 1, 1], some) == 1
    with pytest.raises(MetricError, match="negative: 2 of 3 rows hold NaN, the first is row 1"):
        detection.auroc(some, np.array([0, np.nan, np.nan]))
    with pytest.raises(MetricError, match="outside: 1 of 1"):
        detection.detection(some, np.array([np.nan]))
    with pytest.raises(ValueError, match=r"positive is float64\[1, 3\]"):
        detection.auroc(some[None], some)
    with pytest.raises(ValueError, match=r"recall=0"):
        detection.false_positive_rate(some, some, 0)
    with pytest.raises(ValueError, match=r"correct is bool\[2\]"):
        detection.open_set(some, np.ones(2, bool), some)
