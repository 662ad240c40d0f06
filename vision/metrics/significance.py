"""Is a difference more than chance: intervals, paired tests, and which examples changed.

``a`` and ``b`` are the values that two models got for the same examples, in the same order: real
(N,), such as 1 for right and 0 for wrong. NaN among them is a ``MeasureError``; no examples: NaN.
"""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist

import numpy as np

from vision.metrics.arrays import bits, defined, mean, share, vector, whole
from vision.metrics.ordinal import kendall, spearman

_DRAWS = 2**22  # at a time: 32 MiB of indices
_FEW = 64  # distinct values, for which counts are drawn instead of examples


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval.

    Attributes:
      value: of the examples there are.
      low, high: ``value`` lies between them, but for skewed bootstraps of very few examples.
      confidence: 0..1, two-sided.
      examples: N.
    """

    value: float
    low: float
    high: float
    confidence: float
    examples: int


def normal_interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """The mean of ``values`` (N,) and ``z s / sqrt(N)`` to both sides, ``s`` with N - 1.

    The interval of few-shot episodes. Its ends are NaN for N < 2.
    """
    share("confidence", confidence)
    values = defined("values", vector("values", values))
    centre = mean(values)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    half = z * values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Interval(centre, float(centre - half), float(centre + half), confidence, len(values))


def _resampled_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means of ``resamples`` draws of N examples with replacement, float64 (resamples,)."""
    draw = np.random.default_rng(seed)
    n = len(values)
    distinct, count = np.unique(values, return_counts=True)
    if len(distinct) <= _FEW:
        # How often each value is drawn is multinomial: the same distribution, N times cheaper.
        return draw.multinomial(n, count / n, size=resamples) @ distinct / n
    step = max(1, _DRAWS // n)
    sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
    return np.concatenate([values[draw.integers(0, n, (size, n))].mean(1) for size in sizes])


def bootstrap_interval(
    values: np.ndarray, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of ``values`` (N,) with the percentiles of its bootstrap distribution.

    A function of the arguments alone: the same ``seed`` gives the same interval. Source: Efron,
    1979.
    """
    share("confidence", confidence)
    if resamples < 1:
        raise ValueError(f"resamples={resamples}; at least 1 is needed")
    values = defined("values", vector("values", values), finite=True)
    if not len(values):
        return Interval(math.nan, math.nan, math.nan, confidence, 0)
    means = _resampled_means(values, resamples, seed)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean(values), float(low), float(high), confidence, len(values))


def paired_bootstrap(
    a: np.ndarray,
    b: np.ndarray,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """``mean(b) - mean(a)`` with its percentile interval.

    Examples are drawn, and both models' values with them, so what makes an example hard for both
    cancels. The difference is real at this level when 0 is outside the interval.
    """
    a = vector("a", a)
    b = vector("b", b, len(a))
    return bootstrap_interval(b - a, confidence, resamples, seed)


@dataclasses.dataclass(frozen=True)
class McNemar:
    """Do two models err equally often on the same examples?

    Attributes:
      only_a, only_b: how many examples only one of them has right.
      exact_p: two-sided binomial p-value, 1 where they never differ.
      chi2: ``max(|only_a - only_b| - 1, 0)^2 / (only_a + only_b)``, continuity-corrected, 0 where
        they never differ.
      chi2_p: its p-value, one degree of freedom; for 25 or more differing examples.
    """

    only_a: int
    only_b: int
    exact_p: float
    chi2: float
    chi2_p: float


def mcnemar(a: np.ndarray, b: np.ndarray) -> McNemar:
    """Of ``a`` and ``b`` bool (N,), whether each example is right. Source: McNemar, 1947."""
    a = bits("a", a, (None,))
    b = bits("b", b, (len(a),))
    left, right = int((a & ~b).sum()), int((b & ~a).sum())
    n = left + right
    if n == 0:
        return McNemar(0, 0, 1.0, 0.0, 1.0)
    log = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(min(left, right) + 1)
    tail = np.exp(log[n] - log[k] - log[n - k] - n * math.log(2)).sum()
    chi2 = max(abs(left - right) - 1, 0) ** 2 / n
    return McNemar(left, right, min(1.0, float(2 * tail)), chi2, math.erfc(math.sqrt(chi2 / 2)))


@dataclasses.dataclass(frozen=True, eq=False)
class Changes:
    """Positions of the examples that two models answer differently, int64, rising.

    Attributes:
      gained: wrong by the first, right by the second.
      lost: right by the first, wrong by the second.
      moved: wrong by both, in different ways.
      examples: labelled ones, N.
    """

    gained: np.ndarray
    lost: np.ndarray
    moved: np.ndarray
    examples: int


def changes(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> Changes:
    """Which examples changed, from predicted classes and labels, int (N,).

    A label of -1 is unlabelled and left out; a prediction of -1 (none, from NaN scores) is wrong.
    """
    labels = whole("labels", labels, None, None)
    before = whole("before", before, len(labels), None)
    after = whole("after", after, len(labels), None)
    labelled = labels >= 0
    was, now = before == labels, after == labels
    return Changes(
        gained=np.flatnonzero(labelled & ~was & now),
        lost=np.flatnonzero(labelled & was & ~now),
        moved=np.flatnonzero(labelled & ~was & ~now & (before != after)),
        examples=int(labelled.sum()),
    )


@dataclasses.dataclass(frozen=True)
class RankCorrelation:
    """Do two models find the same examples hard? ``spearman`` and ``kendall`` (tau-b), -1..1."""

    spearman: float
    kendall: float
    examples: int


def rank_correlation(a: np.ndarray, b: np.ndarray) -> RankCorrelation:
    """Of two models' scores (N,) of the same examples; NaN where one of them is constant."""
    return RankCorrelation(spearman(a, b), kendall(a, b), len(a))
