"""Statistical significance: intervals, paired tests, and which predictions changed.

``a`` and ``b`` are the values of two models on the same examples, in the same order: real (N,),
such as 1 for correct and 0 for wrong. NaN among them is a ``MetricError``. NaN without examples.
"""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist

import numpy as np

from vision.metrics.arrays import booleans, check_fraction, class_indices, defined, mean, vector
from vision.metrics.ordinal import kendall, spearman

_DRAWS = 2**22  # indices drawn at a time: 32 MiB
_FEW = 64  # up to so many distinct values, counts are drawn instead of examples


@dataclasses.dataclass(frozen=True)
class ConfidenceInterval:
    """An estimate with the ends of its interval.

    Attributes:
      value: estimate from all examples.
      low, high: ``value`` lies between them, except for skewed bootstraps of very few examples.
      confidence: 0..1, two-sided.
      examples: N.
    """

    value: float
    low: float
    high: float
    confidence: float
    examples: int


def normal_interval(values: np.ndarray, confidence: float = 0.95) -> ConfidenceInterval:
    """The mean of ``values`` (N,) plus and minus ``z s / sqrt(N)``, ``s`` with N - 1.

    The usual interval of few-shot episodes. Its ends are NaN for N < 2.
    """
    check_fraction("confidence", confidence)
    values = defined("values", vector("values", values))
    centre = mean(values)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    half = z * values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return ConfidenceInterval(
        centre, float(centre - half), float(centre + half), confidence, len(values)
    )


def _resampled_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means of ``resamples`` draws of N examples with replacement, float64 (resamples,)."""
    draw = np.random.default_rng(seed)
    n = len(values)
    distinct, count = np.unique(values, return_counts=True)
    if len(distinct) <= _FEW:
        # The counts of each value are multinomial: the same distribution, N times cheaper.
        return draw.multinomial(n, count / n, size=resamples) @ distinct / n
    step = max(1, _DRAWS // n)
    sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
    return np.concatenate([values[draw.integers(0, n, (size, n))].mean(1) for size in sizes])


def bootstrap_interval(
    values: np.ndarray, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> ConfidenceInterval:
    """The mean of ``values`` (N,) with the percentiles of its bootstrap distribution.

    A function of the arguments alone: the same ``seed`` gives the same interval. Source: Efron,
    1979.
    """
    check_fraction("confidence", confidence)
    if resamples < 1:
        raise ValueError(f"resamples={resamples}; at least 1 is needed")
    values = defined("values", vector("values", values), finite=True)
    if not len(values):
        return ConfidenceInterval(math.nan, math.nan, math.nan, confidence, 0)
    means = _resampled_means(values, resamples, seed)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return ConfidenceInterval(mean(values), float(low), float(high), confidence, len(values))


def paired_bootstrap(
    a: np.ndarray,
    b: np.ndarray,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> ConfidenceInterval:
    """``mean(b) - mean(a)`` with its percentile interval.

    Examples are resampled in pairs, so difficulty that both models share cancels. The difference is
    significant at this level if 0 is outside the interval.
    """
    a = vector("a", a)
    b = vector("b", b, len(a))
    return bootstrap_interval(b - a, confidence, resamples, seed)


@dataclasses.dataclass(frozen=True)
class McNemar:
    """McNemar's test of equal error rates of two models on the same examples.

    Attributes:
      only_a, only_b: number of examples that only one of them predicts correctly.
      exact_p: two-sided binomial p-value, 1 if they never differ.
      chi2: ``max(|only_a - only_b| - 1, 0)^2 / (only_a + only_b)``, continuity-corrected, 0 if
        they never differ.
      chi2_p: its p-value, one degree of freedom; for 25 or more differing examples.
    """

    only_a: int
    only_b: int
    exact_p: float
    chi2: float
    chi2_p: float


def mcnemar(a: np.ndarray, b: np.ndarray) -> McNemar:
    """McNemar's test of ``a`` and ``b``, bool (N,) correct predictions. Source: McNemar, 1947."""
    a = booleans("a", a, (None,))
    b = booleans("b", b, (len(a),))
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n = only_a + only_b
    if n == 0:
        return McNemar(0, 0, 1.0, 0.0, 1.0)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(min(only_a, only_b) + 1)
    tail = np.exp(
        log_factorial[n] - log_factorial[k] - log_factorial[n - k] - n * math.log(2)
    ).sum()
    chi2 = max(abs(only_a - only_b) - 1, 0) ** 2 / n
    return McNemar(only_a, only_b, min(1.0, float(2 * tail)), chi2, math.erfc(math.sqrt(chi2 / 2)))


@dataclasses.dataclass(frozen=True, eq=False)
class Changes:
    """Indices of the examples that two models predict differently, int64, ascending.

    Attributes:
      gained: wrong by the first, correct by the second.
      lost: correct by the first, wrong by the second.
      moved: wrong by both, with different classes.
      examples: number of labelled examples.
    """

    gained: np.ndarray
    lost: np.ndarray
    moved: np.ndarray
    examples: int


def changes(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> Changes:
    """Examples whose prediction changed, from predicted classes and labels, int (N,).

    A label of -1 is unlabelled and left out; a prediction of -1 (none, from scores that are not
    finite) is wrong.
    """
    labels = class_indices("labels", labels, None, None)
    before = class_indices("before", before, len(labels), None)
    after = class_indices("after", after, len(labels), None)
    labelled = labels >= 0
    correct_before, correct_after = before == labels, after == labels
    return Changes(
        gained=np.flatnonzero(labelled & ~correct_before & correct_after),
        lost=np.flatnonzero(labelled & correct_before & ~correct_after),
        moved=np.flatnonzero(labelled & ~correct_before & ~correct_after & (before != after)),
        examples=int(labelled.sum()),
    )


@dataclasses.dataclass(frozen=True)
class RankCorrelation:
    """Rank correlation of two models' scores: ``spearman`` and ``kendall`` (tau-b), -1..1.

    Attributes:
      spearman: Spearman's rho, -1..1.
      kendall: Kendall's tau-b, -1..1.
      examples: how many were compared.
    """

    spearman: float
    kendall: float
    examples: int


def rank_correlation(a: np.ndarray, b: np.ndarray) -> RankCorrelation:
    """Rank correlation of two models' scores (N,) of the same examples; NaN if one is constant."""
    return RankCorrelation(spearman(a, b), kendall(a, b), len(a))
