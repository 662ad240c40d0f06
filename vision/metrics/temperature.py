"""Temperature scaling: calibration of probabilities by one parameter."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from vision.metrics.arrays import MetricError, blocks, defined, mean
from vision.metrics.calibration import labelled, negative_log_likelihood


@dataclasses.dataclass(frozen=True)
class Temperature:
    """Result of ``fit_temperature``.

    Attributes:
      value: T > 0; ``softmax(logits / T)`` is the calibrated prediction.
      nll_before, nll_after: negative log-likelihood of the fitted rows at T = 1 and at ``value``.
      examples: number of rows it was fitted on.
    """

    value: float
    nll_before: float
    nll_after: float
    examples: int


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> Temperature:
    """The T > 0 that minimises the negative log-likelihood of ``softmax(logits / T)``.

    ``logits`` (N, K) and ``labels`` (N,) are as in ``vision.metrics.calibration``. In
    ``b = 1 / T`` the loss is convex with derivative ``g(b) = mean(E_p[z] - z_true)``, so ``g``
    rises with ``log b`` too, and has one root, found by Newton's method in ``log b``, inside a
    bracket and with steps of at most 2. The relative error of T is below 1e-6 (in practice 1e-9).
    Source: Guo et al., 2017. Fit on another split than the reported one.

    Raises:
      MetricError: no labelled rows, K or the labels of one class only, logits that are NaN or
        plus infinity, a true class of probability zero; and two cases without a minimum:
        every example is correct (T goes to 0) or the true classes score no better than the average
        class (T goes to infinity).
    """
    logits, labels = labelled(logits, labels)
    if not len(labels):
        raise MetricError("temperature scaling: no labelled rows; name a split with labels")
    if labels.min() == labels.max():
        raise MetricError(
            f"temperature scaling: all {len(labels)} labels are class {labels[0]}; a split of one "
            "class does not determine the confidence in others: name a split with all classes"
        )
    defined("logits", logits)
    true_logits = np.take_along_axis(logits, labels[:, None], 1)[:, 0]
    unusable = np.isinf(true_logits) | (logits.max(1) == np.inf)
    if unusable.any():
        raise MetricError(
            f"logits: {unusable.sum()} of {len(labels)} rows have probability 0 of the true class "
            f"or a score of plus infinity, the first is labelled row {np.flatnonzero(unusable)[0]}"
        )
    derivative_at_0, slope = _slope(logits, labels, 0.0)
    derivative_limit = mean((logits.max(1) - true_logits).astype(np.float64))
    if derivative_at_0 >= 0:
        raise MetricError(
            "temperature scaling: true classes score no better than the average class, so the "
            "larger T the better; check that labels and logits have the same order of classes"
        )
    if derivative_limit <= 0:
        raise MetricError(
            "temperature scaling: every example is correct, so the smaller T the better; fit on "
            "examples that were not trained on"
        )
    low, high = -math.inf, math.inf
    log_b = -0.5 * math.log(slope)
    for _ in range(500):
        value, slope = _slope(logits, labels, math.exp(log_b))
        low, high = (log_b, high) if value < 0 else (low, log_b)
        rise = slope * math.exp(log_b)
        step = -value / rise if rise > 0 else math.copysign(math.inf, -value)
        new = log_b + min(max(step, -2.0), 2.0)
        if not low <= new <= high:
            new = (low + high) / 2
        change, log_b = abs(new - log_b), new
        if change < 1e-10:
            break
    value = math.exp(-log_b)
    return Temperature(
        value=value,
        nll_before=negative_log_likelihood(logits, labels),
        nll_after=negative_log_likelihood(logits, labels, value),
        examples=len(labels),
    )


def _slope(logits: np.ndarray, labels: np.ndarray, b: float) -> tuple[float, float]:
    """``g(b)`` and ``g'(b)``, the mean variance of the logits under ``softmax(b logits)``."""
    first, second = np.zeros(len(labels)), np.zeros(len(labels))
    for rows in blocks(*logits.shape):
        z = logits[rows].astype(np.float64)
        z -= z.max(1, keepdims=True)
        impossible = np.isneginf(z)
        z[impossible] = 0
        p = np.where(impossible, 0, np.exp(b * z))
        p /= p.sum(1, keepdims=True)
        expectation = (p * z).sum(1)
        first[rows] = expectation - z[np.arange(len(z)), labels[rows]]
        second[rows] = (p * np.square(z - expectation[:, None])).sum(1)
    return float(first.mean()), float(second.mean())
