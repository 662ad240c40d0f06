"""Metrics of several, possibly unknown labels per example: ReaL accuracy, mAP, F1, label ranking.

``scores`` (N, K) real numbers, greater for more likely; ``targets`` (N, K) integers (or bool): 1
the label applies, 0 it does not, -1 not known. Unknown cells are left out.
Average precision and F1 of a class without a known positive are NaN; it is left out of the macro
average, and counted. Ties among scores are one step, so that the order of examples and classes
does not matter. NaN without examples.

Raises, everywhere: ``ValueError`` for shapes and dtypes; ``MetricError`` for NaN or plus infinity
among known scores and targets other than -1, 0, 1.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np

from vision.metrics.arrays import (
    MetricError,
    blocks,
    booleans,
    check_choice,
    matrix,
    mean,
    predictions,
    ratio,
)
from vision.metrics.detection import average_precision

Average = Literal["macro", "micro"]


@dataclasses.dataclass(frozen=True)
class Averaged:
    """A mean and its counts.

    Attributes:
      value: the mean, NaN if ``count`` is 0.
      count: number of classes, or examples, that are averaged.
      left_out: number of those without a value.
    """

    value: float
    count: int
    left_out: int


def _mean(values: np.ndarray) -> Averaged:
    defined = ~np.isnan(values)
    return Averaged(mean(values[defined]), int(defined.sum()), int((~defined).sum()))


def real_accuracy(scores: np.ndarray, labels: np.ndarray) -> Averaged:
    """Share of examples whose predicted class is one of their labels.

    Examples without labels are left out and counted. Equal scores predict the lowest class; a row
    with NaN predicts none and is wrong. Source: Beyer et al., "Are we done with ImageNet?", 2020
    (ReaL).

    Args:
      scores: (N, K).
      labels: (N, K) bool, or 0 and 1: the set of labels of every example.
    """
    best = predictions(scores)
    labels = booleans("labels", labels, np.shape(scores))
    correct = labels[np.arange(len(best)), best] & (best >= 0)
    labelled = labels.any(1)
    return Averaged(
        mean(correct[labelled].astype(np.float64)), int(labelled.sum()), int((~labelled).sum())
    )


def _known(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, targets = matrix("scores", scores), np.asarray(targets)
    if targets.shape != scores.shape or targets.dtype.kind not in "biu":
        raise ValueError(
            f"targets is {targets.dtype}{list(targets.shape)}; it must be integers "
            f"{list(scores.shape)}, as scores"
        )
    if targets.dtype.kind == "b":
        targets = targets.view(np.int8)
    for problem, invalid in (
        ("targets other than -1, 0 and 1", (targets < -1) | (targets > 1)),
        ("NaN scores", np.isnan(scores) & (targets >= 0)),
        ("scores of plus infinity", np.isposinf(scores) & (targets >= 0)),
    ):
        if invalid.any():
            row, column = (int(i[0]) for i in np.nonzero(invalid))
            raise MetricError(f"{invalid.sum()} {problem}, the first in row {row}, class {column}")
    return scores, targets


def average_precisions(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Average precision of every class over its known examples, float64 (K,).

    The sum over steps of recall, as scikit-learn's; NaN without positives.
    """
    scores, targets = _known(scores, targets)
    return np.array(
        [average_precision(s[t == 1], s[t == 0]) for s, t in zip(scores.T, targets.T, strict=True)]
    )


def mean_average_precision(
    scores: np.ndarray, targets: np.ndarray, average: Average = "macro"
) -> Averaged:
    """mAP: over classes (macro), or of all known cells in one ranking (micro).

    ``count`` and ``left_out`` are classes with and without positives, in both.
    """
    check_choice("average", average, ("macro", "micro"))
    if average == "macro":
        return _mean(average_precisions(scores, targets))
    scores, targets = _known(scores, targets)
    with_positives = int((targets == 1).any(0).sum())
    value = average_precision(scores[targets == 1], scores[targets == 0])
    return Averaged(value, with_positives, targets.shape[1] - with_positives)


