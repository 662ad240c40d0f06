"""Metrics of machine unlearning: accuracies and a membership inference attack.

With the forget set F, the retained training examples R, and a test set T:

    ua   1 - accuracy on F
    mia  share of F that a membership attack classifies as non-members: the confidence in the true
         class is below the threshold that best separates R from T
    ra   accuracy on R
    ta   accuracy on T

The target of each metric is its value for a network retrained on R alone: ``average_gap``.

Liu et al., Model sparsity can simplify machine unlearning, 2023; their attacker is a support vector
machine with a Gaussian kernel on the same confidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from vision.metrics.arrays import MetricError, booleans, defined, matrix, vector


def unlearning(
    log_probabilities: np.ndarray,
    labels: np.ndarray,
    forget: np.ndarray,
    test_log_probabilities: np.ndarray,
    test_labels: np.ndarray,
) -> dict[str, float]:
    """``ua``, ``mia``, ``ra`` and ``ta``, 0..1; NaN where a set they need is empty.

    Args:
      log_probabilities: (N, K) of the training examples.
      labels: int (N,), 0..K - 1.
      forget: bool (N,), F.
      test_log_probabilities: (M, K).
      test_labels: int (M,).

    Raises:
      MetricError: NaN, or a label beyond the classes.
    """
    correct, confidence = _correct_and_confidence("log_probabilities", log_probabilities, labels)
    test_correct, test_confidence = _correct_and_confidence(
        "test_log_probabilities", test_log_probabilities, test_labels
    )
    forget = booleans("forget", forget, (len(correct),))
    threshold = best_threshold(confidence[~forget], test_confidence)
    return {
        "ua": 1 - _mean(correct[forget]),
        "mia": math.nan if math.isnan(threshold) else _mean(confidence[forget] < threshold),
        "ra": _mean(correct[~forget]),
        "ta": _mean(test_correct),
    }


def best_threshold(members: np.ndarray, non_members: np.ndarray) -> float:
    """The threshold of best balanced accuracy; members are at or above, non-members below.

    One of the scores, the smallest of equally good ones, or infinity where none is better than
    classifying all as non-members; NaN without members or non-members.
    """
    members = np.sort(defined("members", vector("members", members)))
    non_members = np.sort(defined("non_members", vector("non_members", non_members)))
    if not len(members) or not len(non_members):
        return math.nan
    thresholds = np.append(np.unique(np.concatenate([members, non_members])), np.inf)
    below = np.searchsorted(non_members, thresholds, side="left") / len(non_members)
    above = 1 - np.searchsorted(members, thresholds, side="left") / len(members)
    return float(thresholds[np.argmax(below + above)])


def average_gap(metrics: Mapping[str, float], retrained: Mapping[str, float]) -> float:
    """Mean absolute difference of the four numbers to those of a network trained on R alone."""
    return float(
        np.mean([abs(metrics[name] - retrained[name]) for name in ("ua", "mia", "ra", "ta")])
    )


def _correct_and_confidence(
    name: str, x: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Whether the prediction is correct, bool (N,), and the log-probability of the true class."""
    x = defined(name, matrix(name, x))
    labels = np.asarray(labels)
    if labels.shape != (len(x),) or labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {labels.dtype}{list(labels.shape)}; int ({len(x)},)")
    if len(labels) and not 0 <= labels.min() <= labels.max() < x.shape[1]:
        raise MetricError(f"labels of {name} lie in 0..{x.shape[1] - 1}")
    return x.argmax(1) == labels, x[np.arange(len(x)), labels]


def _mean(x: np.ndarray) -> float:
    return float(np.mean(x)) if len(x) else math.nan
