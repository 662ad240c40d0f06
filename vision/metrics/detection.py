"""How well a score tells one set from another: AUROC, average precision, F1, FPR, OSCR.

The arguments are real scores of two sets, ``positive`` (P,) and ``negative`` (N,); greater means
more likely positive. For out-of-distribution detection the scores of
``vision.metrics.out_of_distribution`` are greater for in-distribution examples, which are the
positive ones, as in Liang et al. (ODIN, 2018). All are computed from counts, so ties and the order
of examples change nothing. If either set is empty the result is NaN, except that precision without
negatives is 1. Infinite scores are ordered like others; NaN is a ``MetricError``.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np

from vision.metrics.arrays import booleans, check_choice, defined, vector


def _scores(name: str, x: np.ndarray) -> np.ndarray:
    return defined(name, vector(name, x))


@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
    """Cumulative counts at every distinct score: how many scores are at or above it.

    Attributes:
      threshold: float64 (T,), decreasing.
      positive, negative: int64 (T,), increasing; the last entries are the sizes of the sets.
    """

    threshold: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


def steps(positive: np.ndarray, negative: np.ndarray) -> Steps:
    """The counts that all curves are computed from. Equal scores are one step."""
    positive, negative = (
        np.sort(_scores("positive", positive)),
        np.sort(_scores("negative", negative)),
    )
    threshold = np.unique(np.concatenate([positive, negative]))[::-1]
    return Steps(
        threshold,
        len(positive) - np.searchsorted(positive, threshold, side="left"),
        len(negative) - np.searchsorted(negative, threshold, side="left"),
    )


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """The probability that a positive scores above a negative, ties counting half, 0..1."""
    positive, negative = _scores("positive", positive), np.sort(_scores("negative", negative))
    if not len(positive) or not len(negative):
        return math.nan
    below = np.searchsorted(negative, positive, side="left").sum()
    upto = np.searchsorted(negative, positive, side="right").sum()
    return float((int(below) + int(upto)) / 2 / (len(positive) * len(negative)))


def average_precision(
    positive: np.ndarray,
    negative: np.ndarray,
    area: Literal["step", "trapezoid"] = "step",
) -> float:
    """Area under precision over recall, 0..1.

    ``"step"``: ``sum_t (recall_t - recall_{t-1}) precision_t`` over falling thresholds:
    scikit-learn's ``average_precision_score``. ``"trapezoid"``: linear interpolation between the
    same points, from precision 1 at recall 0: ``auc`` of ``precision_recall_curve``, the AUPR of
    OpenOOD; it is too optimistic (Davis and Goadrich, 2006). For the AUPR-out of the literature
    pass the out-of-distribution set as positive and negate all scores.
    """
    check_choice("area", area, ("step", "trapezoid"))
    curve = steps(positive, negative)
    if not len(curve.threshold) or curve.positive[-1] == 0:
        return math.nan
    precision = curve.positive / (curve.positive + curve.negative)
    recall = curve.positive / curve.positive[-1]
    if area == "step":
        return float((np.diff(recall, prepend=0) * precision).sum())
    return float(np.trapezoid(np.append(1, precision), np.append(0, recall)))


def false_positive_rate(positive: np.ndarray, negative: np.ndarray, recall: float = 0.95) -> float:
    """FPR@95: the share of negatives at or above the threshold, 0..1.

    The threshold is the greatest score that at least ``recall`` of the positives reach, without
    interpolation, so with ties the true positive rate can be well above ``recall``.
    """
    if not 0 < recall <= 1:
        raise ValueError(f"recall={recall}; it must be above 0 and at most 1")
    curve = steps(positive, negative)
    if not len(curve.threshold) or curve.positive[-1] == 0 or curve.negative[-1] == 0:
        return math.nan
    index = np.argmax(curve.positive / curve.positive[-1] >= recall)
    return float(curve.negative[index] / curve.negative[-1])


def best_f1(positive: np.ndarray, negative: np.ndarray) -> float:
    """The greatest F1 over all thresholds, 0..1: that of scikit-learn's ``precision_recall_curve``.

    NaN without positives.
    """
    curve = steps(positive, negative)
    if not len(curve.threshold) or curve.positive[-1] == 0:
        return math.nan
    return float(
        (2 * curve.positive / (curve.positive[-1] + curve.positive + curve.negative)).max()
    )


@dataclasses.dataclass(frozen=True)
class Detection:
    """The usual metrics of in-distribution against out-of-distribution scores.

    Attributes:
      auroc: ties count half.
      aupr_in, aupr_out: average precision (steps) with the in-distribution or the
        out-of-distribution set as positive.
      fpr95: share of out-of-distribution examples at or above the threshold that 95% of the
        in-distribution examples reach.
      inside, outside: number of in-distribution and out-of-distribution examples.
    """

    auroc: float
    aupr_in: float
    aupr_out: float
    fpr95: float
    inside: int
    outside: int


def detection(inside: np.ndarray, outside: np.ndarray) -> Detection:
    """``Detection`` of scores (N,) and (M,), greater for in-distribution examples."""
    inside, outside = _scores("inside", inside), _scores("outside", outside)
    return Detection(
        auroc=auroc(inside, outside),
        aupr_in=average_precision(inside, outside),
        aupr_out=average_precision(-outside, -inside),
        fpr95=false_positive_rate(inside, outside),
        inside=len(inside),
        outside=len(outside),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class OpenSetCurve:
    """Correct classification rate against false positive rate, over decreasing thresholds.

    Attributes:
      false_positive_rate: (T + 1,) share of unknowns that score at or above the threshold, from 0.
      classification_rate: (T + 1,) share of knowns that do so and are classified correctly, from 0
        to the closed-set accuracy.
      area: under the curve by the trapezoidal rule, 0..accuracy: the probability that a known
        example is correct and scores above an unknown one, ties counting half. NaN if either set
        is empty.
    """

    false_positive_rate: np.ndarray
    classification_rate: np.ndarray
    area: float


def open_set(known: np.ndarray, correct: np.ndarray, unknown: np.ndarray) -> OpenSetCurve:
    """OSCR: open-set classification rate.

    Source: Dhamija et al., "Reducing Network Agnostophobia", 2018, where the score is the softmax
    confidence; the area is that of Vaze et al., 2022.

    Args:
      known: (N,) scores of examples of the trained classes, greater for more likely known.
      correct: bool (N,), whether the predicted class is the true one.
      unknown: (M,) scores of examples of other classes.
    """
    known, unknown = _scores("known", known), _scores("unknown", unknown)
    correct = booleans("correct", correct, (len(known),))
    if not len(known) or not len(unknown):
        empty = np.zeros(0)
        return OpenSetCurve(empty, empty, math.nan)
    threshold = np.unique(np.concatenate([known, unknown]))[::-1]
    known_correct, unknown_scores = np.sort(known[correct]), np.sort(unknown)
    ccr = np.append(
        0, len(known_correct) - np.searchsorted(known_correct, threshold, side="left")
    ) / len(known)
    fpr = np.append(
        0, len(unknown_scores) - np.searchsorted(unknown_scores, threshold, side="left")
    )
    fpr = fpr / len(unknown_scores)
    return OpenSetCurve(fpr, ccr, float(np.trapezoid(ccr, fpr)))
