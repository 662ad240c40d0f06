"""Accuracy per group with intervals; the worst group; head, medium and tail classes."""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist

import numpy as np

from vision.metrics.arrays import booleans, check_fraction, class_indices, ratio


def wilson_interval(
    successes: np.ndarray, trials: np.ndarray, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of Wilson's score interval of a proportion, float64, 0..1.

    The proportions that a normal test at this level does not reject: unlike the normal interval it
    stays inside 0..1 and has positive width if all or none succeed. NaN without trials. Source:
    Wilson, 1927; without continuity correction, as statsmodels'
    ``proportion_confint(method="wilson")``.

    Args:
      successes, trials: integers of one shape, ``0 <= successes <= trials``.
      confidence: two-sided, between 0 and 1.
    """
    check_fraction("confidence", confidence)
    successes, trials = np.asarray(successes), np.asarray(trials)
    if ((successes < 0) | (successes > trials)).any():
        raise ValueError("successes must lie in 0..trials")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = ratio(successes, trials)
    n = np.where(trials > 0, trials, 1)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = np.where(successes == 0, np.minimum(p, 0), np.maximum(centre - half, 0))
    high = np.where(successes == trials, np.maximum(p, 1), np.minimum(centre + half, 1))
    return low, high


@dataclasses.dataclass(frozen=True, eq=False)
class GroupAccuracy:
    """Accuracy of every group.

    Attributes:
      accuracy, low, high: float64 (G,) with the interval's ends, NaN for groups without examples.
      count: int64 (G,), examples per group.
      left_out: number of examples in no group.
    """

    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    left_out: int

    @property
    def worst(self) -> int:
        """Index of the group of lowest accuracy with examples, the first among ties; -1 if none."""
        return int(np.nanargmin(self.accuracy)) if self.count.any() else -1

    @property
    def worst_accuracy(self) -> float:
        return float(self.accuracy[self.worst]) if self.count.any() else math.nan

    @property
    def gap(self) -> float:
        """Accuracy of the best group minus that of the worst, 0..1."""
        return (
            float(np.nanmax(self.accuracy)) - self.worst_accuracy if self.count.any() else math.nan
        )

    @property
    def mean(self) -> float:
        """Unweighted mean over groups with examples.

        With classes as groups: balanced accuracy.
        """
        return float(np.nanmean(self.accuracy)) if self.count.any() else math.nan

    @property
    def overall(self) -> float:
        """The accuracy of all examples that are in a group."""
        return float(ratio(np.nansum(self.accuracy * self.count), self.count.sum()))


def group_accuracy(
    correct: np.ndarray, groups: np.ndarray, num_groups: int, confidence: float = 0.95
) -> GroupAccuracy:
    """Accuracy per group with Wilson intervals.

    Args:
      correct: bool (N,), or 0 and 1.
      groups: int (N,), -1 for an example of no group.
      num_groups: G, 1 or more; groups without examples are kept.

    Raises:
      ValueError: shapes or dtypes.
      MetricError: a group outside -1..G-1.
    """
    if num_groups < 1:
        raise ValueError(f"num_groups={num_groups}; at least 1 is needed")
    correct = booleans("correct", correct, (None,))
    groups = class_indices("groups", groups, len(correct), num_groups)
    grouped = groups >= 0
    count = np.bincount(groups[grouped], minlength=num_groups)
    hits = np.bincount(groups[grouped & correct], minlength=num_groups)
    low, high = wilson_interval(hits, count, confidence)
    return GroupAccuracy(ratio(hits, count), low, high, count, int((~grouped).sum()))


TAIL_NAMES = ("head", "medium", "tail")


def tail_split(train_counts: np.ndarray, head_above: int = 100, tail_below: int = 20) -> np.ndarray:
    """Part of the long tail of every class: 0 head, 1 medium, 2 tail, int64 (K,).

    Head classes have more than ``head_above`` training examples, tail fewer than ``tail_below``:
    more than 100, 20 to 100, fewer than 20 are many, medium and few shot of Liu et al.,
    "Large-Scale Long-Tailed Recognition in an Open World", 2019. ``tail_split(counts)[labels]`` are
    groups for ``group_accuracy`` (where labels are -1, set -1).

    Args:
      train_counts: int (K,), 0 or more.
    """
    if not 0 <= tail_below <= head_above + 1:
        raise ValueError(f"tail_below={tail_below} must be in 0..{head_above + 1} (head_above + 1)")
    train_counts = np.asarray(train_counts)
    if train_counts.ndim != 1 or train_counts.dtype.kind not in "iu" or (train_counts < 0).any():
        raise ValueError("train_counts must be integers (K,), 0 or more")
    return np.where(train_counts > head_above, 0, np.where(train_counts < tail_below, 2, 1))
