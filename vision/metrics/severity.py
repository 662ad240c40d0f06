"""Sweeps over a nuisance's strength: where each picture first fails, whose rank changes, which
pictures still show their class.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from vision.metrics.arrays import MetricError, bits, defined, matrix, mean, vector
from vision.metrics.ordinal import spearman


@dataclasses.dataclass(frozen=True, eq=False)
class Failures:
    """Where trajectories fail first.

    Attributes:
      first: int64 (N,), place in the scales of the first wrong answer; S where there is none.
      count: int64 (S + 1,), trajectories that fail first at each scale, and last those that never
        do; they add up to N.
      mean: the mean scale of failure, where never failing counts as ``beyond``; NaN of none.
    """

    first: np.ndarray
    count: np.ndarray
    mean: float


def failure_points(right: np.ndarray, scales: np.ndarray, beyond: float) -> Failures:
    """First wrong answers along trajectories.

    An answer that is right again later does not mend the failure. Source: Duenkel et al.,
    CNS-Bench, 2025.

    Args:
      right: bool (N, S), whether the answer about example n at scale s is right.
      scales: real (S,), rising.
      beyond: the scale that stands for no failure, above all others; 3 in the paper, after 2.5.

    Raises:
      ValueError: shapes, or scales that do not rise to ``beyond``.
    """
    scales = vector("scales", scales)
    right = bits("right", right, (None, len(scales)))
    every = np.append(scales, beyond)
    if not len(scales) or not (np.diff(every) > 0).all():
        raise ValueError(f"scales={scales.tolist()}, beyond={beyond}: they must rise")
    first = np.where(right.all(1), len(scales), (~right).argmax(1)).astype(np.int64)
    return Failures(first, np.bincount(first, minlength=len(every)), mean(every[first]))


def rank_correlations(accuracy: np.ndarray) -> np.ndarray:
    """Do models keep their ranks? Of accuracies (M, S), Spearman's (S, S) between scales.

    NaN where all models are equal at a scale.

    Raises:
      MeasureError: NaN among the accuracies.
    """
    columns = defined("accuracy", matrix("accuracy", accuracy)).T
    return np.asarray([[spearman(a, b) for b in columns] for a in columns])


def swapped_pairs(accuracy: np.ndarray) -> int:
    """How many pairs of models, of accuracies (M, S), are in one order at a scale and in the other
    at another. Equal accuracies are no order.

    Raises:
      MeasureError: NaN among the accuracies.
    """
    found = defined("accuracy", matrix("accuracy", accuracy))
    first, second = np.triu_indices(len(found), 1)
    apart = np.sign(found[first] - found[second])
    return int(((apart > 0).any(1) & (apart < 0).any(1)).sum())


def on_class(scores: np.ndarray, thresholds: np.ndarray, least: int = 2) -> np.ndarray:
    """Which pictures still show their class, bool (N,): at least ``least`` scores are enough.

    Args:
      scores: real (N, K), such as similarities of a picture to its class's name, to that with the
        nuisance, and to a reference picture by two encoders. NaN is not enough.
      thresholds: real (K,); a score above its threshold is enough.
      least: 1..K.
    """
    scores = matrix("scores", scores)
    thresholds = vector("thresholds", thresholds, scores.shape[1])
    if not 1 <= least <= scores.shape[1]:
        raise ValueError(f"least={least}: there are {scores.shape[1]} scores")
    return (scores > thresholds).sum(1) >= least


def fit_thresholds(
    scores: np.ndarray, good: np.ndarray, removed: float = 0.9, least: int = 2
) -> np.ndarray:
    """Thresholds (K,) for ``on_class`` that remove a share of the pictures known to be off class.

    All are the same quantile of their score among the pictures off class, the smallest that does
    it, so that as much as possible of the rest is kept.

    Args:
      scores: real (N, K).
      good: bool (N,), pictures that show their class.
      removed: share of the others to remove at least, 0..1.
      least: as in ``on_class``.

    Raises:
      MeasureError: NaN among the scores, or no picture off class.
    """
    scores = defined("scores", matrix("scores", scores))
    good = bits("good", good, (len(scores),))
    if not 0 <= removed <= 1:
        raise ValueError(f"removed={removed}: a share in 0..1")
    off = scores[~good]
    if not len(off):
        raise MetricError("good: no picture is off class, so no threshold can be fitted")
    wanted = math.ceil(removed * len(off) - 1e-9)
    rising = np.sort(off, axis=0).astype(np.float64)
    levels = np.concatenate([np.nextafter(rising[:1], -np.inf), rising])
    low, high = 0, len(off)
    # A higher quantile never keeps more, so the smallest one is found by halving.
    while low < high:
        middle = (low + high) // 2
        if (~on_class(off, levels[middle], least)).sum() >= wanted:
            high = middle
        else:
            low = middle + 1
    return levels[low]


def whole_trajectories(kept: np.ndarray) -> np.ndarray:
    """Trajectories, of bool (N, S), that are kept at every scale: bool (N,).

    Others would let the examples differ from scale to scale.
    """
    return np.asarray(bits("kept", kept, (None, None)).all(1))
