"""Label sets per example: variable-k accuracy, by set size, and what differs between two data sets.

The metrics of "Re-assessing ImageNet: how aligned is its single-label assumption with its
multi-label nature?", 2024. The accuracy of examples without labels is NaN; they are left out and
counted.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from vision.metrics.arrays import (
    blocks,
    booleans,
    check_choice,
    class_indices,
    matrix,
    mean,
    ratio,
    undefined_rows,
    vector,
)

Weights = Literal["uniform", "size"]


def variable_k(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """``|top k classes and labels| / k`` of every example with ``k`` labels, float64 (N,).

    With one label it is top-1. Equal scores rank by class index. 0 for ``undefined_rows``. NaN
    without labels.

    Args:
      scores: real (N, K).
      labels: (N, K) bool, or 0 and 1.

    Raises:
      ValueError: shapes or dtypes.
    """
    scores = matrix("scores", scores)
    labels = booleans("labels", labels, scores.shape)
    classes = scores.shape[1]
    sizes, hits = labels.sum(1), np.zeros(len(scores), np.int64)
    for rows in blocks(len(scores), 4 * classes):
        # Ascending sort of the reversed columns, read backwards: ties are in order of class index.
        ascending = np.argsort(scores[rows, ::-1], axis=1, kind="stable")
        order = classes - 1 - ascending[:, ::-1]
        top = np.arange(classes) < sizes[rows, None]
        hits[rows] = (np.take_along_axis(labels[rows], order, 1) & top).sum(1)
    return ratio(np.where(undefined_rows(scores), 0, hits), sizes)


@dataclasses.dataclass(frozen=True, eq=False)
class BySize:
    """Accuracy ``A_k`` of the examples with ``k`` labels, ``k`` = 1..G.

    Attributes:
      accuracy: float64 (G,), mean of variable-k; NaN where there are no examples.
      count: int64 (G,).
      left_out: examples without labels, or with more than G.
    """

    accuracy: np.ndarray
    count: np.ndarray
    left_out: int

    @property
    def share(self) -> np.ndarray:
        """``p_k``, float64 (G,), sums to 1; NaN without examples."""
        return ratio(self.count, self.count.sum())

    @property
    def overall(self) -> float:
        """``sum_k p_k A_k``: the mean over examples."""
        return self.asma("size")

    def asma(self, weights: Weights = "uniform") -> float:
        """Average subgroup multi-label accuracy: the mean of ``A_k`` over sizes that occur.

        ``uniform`` weights all sizes equally, ``size`` by their number of examples. NaN without
        examples.
        """
        check_choice("weights", weights, ("uniform", "size"))
        occurring = self.count > 0
        if weights == "uniform" or not occurring.any():
            return mean(self.accuracy[occurring])
        return float(np.average(self.accuracy[occurring], weights=self.count[occurring]))


def by_size(accuracy: np.ndarray, sizes: np.ndarray, largest: int) -> BySize:
    """``accuracy`` (N,) of examples with ``sizes`` labels, int (N,), by sizes 1..``largest``.

    Raises:
      ValueError: shapes, dtypes, or ``largest`` below 1.
      MetricError: a size below -1.
    """
    if largest < 1:
        raise ValueError(f"largest={largest}; it must be 1 or more")
    accuracy = vector("accuracy", accuracy)
    sizes = class_indices("sizes", sizes, len(accuracy), None)
    in_range = (sizes >= 1) & (sizes <= largest)
    index = sizes[in_range] - 1
    count = np.bincount(index, minlength=largest)
    total = np.bincount(index, accuracy[in_range], minlength=largest)
    return BySize(ratio(total, count), count, int((~in_range).sum()))


@dataclasses.dataclass(frozen=True)
class MixAndRate:
    """Mix-rate decomposition of an accuracy difference: ``mix + rate`` is ``difference``.

    Attributes:
      difference: ``sum_k p_k A_k - p'_k A'_k``, of the first set minus the second.
      mix: due to different shares of label counts: ``sum_k (p_k - p'_k) (A_k + A'_k) / 2``.
      rate: due to different accuracies at equal counts: ``sum_k (A_k - A'_k) (p_k + p'_k) / 2``.
    """

    difference: float
    mix: float
    rate: float


def mix_and_rate(first: BySize, second: BySize) -> MixAndRate:
    """The decomposition averaged over both orders of changing mix and rate.

    A size that only one set has contributes to mix alone. NaN if one set has no examples.

    Raises:
      ValueError: the sets have different largest sizes.
    """
    if len(first.count) != len(second.count):
        raise ValueError(
            f"first has sizes up to {len(first.count)}, second up to {len(second.count)}; "
            "use the same largest for both"
        )
    occurring = (first.count > 0) | (second.count > 0)
    p, q = first.share[occurring], second.share[occurring]
    a, b = first.accuracy[occurring], second.accuracy[occurring]
    a, b = np.where(np.isnan(a), b, a), np.where(np.isnan(b), a, b)
    if not first.count.any() or not second.count.any():
        return MixAndRate(float("nan"), float("nan"), float("nan"))
    return MixAndRate(
        difference=float((p * a).sum() - (q * b).sum()),
        mix=float(((p - q) * (a + b) / 2).sum()),
        rate=float(((a - b) * (p + q) / 2).sum()),
    )
