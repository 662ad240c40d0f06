"""Temperature scaling: the one number that makes probabilities as sure as they ought to be."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from vision.metrics.arrays import MetricError, blocks, defined, mean
from vision.metrics.calibration import labelled, negative_log_likelihood


@dataclasses.dataclass(frozen=True)
class Temperature:
    """What ``fit_temperature`` found.

    Attributes:
      value: T > 0; ``softmax(logits / T)`` is the calibrated prediction.
      nll_before, nll_after: negative log-likelihood of the fitted rows at T = 1 and at ``value``.
      examples: how many rows it was fitted on.
    """

    value: float
    nll_before: float
    nll_after: float
    examples: int


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> Temperature:
    """The T > 0 for which ``softmax(logits / T)`` has the least negative log-likelihood.

    ``logits`` (N, K) and ``labels`` (N,) are as in ``vision.metrics.calibration``. In
    ``b = 1 / T`` the loss is convex with derivative ``g(b) = mean(E_p[z] - z_true)``, so ``g``
    rises with ``log b`` too, and has one root, found by Newton's method in ``log b``, inside a
    bracket and with steps of at most 2. The relative error of T is below 1e-6 (in practice 1e-9).
    Source: Guo et al., 2017. Fit on a split that is not the one reported.

    Raises:
      MeasureError: no labelled rows, K or the labels of one class only, logits that are NaN or
        plus infinity, a true class of probability zero; and two cases in which no T is best:
        every example is right (T falls to 0) or the true classes score no better than the average
        class (T grows without end).
    """
    logits, labels = labelled(logits, labels)
    if not len(labels):
        raise MetricError("temperature scaling: no labelled rows; name a split with labels")
    if labels.min() == labels.max():
        raise MetricError(
            f"temperature scaling: all {len(labels)} labels are class {labels[0]}; a split of one "
            "class says nothing about the confidence in others: name a split with all classes"
        )
    defined("logits", logits)
    own = np.take_along_axis(logits, labels[:, None], 1)[:, 0]
    wrong = np.isinf(own) | (logits.max(1) == np.inf)
    if wrong.any():
        raise MetricError(
            f"logits: {wrong.sum()} of {len(labels)} rows have probability 0 of the true class or "
            f"a score of plus infinity, the first is labelled row {np.flatnonzero(wrong)[0]}"
        )
    below, slope = _slope(logits, labels, 0.0)
    above = mean((logits.max(1) - own).astype(np.float64))
    if below >= 0:
        raise MetricError(
            "temperature scaling: true classes score no better than the average class, so the "
            "larger T the better; check that labels and logits have the same order of classes"
        )
    if above <= 0:
        raise MetricError(
            "temperature scaling: every example is right, so the smaller T the better; fit on "
            "examples that were not trained on"
        )
    low, high = -math.inf, math.inf
    at = -0.5 * math.log(slope)
    for _ in range(500):
        value, slope = _slope(logits, labels, math.exp(at))
        low, high = (at, high) if value < 0 else (low, at)
        rise = slope * math.exp(at)
        step = -value / rise if rise > 0 else math.copysign(math.inf, -value)
        new = at + min(max(step, -2.0), 2.0)
        if not low <= new <= high:
            new = (low + high) / 2
        moved, at = abs(new - at), new
        if moved < 1e-10:
            break
    value = math.exp(-at)
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
        never = np.isneginf(z)
        z[never] = 0
        p = np.where(never, 0, np.exp(b * z))
        p /= p.sum(1, keepdims=True)
        centre = (p * z).sum(1)
        first[rows] = centre - z[np.arange(len(z)), labels[rows]]
        second[rows] = (p * np.square(z - centre[:, None])).sum(1)
    return float(first.mean()), float(second.mean())
