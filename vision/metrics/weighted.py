"""Precision, recall and F1 weighted by the support of every class; the majority baseline."""

from __future__ import annotations

import dataclasses

import numpy as np

from vision.metrics.arrays import class_indices, mean, ratio


@dataclasses.dataclass(frozen=True)
class ClassificationMetrics:
    """Metrics of single-label classification, 0..1; NaN without labelled examples.

    Attributes:
      accuracy: equal to the weighted recall.
      precision, recall, f1: means over classes, weighted by their labelled examples;
        a class that is never predicted has precision and F1 of 0, as in scikit-learn's
        ``average="weighted", zero_division=0``.
      majority: accuracy of always predicting the most frequent label of these examples.
      examples: number of labelled examples.
      unlabelled: number of the others.
      undefined: number of labelled examples without a prediction (-1, from scores that are not
        finite): wrong.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    majority: float
    examples: int
    unlabelled: int
    undefined: int


def weighted(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> ClassificationMetrics:
    """Metrics of ``predicted`` and ``labels``, int (N,), each -1..num_classes-1.

    Raises:
      ValueError: shapes or dtypes.
      MetricError: a class out of range.
    """
    labels = class_indices("labels", labels, None, num_classes)
    predicted = class_indices("predicted", predicted, len(labels), num_classes)
    keep = labels >= 0
    true, best = labels[keep], predicted[keep]
    correct = true == best
    support = np.bincount(true, minlength=num_classes)
    predictions_per_class = np.bincount(best[best >= 0], minlength=num_classes)
    hits = np.bincount(true[correct], minlength=num_classes)

    def average(part: np.ndarray, of: np.ndarray) -> float:
        return float(ratio((np.nan_to_num(ratio(part, of)) * support).sum(), support.sum()))

    return ClassificationMetrics(
        accuracy=mean(correct),
        precision=average(hits, predictions_per_class),
        recall=average(hits, support),
        f1=average(2 * hits, support + predictions_per_class),
        majority=float(ratio(support.max(initial=0), len(true))),
        examples=len(true),
        unlabelled=int((~keep).sum()),
        undefined=int((best < 0).sum()),
    )
