"""Multi-label measures against scikit-learn, and torchmetrics where labels are not known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    coverage_error,
    f1_score,
    label_ranking_average_precision_score,
    label_ranking_loss,
)

from vision.metrics import multilabel
from vision.metrics.arrays import MetricError

GOLDEN = np.load(
    Path(__file__).resolve().parents[1] / "golden" / "measures" / "torchmetrics.npz",
    allow_pickle=False,
)
CASES = sorted({key.split("/")[1] for key in GOLDEN.files if key.startswith("multilabel/")})


def case(ties: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = (rng.random((70, 7)) < 0.3).astype(np.int8)
    scores = rng.normal(size=targets.shape) + targets
    return (np.round(scores) if ties else scores), targets


@pytest.mark.parametrize("number", CASES)
def test_equal_to_torchmetrics_with_unknown_labels(number: str) -> None:
    golden = {k.split("/")[2]: GOLDEN[k] for k in GOLDEN.files if f"multilabel/{number}/" in k}
    scores, targets = golden["scores"], golden["targets"]
    actual = multilabel.average_precisions(scores, targets)
    np.testing.assert_allclose(actual, golden["ap"], rtol=1e-6)
    pair = multilabel.mean_average_precision(scores, targets)
    assert pair.value == pytest.approx(float(golden["ap_macro"]), rel=1e-6)
    pair = multilabel.mean_average_precision(scores, targets, "micro")
    assert pair.value == pytest.approx(float(golden["ap_micro"]), rel=1e-6)
    for average in ("macro", "micro"):
        pair = multilabel.f1(scores, targets, average, threshold=0.55)
        assert pair.value == pytest.approx(float(golden[f"f1_{average}"]), rel=1e-6)
    ranking = multilabel.label_ranking(scores, golden["complete"])
    if number == "0":  # of equal scores torchmetrics takes whichever its sort puts first
        assert ranking.ranking_loss == pytest.approx(float(golden["ranking_loss"]), rel=1e-6)
    assert ranking.coverage == pytest.approx(float(golden["coverage"]), rel=1e-6)
    assert ranking.average_precision == pytest.approx(float(golden["lrap"]), rel=1e-6)


@pytest.mark.parametrize("ties", [False, True])
def test_equal_to_scikit_learn(ties: bool) -> None:
    scores, targets = case(ties)
    targets[:3], targets[3:6] = 0, 1  # rows without labels, and with nothing else
    for average in ("macro", "micro"):
        expected = average_precision_score(targets, scores, average=average)
        actual = multilabel.mean_average_precision(scores, targets, average)
        assert actual.value == pytest.approx(expected, rel=1e-12)
        expected = f1_score(targets, scores >= 1, average=average)
        actual = multilabel.f1(scores, targets, average, threshold=1)
        assert actual.value == pytest.approx(expected, rel=1e-12)
        assert (actual.count, actual.left_out) == (7, 0)
    ranking = multilabel.label_ranking(scores, targets)
    assert ranking.coverage == pytest.approx(coverage_error(targets, scores), rel=1e-12)
    assert ranking.ranking_loss == pytest.approx(label_ranking_loss(targets, scores), rel=1e-12)
    expected = label_ranking_average_precision_score(targets, scores)
    assert ranking.average_precision == pytest.approx(expected, rel=1e-12)
    assert (ranking.examples, ranking.unlabelled) == (70, (~targets.any(1)).sum())
    constant = multilabel.label_ranking(np.zeros((70, 7)), targets)
    expected = label_ranking_loss(targets, np.zeros((70, 7)))
    assert constant.ranking_loss == pytest.approx(expected)


def test_unknown_cells_change_nothing() -> None:
    scores, targets = case(ties=True)
    unknown = np.random.default_rng(5).random(targets.shape) < 0.3
    unknown[11] = True
    hidden = np.where(unknown, -1, targets)
    scores = np.where(unknown, np.nan, scores)  # nor may their scores matter
    keep = ~unknown
    for k, actual in enumerate(multilabel.average_precisions(scores, hidden)):
        expected = average_precision_score(targets[keep[:, k], k], scores[keep[:, k], k])
        assert actual == pytest.approx(expected, rel=1e-12)
    rows = [
        (targets[i, keep[i]][None], scores[i, keep[i]][None]) for i in range(70) if keep[i].any()
    ]
    actual = multilabel.label_ranking(scores, hidden)
    assert actual.examples == len(rows) == 69
    for name, peer in (("coverage", coverage_error), ("ranking_loss", label_ranking_loss)):
        expected = np.mean(
            [peer(t, s) if t.shape[1] > 1 else t.sum() * (name == "coverage") for t, s in rows]
        )
        assert getattr(actual, name) == pytest.approx(expected, rel=1e-12)
    lrap = [label_ranking_average_precision_score(t, s) if t.shape[1] > 1 else 1.0 for t, s in rows]
    assert actual.average_precision == pytest.approx(np.mean(lrap), rel=1e-12)


def test_classes_without_positives_are_nan_and_counted() -> None:
    scores, targets = case(ties=False)
    targets[:, 2] = 0
    targets[:, 5] = -1
    targets[:, 6] = np.where(targets[:, 6] == 1, 1, -1)  # positives, and no known negative
    values = multilabel.average_precisions(scores, targets)
    assert np.flatnonzero(np.isnan(values)).tolist() == [2, 5]
    assert values[6] == 1
    actual = multilabel.mean_average_precision(scores, targets)
    assert actual == multilabel.Averaged(float(np.nanmean(values)), 5, 2)
    f1 = multilabel.f1_scores(scores, targets)
    assert np.flatnonzero(np.isnan(f1)).tolist() == [2, 5]
    micro = multilabel.f1(scores, targets, "micro")
    known = targets >= 0
    assert micro.value == pytest.approx(f1_score(targets[known], scores[known] >= 0))
    assert (micro.count, micro.left_out) == (5, 2)
    nothing = np.full(targets.shape, -1)
    for average in ("macro", "micro"):
        for measure in (multilabel.mean_average_precision, multilabel.f1):
            actual = measure(scores, nothing, average)
            assert np.isnan(actual.value)
            assert (actual.count, actual.left_out) == (0, 7)
    assert np.isnan(multilabel.label_ranking(scores, nothing).average_precision)
    assert multilabel.label_ranking(scores, nothing).examples == 0


def test_real_accuracy() -> None:
    scores = np.array([[0, 2, 1], [3, 3, 0], [0, 0, 1], [1, 0, 0], [np.nan, 9, 0]])
    labels = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0], [0, 1, 0]])
    # Right; the lower of two equal classes, wrong; right; no label; NaN, wrong.
    assert multilabel.real_accuracy(scores, labels) == multilabel.Averaged(0.5, 4, 1)
    assert multilabel.real_accuracy(scores, labels.astype(bool)).value == 0.5
    assert np.isnan(multilabel.real_accuracy(scores, np.zeros((5, 3), bool)).value)
    with pytest.raises(ValueError, match="labels is int64"):
        multilabel.real_accuracy(scores, labels - 1)


def test_bad_input_is_named() -> None:
    scores, targets = case(ties=False)
    wrong = targets.copy()
    wrong[4, 1] = 2
    broken = scores.copy()
    broken[8, 6] = np.nan
    for measure in (
        multilabel.mean_average_precision,
        multilabel.f1,
        multilabel.label_ranking,
    ):
        with pytest.raises(MetricError, match=r"1 targets other .* row 4, class 1"):
            measure(scores, wrong)
        with pytest.raises(MetricError, match="1 NaN scores, the first in row 8, class 6"):
            measure(broken, targets)
        with pytest.raises(ValueError, match="targets is int8"):
            measure(scores[:, :6], targets)
    with pytest.raises(ValueError, match="average='weighted'"):
        multilabel.f1(scores, targets, "weighted")  # type: ignore[arg-type]
