"""Calibration errors of predicted probabilities, and proper scoring rules.

All take ``logits`` (N, K), real numbers of any width, and ``labels`` (N,), integers. Adding a
constant to a row changes nothing, so log-probabilities are logits too; minus infinity is a
probability of zero. Rows labelled -1 are left out. NaN or plus infinity among the logits of a
labelled row makes every result NaN, as in ``vision.evaluate.metrics``: no example is left out
silently. No labelled rows: NaN. Computed in float64, a block of rows or columns at a time.

Raises, everywhere: ``ValueError`` for shapes, dtypes and arguments; ``MetricError`` for labels
outside -1..K-1.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from vision.evaluate.figures import Reliability
from vision.metrics.arrays import (
    blocks,
    check_choice,
    class_indices,
    matrix,
    mean,
    predictions,
    ratio,
    softmax_parts,
)

Binning = Literal["width", "mass"]


def labelled(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``logits`` and ``labels``, checked, without the rows labelled -1."""
    logits = matrix("logits", logits)
    labels = class_indices("labels", labels, len(logits), logits.shape[1])
    keep = labels >= 0
    return (logits, labels) if keep.all() else (logits[keep], labels[keep])


def confidences(logits: np.ndarray) -> np.ndarray:
    """The largest probability of each row, float64 (N,) in 1/K..1.

    NaN where a row holds NaN or plus infinity, or nothing but minus infinity.
    """
    return np.exp(-softmax_parts(matrix("logits", logits))[1])


