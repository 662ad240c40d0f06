"""Ordered classes, real targets, and correlation of ranks.

Examples with a label or prediction of -1 are left out of ordinal metrics and counted; NaN among
real numbers is a ``MetricError``. Without examples, or of constants, the result is NaN.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from vision.metrics.arrays import class_indices, defined, mean, ratio, vector


@dataclasses.dataclass(frozen=True)
class OrdinalAccuracy:
    """Predictions of ordered classes 0..K-1.

    Attributes:
      mean_absolute_error: mean ``|predicted - true|`` in classes.
      off_by_one: share of predictions at most one class away, 0..1.
      kappa: quadratic-weighted, -1..1; NaN where all labels and predictions are one class.
      spearman, kendall: rank correlations of labels and predictions, -1..1 (tau-b).
      examples: number of examples with label and prediction.
      left_out: number of the others.
    """

    mean_absolute_error: float
    off_by_one: float
    kappa: float
    spearman: float
    kendall: float
    examples: int
    left_out: int


def ordinal_accuracy(
    predicted: np.ndarray, labels: np.ndarray, num_classes: int
) -> OrdinalAccuracy:
    """Metrics of ``predicted`` and ``labels``, int (N,), each -1..num_classes-1.

    Raises:
      ValueError: shapes or dtypes.
      MetricError: a class out of range.
    """
    labels = class_indices("labels", labels, None, num_classes)
    predicted = class_indices("predicted", predicted, len(labels), num_classes)
    keep = (labels >= 0) & (predicted >= 0)
    true, best = labels[keep], predicted[keep]
    errors = np.abs(true - best)
    return OrdinalAccuracy(
        mean_absolute_error=mean(errors),
        off_by_one=mean(errors <= 1),
        kappa=quadratic_kappa(best, true),
        spearman=spearman(true, best),
        kendall=kendall(true, best),
        examples=len(true),
        left_out=int((~keep).sum()),
    )


def quadratic_kappa(a: np.ndarray, b: np.ndarray) -> float:
    """Cohen's kappa of two ratings (N,) with weights ``(a - b)^2``, -1..1.

    ``1 - E[(a - b)^2] / E[(a' - b')^2]``, where ``a'`` and ``b'`` are drawn independently of each
    other: scikit-learn's ``cohen_kappa_score(weights="quadratic")`` for classes that are evenly
    spaced (which scikit-learn assumes of the classes that occur). NaN if both are the same
    constant. Source: Cohen, 1968.
    """
    a = defined("a", vector("a", a), finite=True)
    b = defined("b", vector("b", b, len(a)), finite=True)
    if not len(a):
        return math.nan
    by_chance = a.var() + b.var() + (a.mean() - b.mean()) ** 2
    return float(1 - np.square(a - b).mean() / by_chance) if by_chance > 0 else math.nan


def average_ranks(x: np.ndarray) -> np.ndarray:
    """Ranks 1..N of ``x`` (N,), float64 (N,); equal values get the mean of their ranks."""
    _, index, count = np.unique(x, return_inverse=True, return_counts=True)
    cumulative = np.cumsum(count)
    return (cumulative - (count - 1) / 2)[index]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two vectors (N,), -1..1: Pearson's of average ranks.

    NaN where N < 2 or one of them is constant.
    """
    a = average_ranks(defined("a", vector("a", a)))
    b = average_ranks(defined("b", vector("b", b, len(a))))
    if len(a) < 2:
        return math.nan
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(a @ a) * math.sqrt(b @ b)
    return float(np.clip(a @ b / scale, -1, 1)) if scale > 0 else math.nan


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b of two vectors (N,), -1..1, ties accounted for, in O(N log N).

    ``(C - D) / sqrt((P - ties in a) (P - ties in b))`` over the ``P`` pairs. NaN where N < 2 or one
    of them is constant. Source: Kendall, 1945.
    """
    a = defined("a", vector("a", a))
    b = defined("b", vector("b", b, len(a)))
    a, b = (np.unique(x, return_inverse=True)[1] for x in (a, b))
    order = np.lexsort((b, a))
    a, b = a[order], b[order]

    def tied(key: np.ndarray) -> int:
        count = np.unique(key, return_counts=True)[1]
        return int((count * (count - 1) // 2).sum())

    n = len(a)
    pairs = n * (n - 1) // 2
    in_a, in_b = tied(a), tied(b)
    if pairs == 0 or pairs in (in_a, in_b):
        return math.nan
    in_both = tied(a * (int(b.max()) + 1) + b)
    discordant = inversions(b)
    concordant = pairs - in_a - in_b + in_both - discordant
    scale = math.sqrt(pairs - in_a) * math.sqrt(pairs - in_b)
    return max(-1.0, min(1.0, (concordant - discordant) / scale))


def inversions(x: np.ndarray) -> int:
    """Number of pairs ``i < j`` that have ``x[i] > x[j]``; ``x`` (N,) integers, 0 or more.

    Bit by bit from the highest: pairs that agree in all higher bits and differ in this one.
    """
    x = np.asarray(x, np.int64)
    total = 0
    for bit in range(int(x.max(initial=0)).bit_length() - 1, -1, -1):
        # Stable: within a group of equal higher bits, the order is still that of the input.
        x = x[np.argsort(x >> (bit + 1), kind="stable")]
        group, bit_value = x >> (bit + 1), (x >> bit) & 1
        ones = np.cumsum(bit_value) - bit_value
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        ones_before = ones - np.repeat(ones[starts], np.diff(np.append(starts, len(x))))
        total += int(ones_before[bit_value == 0].sum())
    return total


@dataclasses.dataclass(frozen=True)
class RegressionMetrics:
    """Real predictions against real targets, in the targets' unit.

    Attributes:
      mean_absolute_error, root_mean_square_error: 0 is best.
      r2: ``1 - sum (y - p)^2 / sum (y - mean y)^2``, at most 1; NaN for constant targets.
      examples: number of examples with a target.
      left_out: number of examples with a NaN target.
    """

    mean_absolute_error: float
    root_mean_square_error: float
    r2: float
    examples: int
    left_out: int


def regression(predicted: np.ndarray, targets: np.ndarray) -> RegressionMetrics:
    """Metrics of ``predicted`` and ``targets``, real (N,); NaN targets are unknown and left out.

    Raises:
      ValueError: shapes or dtypes.
      MetricError: a NaN prediction with a known target.
    """
    targets = vector("targets", targets)
    predicted = vector("predicted", predicted, len(targets))
    known = ~np.isnan(targets)
    y, p = targets[known], defined("predicted", predicted[known])
    squared = np.square(y - p)
    varies = len(y) > 0 and np.ptp(y) > 0
    spread = np.square(y - mean(y)).sum() if varies else 0.0
    return RegressionMetrics(
        mean_absolute_error=mean(np.abs(y - p)),
        root_mean_square_error=math.sqrt(mean(squared)) if len(y) else math.nan,
        r2=float(1 - ratio(squared.sum(), spread)),
        examples=len(y),
        left_out=int((~known).sum()),
    )
