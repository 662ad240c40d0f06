"""Sets of labels per example: accuracy at the size of the set, by size, and why two sets differ.

The measures of "Re-assessing ImageNet: how aligned is its single-label assumption with its
multi-label nature?", 2024. Examples without labels have no accuracy: NaN, left out, counted.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from vision.metrics.arrays import bits, blocks, matrix, mean, of_choice, ratio, vector, whole

Weights = Literal["uniform", "size"]


def variable_k(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of every example, ``|best k classes and labels| / k`` for its ``k`` labels, float64 (N,).

    One label: top-1. Equal scores rank by class index. A row with NaN among its scores predicts
    nothing: 0. NaN where there are no labels.

    Args:
      scores: real (N, K).
      labels: (N, K) bool, or 0 and 1.

    Raises:
      ValueError: shapes or dtypes.
    """
    scores = matrix("scores", scores)
    labels = bits("labels", labels, scores.shape)
    classes = scores.shape[1]
    sizes, hits = labels.sum(1), np.zeros(len(scores), np.int64)
    for rows in blocks(len(scores), 4 * classes):
        # Rising sort of the reversed columns, read backwards: ties come out by rising class.
        rising = np.argsort(scores[rows, ::-1], axis=1, kind="stable")
        order = classes - 1 - rising[:, ::-1]
        within = np.arange(classes) < sizes[rows, None]
        hits[rows] = (np.take_along_axis(labels[rows], order, 1) & within).sum(1)
    return ratio(np.where(np.isnan(scores).any(1), 0, hits), sizes)


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

        ``uniform`` counts every size the same, ``size`` by its examples. NaN without examples.
        """
        of_choice("weights", weights, ("uniform", "size"))
        some = self.count > 0
        if weights == "uniform" or not some.any():
            return mean(self.accuracy[some])
        return float(np.average(self.accuracy[some], weights=self.count[some]))


def by_size(accuracy: np.ndarray, sizes: np.ndarray, largest: int) -> BySize:
    """``accuracy`` (N,) of examples with ``sizes`` labels, int (N,), by sizes 1..``largest``.

    Raises:
      ValueError: shapes, dtypes, or ``largest`` below 1.
      MeasureError: a size below -1.
    """
    if largest < 1:
        raise ValueError(f"largest={largest}; it must be 1 or more")
    accuracy = vector("accuracy", accuracy)
    sizes = whole("sizes", sizes, len(accuracy), None)
    inside = (sizes >= 1) & (sizes <= largest)
    place = sizes[inside] - 1
    count = np.bincount(place, minlength=largest)
    total = np.bincount(place, accuracy[inside], minlength=largest)
    return BySize(ratio(total, count), count, int((~inside).sum()))


@dataclasses.dataclass(frozen=True)
class MixAndRate:
    """Why the accuracy of two sets differs; ``mix + rate`` is ``difference``.

    Attributes:
      difference: ``sum_k p_k A_k - p'_k A'_k``, of the first set less the second.
      mix: what other shares of label counts do: ``sum_k (p_k - p'_k) (A_k + A'_k) / 2``.
      rate: what other accuracies at equal counts do: ``sum_k (A_k - A'_k) (p_k + p'_k) / 2``.
    """

    difference: float
    mix: float
    rate: float


def mix_and_rate(first: BySize, second: BySize) -> MixAndRate:
    """Splits the difference of two sets evenly between both orders of changing mix and rate.

    A size that only one set has cannot differ in accuracy: all of it is mix. NaN where one set has
    no examples.

    Raises:
      ValueError: sizes up to other numbers.
    """
    if len(first.count) != len(second.count):
        raise ValueError(
            f"first has sizes up to {len(first.count)}, second up to {len(second.count)}; "
            "use the same largest for both"
        )
    some = (first.count > 0) | (second.count > 0)
    p, q = first.share[some], second.share[some]
    a, b = first.accuracy[some], second.accuracy[some]
    a, b = np.where(np.isnan(a), b, a), np.where(np.isnan(b), a, b)
    if not first.count.any() or not second.count.any():
        return MixAndRate(float("nan"), float("nan"), float("nan"))
    return MixAndRate(
        difference=float((p * a).sum() - (q * b).sum()),
        mix=float(((p - q) * (a + b) / 2).sum()),
        rate=float(((a - b) * (p + q) / 2).sum()),
    )