def binned(
    confidence: np.ndarray, correct: np.ndarray, bins: int = 15, binning: Binning = "width"
) -> Reliability:
    """Mean confidence and accuracy per bin of confidence.

    ``"width"``: bin ``b`` of ``M`` holds ``(b / M, (b + 1) / M]``, and the first also 0. Both sides
    are compared in float32, as ``vision.evaluate.metrics.ExpectedCalibrationError`` does, so that
    the two never disagree at an edge (torchmetrics and scikit-learn assign an edge to the bin
    above).

    ``"mass"``: bin ``b`` holds the ranks ``N b / M`` to ``N (b + 1) / M`` of confidence. Equal
    confidences always share a bin, so that the order of the examples does not matter: they go
    into the lowest of their bins, and there can be fewer bins than ``bins``.

    Args:
      confidence: float (N,) in 0..1, without NaN.
      correct: bool (N,).
      bins: 1 or more.
    """
    check_choice("binning", binning, ("width", "mass"))
    if bins < 1:
        raise ValueError(f"bins={bins}; at least 1 is needed")
    confidence = np.asarray(confidence)
    if binning == "width" or not len(confidence):
        inner = np.linspace(0, 1, bins + 1, dtype=np.float32)[1:-1]
        bin_index = np.searchsorted(inner, confidence.astype(np.float32), side="left")
        edges = np.linspace(0, 1, bins + 1)
    else:
        ordered = np.sort(confidence)
        last = -(-len(ordered) * np.arange(1, bins + 1) // bins) - 1
        upper = np.unique(ordered[last])
        bin_index = np.searchsorted(upper, confidence, side="left")
        edges = np.concatenate([ordered[:1], upper]).astype(np.float64)
    size = len(edges) - 1
    count = np.bincount(bin_index, minlength=size)
    return Reliability(
        edges=edges,
        confidence=ratio(np.bincount(bin_index, confidence, size), count),
        accuracy=ratio(np.bincount(bin_index, correct, size), count),
        count=count.astype(np.int64),
    )


def reliability(
    logits: np.ndarray, labels: np.ndarray, bins: int = 15, binning: Binning = "width"
) -> Reliability:
    """The bins of a reliability diagram of the predicted class, without rows of NaN confidence."""
    logits, labels = labelled(logits, labels)
    confidence = confidences(logits)
    defined_rows = ~np.isnan(confidence)
    correct = predictions(logits) == labels
    return binned(confidence[defined_rows], correct[defined_rows], bins, binning)


def _gaps(
    logits: np.ndarray, labels: np.ndarray, bins: int, binning: Binning
) -> Reliability | None:
    """The bins, or None if the calibration errors are NaN."""
    logits, labels = labelled(logits, labels)
    bins_of_rows = reliability(logits, labels, bins, binning)
    return bins_of_rows if len(labels) and bins_of_rows.count.sum() == len(labels) else None


def _average(bins: Reliability) -> float:
    gap = np.nan_to_num(np.abs(bins.accuracy - bins.confidence))
    return float((bins.count * gap).sum() / bins.count.sum())


def expected_calibration_error(
    logits: np.ndarray, labels: np.ndarray, bins: int = 15, binning: Binning = "width"
) -> float:
    """``sum_b n_b / n |accuracy_b - confidence_b|`` over bins of the top probability, 0..1.

    Equal width: Guo et al., "On Calibration of Modern Neural Networks", 2017. Equal mass: the
    adaptive bins of Nguyen and O'Connor, "Posterior calibration and exploratory analysis for
    natural language processing models", 2015. Ties predict the lowest class. See ``binned`` for
    the bins.
    """
    gaps = _gaps(logits, labels, bins, binning)
    return math.nan if gaps is None else _average(gaps)


def maximum_calibration_error(
    logits: np.ndarray, labels: np.ndarray, bins: int = 15, binning: Binning = "width"
) -> float:
    """``max_b |accuracy_b - confidence_b|`` over bins that hold examples, 0..1.

    Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", 2015.
    """
    gaps = _gaps(logits, labels, bins, binning)
    if gaps is None:
        return math.nan
    return float(np.nanmax(np.abs(gaps.accuracy - gaps.confidence)))


def classwise_calibration_errors(
    logits: np.ndarray, labels: np.ndarray, bins: int = 15, binning: Binning = "width"
) -> np.ndarray:
    """The calibration error of every class's probability, predicted or not, float64 (K,).

    Of class ``k``, over bins of ``p_k`` of all examples:
    ``sum_b n_b / n |share of class k in b - mean p_k in b|``. A class without examples counts: all
    probability that it gets is an error.
    """
    logits, labels = labelled(logits, labels)
    top, normaliser = softmax_parts(logits)
    errors = np.full(logits.shape[1], np.nan)
    if not len(labels) or np.isnan(normaliser).any():
        return errors
    for columns in blocks(logits.shape[1], len(labels)):
        probability = np.exp(logits[:, columns] - top[:, None] - normaliser[:, None]).T
        for k, p in enumerate(probability, start=columns.start):
            errors[k] = _average(binned(p, labels == k, bins, binning))
    return errors


def static_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """SCE: the mean over classes of their errors in bins of equal width, 0..1.

    Source: Nixon et al., "Measuring Calibration in Deep Learning", 2019.
    """
    return float(classwise_calibration_errors(logits, labels, bins, "width").mean())


def adaptive_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """ACE: the mean over classes of their errors in bins of equal mass, 0..1.

    Source: Nixon et al., 2019. Bins are weighted by their number of examples, which is the paper's
    equal weights where ``bins`` divides the number of examples and no two probabilities are equal.
    """
    return float(classwise_calibration_errors(logits, labels, bins, "mass").mean())


def negative_log_likelihood(
    logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0
) -> float:
    """Mean of ``-log p(true class)`` in nats, of ``softmax(logits / temperature)``.

    Infinite where a true class has probability zero.
    """
    return mean(log_losses(logits, labels, temperature))


def log_losses(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """``-log p(true class)`` in nats of every labelled example, float64 (N,)."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature={temperature}; it must be positive and finite")
    logits, labels = labelled(logits, labels)
    true_logits = np.take_along_axis(logits, labels[:, None], 1)[:, 0].astype(np.float64)
    top, normaliser = softmax_parts(logits, temperature)
    with np.errstate(invalid="ignore"):
        return normaliser + (top - true_logits) / temperature


def brier_score(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean of ``sum_k (p_k - [k is the true class])^2``, 0 (best) to 2.

    The sum over all classes, as defined by Brier, 1950; for two classes it is twice the
    squared error of one of them, which is the other convention.
    """
    logits, labels = labelled(logits, labels)
    top, normaliser = softmax_parts(logits)
    scores = np.zeros(len(labels))
    for rows in blocks(*logits.shape):
        with np.errstate(invalid="ignore"):
            p = np.exp(logits[rows] - top[rows, None] - normaliser[rows, None])
        p[np.arange(len(p)), labels[rows]] -= 1
        scores[rows] = np.square(p).sum(1)
    return mean(scores)