def f1_scores(scores: np.ndarray, targets: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    """``2 TP / (2 TP + FP + FN)`` of every class, float64 (K,), 0..1.

    A label is predicted where its score is at or above ``threshold``: 0 for logits, 0.5 for
    probabilities. NaN without positives, where scikit-learn has 0 if there is any false
    positive.
    """
    hit, false, missed = _counts(scores, targets, threshold)
    return np.where(hit + missed > 0, ratio(2 * hit, 2 * hit + false + missed), np.nan)


def f1(
    scores: np.ndarray,
    targets: np.ndarray,
    average: Average = "macro",
    threshold: float = 0.0,
) -> Averaged:
    """F1 averaged over classes that have positives (macro), or of all known cells (micro).

    ``count`` and ``left_out`` are classes with and without positives, in both; micro counts the
    false positives of classes without positives.
    """
    check_choice("average", average, ("macro", "micro"))
    if average == "macro":
        return _mean(f1_scores(scores, targets, threshold))
    hit, false, missed = _counts(scores, targets, threshold)
    with_positives = int((hit + missed > 0).sum())
    true_positives, errors = hit.sum(), false.sum() + missed.sum()
    return Averaged(
        float(ratio(2 * true_positives, 2 * true_positives + errors)),
        with_positives,
        len(hit) - with_positives,
    )


def _counts(scores: np.ndarray, targets: np.ndarray, threshold: float) -> tuple[np.ndarray, ...]:
    """True positives, false positives, false negatives, int64 (K,) each."""
    if math.isnan(threshold):
        raise ValueError("threshold is NaN; it must be a number")
    scores, targets = _known(scores, targets)
    predicted = scores >= threshold
    return (
        (predicted & (targets == 1)).sum(0),
        (predicted & (targets == 0)).sum(0),
        (~predicted & (targets == 1)).sum(0),
    )


@dataclasses.dataclass(frozen=True)
class LabelRanking:
    """How well the classes of an example are ordered, averaged over examples.

    Attributes:
      coverage: rank of the lowest-ranked label of an example, 0..K; 0 if it has none. Equal to
        scikit-learn's ``coverage_error``.
      ranking_loss: share of pairs (label, other class) in which the other scores as much or more,
        0..1; 0 where there is no such pair. ``label_ranking_loss``.
      average_precision: over the labels of an example, the share of labels among the classes that
        score as much or more; 1 where all or none of the classes are labels.
        ``label_ranking_average_precision_score`` (LRAP).
      examples: number of examples with any known cell; the others are left out.
      unlabelled: number of these without positives; they are included as described above.
    """

    coverage: float
    ranking_loss: float
    average_precision: float
    examples: int
    unlabelled: int


def label_ranking(scores: np.ndarray, targets: np.ndarray) -> LabelRanking:
    """Coverage, ranking loss and LRAP. Equal scores are counted against the ranking.

    Source: Tsoumakas et al., "Mining Multi-label Data", 2010.
    """
    scores, targets = _known(scores, targets)
    keep = (targets >= 0).any(1)
    scores, targets = scores[keep], targets[keep]
    coverage, loss, precision = (np.zeros(len(scores)) for _ in range(3))
    labels = (targets == 1).sum(1)
    negatives = (targets == 0).sum(1)
    for rows in blocks(len(scores), 4 * scores.shape[1]):
        # Unknown cells have no weight, so their rank does not matter; NaN sorts last.
        order = np.argsort(scores[rows], axis=1)
        ordered = np.take_along_axis(scores[rows], order, 1)
        target = np.take_along_axis(targets[rows], order, 1)
        group_start = np.ones(ordered.shape, bool)
        group_start[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        start = np.maximum.accumulate(np.where(group_start, np.arange(ordered.shape[1]), 0), axis=1)

        def at_or_above(cells: np.ndarray, start: np.ndarray = start) -> np.ndarray:
            return np.take_along_axis(cells[:, ::-1].cumsum(1)[:, ::-1], start, 1)

        positive = target == 1
        positives_above, negatives_above = at_or_above(positive), at_or_above(target == 0)
        coverage[rows] = np.where(positive, positives_above + negatives_above, 0).max(1)
        loss[rows] = np.where(positive, negatives_above, 0).sum(1)
        precision_at = np.divide(
            positives_above,
            positives_above + negatives_above,
            out=np.zeros(positives_above.shape),
            where=positive,
        )
        precision[rows] = precision_at.sum(1)
    pairs = labels * negatives
    return LabelRanking(
        coverage=mean(coverage),
        ranking_loss=mean(np.divide(loss, pairs, out=np.zeros(len(loss)), where=pairs > 0)),
        average_precision=mean(
            np.divide(precision, labels, out=np.ones(len(loss)), where=pairs > 0)
        ),
        examples=len(loss),
        unlabelled=int((labels == 0).sum()),
    )
