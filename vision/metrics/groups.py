"""Accuracy by group, with intervals; the worst group; the head and the tail of a long tail."""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist

import numpy as np

from vision.metrics.arrays import bits, ratio, share, whole


def wilson_interval(
    successes: np.ndarray, trials: np.ndarray, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of Wilson's score interval of a share, float64, 0..1.

    The shares that a normal test at this level does not reject: it stays inside 0..1 and has a
    width where all or none succeed, unlike the normal interval. NaN of no trials. Source: Wilson,
    1927; without continuity correction, as statsmodels' ``proportion_confint(method="wilson")``.

    Args:
      successes, trials: integers of one shape, ``0 <= successes <= trials``.
      confidence: two-sided, between 0 and 1.
    """
    share("confidence", confidence)
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
      left_out: how many examples are in no group.
    """

    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    left_out: int

    @property
    def worst(self) -> int:
        """The group of least accuracy among those with examples, the lowest of equals; or -1."""
        return int(np.nanargmin(self.accuracy)) if self.count.any() else -1

    @property
    def worst_accuracy(self) -> float:
        return float(self.accuracy[self.worst]) if self.count.any() else math.nan

    @property
    def gap(self) -> float:
        """Accuracy of the best group less that of the worst, 0..1."""
        return (
            float(np.nanmax(self.accuracy)) - self.worst_accuracy if self.count.any() else math.nan
        )

    @property
    def mean(self) -> float:
        """The groups' average, each counting the same; groups without examples are left out.

        Of classes as groups: balanced accuracy.
        """
        return float(np.nanmean(self.accuracy)) if self.count.any() else math.nan

    @property
    def overall(self) -> float:
        """The accuracy of all examples that are in a group."""
        return float(ratio(np.nansum(self.accuracy * self.count), self.count.sum()))


def group_accuracy(
    right: np.ndarray, groups: np.ndarray, num_groups: int, confidence: float = 0.95
) -> GroupAccuracy:
    """Accuracy per group with Wilson intervals.

    Args:
      right: bool (N,), or 0 and 1.
      groups: int (N,), -1 for an example of no group.
      num_groups: G, 1 or more; groups that no example is in are kept.

    Raises:
      ValueError: shapes or dtypes.
      MeasureError: a group outside -1..G-1.
    """
    if num_groups < 1:
        raise ValueError(f"num_groups={num_groups}; at least 1 is needed")
    right = bits("right", right, (None,))
    groups = whole("groups", groups, len(right), num_groups)
    inside = groups >= 0
    count = np.bincount(groups[inside], minlength=num_groups)
    hits = np.bincount(groups[inside & right], minlength=num_groups)
    low, high = wilson_interval(hits, count, confidence)
    return GroupAccuracy(ratio(hits, count), low, high, count, int((~inside).sum()))


TAIL_NAMES = ("head", "medium", "tail")


def tail_split(train_counts: np.ndarray, head_above: int = 100, tail_below: int = 20) -> np.ndarray:
    """Which part of a long tail every class is in: 0 head, 1 medium, 2 tail, int64 (K,).

    Head has more than ``head_above`` training examples, tail fewer than ``tail_below``, also none:
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
