"""How well a score tells one set of examples from another: AUROC, average precision, FPR, OSCR.

Two sets, ``positive`` (P,) and ``negative`` (N,), real scores, greater for what ought to be
positive. For out-of-distribution detection the scores of ``vision.metrics.out_of_distribution`` are
greater for examples like the training set, which are the positive ones, as in Liang et al. (ODIN,
2018). All are computed from counts, so ties and the order of examples change nothing. Either set
empty: NaN, except that precision without negatives is 1. Infinite scores are ordered like others;
NaN is a ``MeasureError``.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np

from vision.metrics.arrays import bits, defined, of_choice, vector


def _scores(name: str, x: np.ndarray) -> np.ndarray:
    return defined(name, vector(name, x))


@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
    """Counts at every distinct score, falling: how many are at or above it.

    Attributes:
      threshold: float64 (T,), falling.
      positive, negative: int64 (T,), rising; the last are all.
    """

    threshold: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


def steps(positive: np.ndarray, negative: np.ndarray) -> Steps:
    """What all curves are drawn from. Equal scores are one step."""
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
    """The chance that a positive scores above a negative, ties counting half, 0..1."""
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
    scikit-learn's ``average_precision_score``. ``"trapezoid"``: straight lines between the same
    points, from precision 1 at recall 0: ``auc`` of ``precision_recall_curve``, the AUPR of
    OpenOOD; it is too optimistic (Davis and Goadrich, 2006). For the AUPR-out of the literature
    give the out-of-distribution set as positive and all scores with their signs changed.
    """
    of_choice("area", area, ("step", "trapezoid"))
    found = steps(positive, negative)
    if not len(found.threshold) or found.positive[-1] == 0:
        return math.nan
    precision = found.positive / (found.positive + found.negative)
    recall = found.positive / found.positive[-1]
    if area == "step":
        return float((np.diff(recall, prepend=0) * precision).sum())
    return float(np.trapezoid(np.append(1, precision), np.append(0, recall)))


def false_positive_rate(positive: np.ndarray, negative: np.ndarray, recall: float = 0.95) -> float:
    """FPR@95: the share of negatives at or above the threshold, 0..1.

    The threshold is the greatest score that at least ``recall`` of the positives reach; nothing is
    interpolated, so with ties the true positive rate may be well above.
    """
    if not 0 < recall <= 1:
        raise ValueError(f"recall={recall}; it must be above 0 and at most 1")
    found = steps(positive, negative)
    if not len(found.threshold) or found.positive[-1] == 0 or found.negative[-1] == 0:
        return math.nan
    at = np.argmax(found.positive / found.positive[-1] >= recall)
    return float(found.negative[at] / found.negative[-1])


@dataclasses.dataclass(frozen=True)
class Detection:
    """One set against another, in the literature's numbers.

    Attributes:
      auroc: ties count half.
      aupr_in, aupr_out: average precision (steps) with the inside or the outside as positive.
      fpr95: share of the outside that passes where 95% of the inside do.
      inside, outside: how many examples.
    """

    auroc: float
    aupr_in: float
    aupr_out: float
    fpr95: float
    inside: int
    outside: int


def detection(inside: np.ndarray, outside: np.ndarray) -> Detection:
    """All numbers of scores (N,) and (M,) that are greater for what is in distribution."""
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
    """Right answers against strangers let in, over falling thresholds.

    Attributes:
      false_positive_rate: (T + 1,) share of unknowns that score at or above the threshold, from 0.
      classification_rate: (T + 1,) share of knowns that do so and are classified right, from 0 to
        the closed-set accuracy.
      area: under the curve, by straight lines: 0..accuracy. The chance that a known example is
        right and scores above an unknown one, ties counting half. NaN where either set is empty.
    """

    false_positive_rate: np.ndarray
    classification_rate: np.ndarray
    area: float


def open_set(known: np.ndarray, right: np.ndarray, unknown: np.ndarray) -> OpenSetCurve:
    """OSCR: open-set classification rate.

    Source: Dhamija et al., "Reducing Network Agnostophobia", 2018, where the score is the softmax
    confidence; the area is that of Vaze et al., 2022.

    Args:
      known: (N,) scores of examples of the trained classes, greater for surely known.
      right: bool (N,), whether the predicted class is the true one.
      unknown: (M,) scores of examples of other classes.
    """
    known, unknown = _scores("known", known), _scores("unknown", unknown)
    right = bits("right", right, (len(known),))
    if not len(known) or not len(unknown):
        nothing = np.zeros(0)
        return OpenSetCurve(nothing, nothing, math.nan)
    threshold = np.unique(np.concatenate([known, unknown]))[::-1]
    hits, strangers = np.sort(known[right]), np.sort(unknown)
    ccr = np.append(0, len(hits) - np.searchsorted(hits, threshold, side="left")) / len(known)
    fpr = np.append(0, len(strangers) - np.searchsorted(strangers, threshold, side="left"))
    fpr = fpr / len(strangers)
    return OpenSetCurve(fpr, ccr, float(np.trapezoid(ccr, fpr)))
