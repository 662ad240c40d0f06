"""Precision, recall and F1, weighted by the examples of every class; the best constant answer."""

from __future__ import annotations

import dataclasses

import numpy as np

from vision.metrics.arrays import mean, ratio, whole


@dataclasses.dataclass(frozen=True)
class ClassificationMetrics:
    """A classifier of one class per example; shares 0..1, NaN without labelled examples.

    Attributes:
      accuracy: equal to the weighted recall, kept for its name.
      precision, recall, f1: means over classes, weighted by their labelled examples;
        a class that is never predicted has precision and F1 of 0, as in scikit-learn's
        ``average="weighted", zero_division=0``.
      majority: accuracy of always answering the most frequent label of these examples.
      examples: labelled.
      unlabelled: the others.
      undefined: labelled without a prediction (-1, from NaN scores): wrong.
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
    """Of ``predicted`` and ``labels``, int (N,), each -1..num_classes-1.

    Raises:
      ValueError: shapes or dtypes.
      MeasureError: a class out of range.
    """
    labels = whole("labels", labels, None, num_classes)
    predicted = whole("predicted", predicted, len(labels), num_classes)
    keep = labels >= 0
    true, found = labels[keep], predicted[keep]
    right = true == found
    support = np.bincount(true, minlength=num_classes)
    said = np.bincount(found[found >= 0], minlength=num_classes)
    hits = np.bincount(true[right], minlength=num_classes)

    def average(part: np.ndarray, of: np.ndarray) -> float:
        return float(ratio((np.nan_to_num(ratio(part, of)) * support).sum(), support.sum()))

    return ClassificationMetrics(
        accuracy=mean(right),
        precision=average(hits, said),
        recall=average(hits, support),
        f1=average(2 * hits, support + said),
        majority=float(ratio(support.max(initial=0), len(true))),
        examples=len(true),
        unlabelled=int((~keep).sum()),
        undefined=int((found < 0).sum()),
    )
