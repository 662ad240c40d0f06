"""Calibration errors against the streaming metric, torchmetrics, scikit-learn and plain loops."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss

from vision.evaluate.metrics import ExpectedCalibrationError
from vision.metrics import calibration
from vision.metrics.arrays import MetricError, log_normaliser, predictions
from vision.metrics.temperature import fit_temperature

GOLDEN = np.load(
    Path(__file__).resolve().parents[1] / "golden" / "measures" / "torchmetrics.npz",
    allow_pickle=False,
)
CASES = sorted({key.split("/")[1] for key in GOLDEN.files if key.startswith("calibration/")})


def case(rows: int = 200, classes: int = 5, scale: float = 2.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(rows, classes))
    labels = rng.integers(0, classes, rows)
    logits[np.arange(rows), labels] += 1.5
    return logits, labels


def softmax(z: np.ndarray) -> np.ndarray:
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def by_loop(p: np.ndarray, hit: np.ndarray, groups: list[np.ndarray]) -> float:
    return sum(len(g) / len(p) * abs(hit[g].mean() - p[g].mean()) for g in groups if len(g))


@pytest.mark.parametrize("number", CASES)
def test_equal_to_torchmetrics(number: str) -> None:
    logits, labels, bins, l1, worst = (
        GOLDEN[f"calibration/{number}/{k}"] for k in ("logits", "labels", "bins", "l1", "max")
    )
    actual = calibration.expected_calibration_error(logits, labels, int(bins))
    assert actual == pytest.approx(float(l1), rel=1e-6)
    actual = calibration.maximum_calibration_error(logits, labels, int(bins))
    assert actual == pytest.approx(float(worst), rel=1e-6)


def test_equal_to_the_streaming_metric_on_edges_ties_and_unlabelled_rows() -> None:
    logits, labels = case(scale=1.0)
    labels[::6] = -1
    # Confidences exactly on edges of 4 bins: 1/4 (all equal), 1/2, 1; and ties for the best class.
    edge = np.full((9, 5), -np.inf)
    edge[:3, :4] = edge[3:6, :2] = edge[6:, 0] = 0
    with np.errstate(divide="ignore"):
        logits = np.log(softmax(np.concatenate([logits, edge]))).astype(np.float32)
    labels = np.concatenate([labels, np.tile([0, 1, -1], 3)])
    streaming = ExpectedCalibrationError.from_model_output(
        jnp.asarray(logits), jnp.asarray(labels), bins=4
    )
    expected, bins = streaming.reliability(), calibration.reliability(logits, labels, 4)
    np.testing.assert_array_equal(bins.count, expected.count)
    np.testing.assert_array_equal(bins.edges, expected.edges)
    np.testing.assert_array_equal(bins.accuracy, expected.accuracy)
    np.testing.assert_allclose(bins.confidence, expected.confidence, rtol=1e-6)
    actual = calibration.expected_calibration_error(logits, labels, 4)
    assert actual == pytest.approx(streaming.compute(), abs=1e-6)


def test_equal_mass_bins_keep_ties_together() -> None:
    logits, labels = case(rows=103)
    bins = calibration.reliability(logits, labels, 10, "mass")
    assert bins.count.sum() == 103
    assert set(bins.count) == {10, 11}
    p, hit = softmax(logits).max(1), softmax(logits).argmax(1) == labels
    order = np.argsort(p)
    cuts = [-(-103 * b // 10) for b in range(1, 10)]
    expected = by_loop(p, hit, np.split(order, cuts))
    actual = calibration.expected_calibration_error(logits, labels, 10, "mass")
    assert actual == pytest.approx(expected, rel=1e-12)
    tied = np.repeat(logits[:4], 20, axis=0)
    shuffle = np.random.default_rng(1).permutation(80)
    bins = calibration.reliability(tied, np.arange(80) % 5, 10, "mass")
    again = calibration.reliability(tied[shuffle], (np.arange(80) % 5)[shuffle], 10, "mass")
    np.testing.assert_array_equal(bins.count, again.count)
    np.testing.assert_array_equal(bins.accuracy, again.accuracy)
    assert set(bins.count % 20) == {0}
    constant = calibration.reliability(tied[:20], np.zeros(20, int), 10, "mass")
    assert constant.count.tolist() == [20]


def test_classwise_errors_by_loop() -> None:
    logits, labels = case(rows=120, classes=4)
    labels[labels == 2] = 1  # a class without examples: its probability is all error
    p = softmax(logits)
    width = [
        by_loop(
            p[:, k], labels == k, [np.flatnonzero(np.ceil(p[:, k] * 8) == b + 1) for b in range(8)]
        )
        for k in range(4)
    ]
    mass = [by_loop(p[:, k], labels == k, np.split(np.argsort(p[:, k]), 6)) for k in range(4)]
    actual = calibration.classwise_calibration_errors(logits, labels, 8)
    np.testing.assert_allclose(actual, width, rtol=1e-12)
    assert actual[2] == pytest.approx(p[:, 2].mean())
    assert calibration.static_calibration_error(logits, labels, 8) == pytest.approx(np.mean(width))
    assert calibration.adaptive_calibration_error(logits, labels, 6) == pytest.approx(np.mean(mass))


def test_proper_scores() -> None:
    logits, labels = case()
    p = softmax(logits)
    loss = log_loss(labels, p, labels=np.arange(5))
    assert calibration.negative_log_likelihood(logits, labels) == pytest.approx(loss, rel=1e-12)
    shifted = (logits + 1e4).astype(np.float32)
    assert calibration.negative_log_likelihood(shifted, labels) == pytest.approx(loss, rel=1e-3)
    expected = np.square(p - np.eye(5)[labels]).sum(1).mean()
    assert calibration.brier_score(logits, labels) == pytest.approx(expected, rel=1e-12)
    sure = np.where(np.eye(5, dtype=bool)[labels], 0.0, -np.inf)
    assert calibration.brier_score(sure, labels) == 0
    assert calibration.negative_log_likelihood(sure, labels) == 0
    assert calibration.brier_score(sure, (labels + 1) % 5) == 2
    assert calibration.negative_log_likelihood(sure, (labels + 1) % 5) == np.inf


def test_no_examples_and_nan_give_nan() -> None:
    logits, labels = case(rows=6)
    broken = logits.copy()
    broken[2, 3] = np.nan
    functions = (
        calibration.expected_calibration_error,
        calibration.maximum_calibration_error,
        calibration.static_calibration_error,
        calibration.adaptive_calibration_error,
        calibration.negative_log_likelihood,
        calibration.brier_score,
    )
    unlabelled = np.where(np.arange(6) == 2, -1, labels)
    for function in functions:
        assert np.isnan(function(broken, labels)), function
        assert np.isnan(function(logits, np.full(6, -1))), function
        assert np.isnan(function(logits[:0], labels[:0])), function
        assert function(broken, unlabelled) == function(logits, unlabelled), function
        with pytest.raises(MetricError, match=r"labels: 1 of 6 .* first is 5 in row 1"):
            function(logits, np.array([0, 5, 0, 0, 0, 0]))
        with pytest.raises(ValueError, match="labels is float64"):
            function(logits, labels.astype(float))
        with pytest.raises(ValueError, match=r"labels is int64\[5\]"):
            function(logits, labels[:5])
    assert calibration.reliability(broken, labels).count.sum() == 5
    assert predictions(broken)[2] == -1
    with pytest.raises(ValueError, match="binning='even'"):
        calibration.binned(np.ones(2), np.ones(2, bool), 3, "even")  # type: ignore[arg-type]


@pytest.mark.parametrize(("scale", "seed"), [(0.02, 0), (1.0, 1), (300.0, 2)])
def test_temperature_is_the_minimum(scale: float, seed: int) -> None:
    logits, labels = case(rows=300, seed=seed)
    logits *= scale
    labels[::9] = -1
    fit = fit_temperature(logits, labels)
    keep = labels >= 0
    z, y = logits[keep], labels[keep]
    p = softmax(z / fit.value)
    # The derivative of the loss in 1/T, relative to its slope in log T: the error of log T.
    gradient = (p * z).sum(1) - z[np.arange(len(z)), y]
    curvature = ((p * z**2).sum(1) - (p * z).sum(1) ** 2).mean() / fit.value
    assert abs(gradient.mean() / curvature) < 1e-8
    assert fit.nll_after == calibration.negative_log_likelihood(logits, labels, fit.value)
    assert fit.nll_after < fit.nll_before
    assert fit.examples == keep.sum()
    assert fit_temperature(7 * logits, labels).value == pytest.approx(7 * fit.value, rel=1e-8)


def test_temperature_in_closed_form() -> None:
    # Two classes, margin m, right with share q: sigmoid(m / T) = q.
    logits = np.tile([[3.0, 0.0]], (8, 1))
    labels = np.array([0] * 6 + [1] * 2)
    fit = fit_temperature(logits, labels)
    assert fit.value == pytest.approx(3 / np.log(3), rel=1e-9)
    impossible = np.concatenate([logits, np.full((8, 1), -np.inf)], axis=1)
    assert fit_temperature(impossible, labels).value == pytest.approx(fit.value, rel=1e-9)


def test_temperature_errors_without_a_minimum() -> None:
    logits, labels = case(rows=40)
    right = 5 * np.eye(5)[labels]
    broken = logits.copy()
    broken[4, 0] = np.nan
    for z, y, message in (
        (right, labels, "every example is correct"),
        (-right, labels, "no better than the average class"),
        (np.ones((40, 5)), labels, "no better than the average class"),
        (logits, np.zeros(40, int), "all 40 labels are class 0"),
        (logits, np.full(40, -1), "no labelled rows"),
        (broken, labels, "1 of 40 rows hold NaN, the first is row 4"),
        (np.where(right > 0, -np.inf, 0), labels, "40 of 40 rows have probability 0"),
        (logits, labels + 1, "out of range"),
    ):
        with pytest.raises(MetricError, match=message):
            fit_temperature(z, y)


def test_log_normaliser_of_extremes() -> None:
    z = np.array([[0, -np.inf], [-np.inf, -np.inf], [np.inf, 0], [np.nan, 0], [1e4, 1e4]])
    expected = [0, -np.inf, np.inf, np.nan, 1e4 + np.log(2)]
    np.testing.assert_allclose(log_normaliser(z), expected)
