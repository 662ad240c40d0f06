"""Sweeps over the strength of a nuisance: first failures, changes of models' ranks, and which
images still show their class.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from vision.metrics.arrays import MetricError, booleans, defined, matrix, mean, vector
from vision.metrics.ordinal import spearman


@dataclasses.dataclass(frozen=True, eq=False)
class Failures:
    """First failures of trajectories.

    Attributes:
      first: int64 (N,), index of the scale of the first wrong prediction; S if there is none.
      count: int64 (S + 1,), number of trajectories that fail first at each scale, then of those
        that never fail; sums to N.
      mean: mean scale of the first failure, ``beyond`` if there is none; NaN without examples.
    """

    first: np.ndarray
    count: np.ndarray
    mean: float


def failure_points(correct: np.ndarray, scales: np.ndarray, beyond: float) -> Failures:
    """First wrong predictions along trajectories.

    Correct predictions after the first wrong one do not change it. Source: Duenkel et al.,
    CNS-Bench, 2025.

    Args:
      correct: bool (N, S), whether the prediction of example n at scale s is correct.
      scales: real (S,), increasing.
      beyond: the scale that stands for no failure, above all others; 3 in the paper, after 2.5.

    Raises:
      ValueError: shapes, or scales that do not increase up to ``beyond``.
    """
    scales = vector("scales", scales)
    correct = booleans("correct", correct, (None, len(scales)))
    all_scales = np.append(scales, beyond)
    if not len(scales) or not (np.diff(all_scales) > 0).all():
        raise ValueError(f"scales={scales.tolist()}, beyond={beyond}: they must increase")
    first = np.where(correct.all(1), len(scales), (~correct).argmax(1)).astype(np.int64)
    return Failures(first, np.bincount(first, minlength=len(all_scales)), mean(all_scales[first]))


def rank_correlations(accuracy: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation (S, S) of M models between scales, from accuracies (M, S).

    NaN where all models are equal at a scale.

    Raises:
      MetricError: NaN among the accuracies.
    """
    columns = defined("accuracy", matrix("accuracy", accuracy)).T
    return np.asarray([[spearman(a, b) for b in columns] for a in columns])


def on_class(scores: np.ndarray, thresholds: np.ndarray, least: int = 2) -> np.ndarray:
    """Which images still show their class, bool (N,): at least ``least`` scores exceed theirs.

    Args:
      scores: real (N, K), such as similarities of an image to its class's name, to that with the
        nuisance, and to a reference image by two encoders. NaN exceeds nothing.
      thresholds: real (K,), one per score.
      least: 1..K.
    """
    scores = matrix("scores", scores)
    thresholds = vector("thresholds", thresholds, scores.shape[1])
    if not 1 <= least <= scores.shape[1]:
        raise ValueError(f"least={least}: there are {scores.shape[1]} scores")
    return (scores > thresholds).sum(1) >= least


def fit_thresholds(
    scores: np.ndarray, shows_class: np.ndarray, removed: float = 0.9, least: int = 2
) -> np.ndarray:
    """Thresholds (K,) for ``on_class`` that remove a share of the images known to be off class.

    All are the same quantile of their score among the images off class, the smallest that
    suffices, so that as many other images as possible are kept.

    Args:
      scores: real (N, K).
      shows_class: bool (N,), images that show their class.
      removed: minimum share of the other images to remove, 0..1.
      least: as in ``on_class``.

    Raises:
      MetricError: NaN among the scores, or no image off class.
    """
    scores = defined("scores", matrix("scores", scores))
    shows_class = booleans("shows_class", shows_class, (len(scores),))
    if not 0 <= removed <= 1:
        raise ValueError(f"removed={removed}: a share in 0..1")
    off_class = scores[~shows_class]
    if not len(off_class):
        raise MetricError("shows_class: no image is off class, so no threshold can be fitted")
    to_remove = math.ceil(removed * len(off_class) - 1e-9)
    ascending = np.sort(off_class, axis=0).astype(np.float64)
    candidates = np.concatenate([np.nextafter(ascending[:1], -np.inf), ascending])
    low, high = 0, len(off_class)
    # A higher quantile never keeps more: bisection finds the smallest one.
    while low < high:
        middle = (low + high) // 2
        if (~on_class(off_class, candidates[middle], least)).sum() >= to_remove:
            high = middle
        else:
            low = middle + 1
    return candidates[low]
