"""What a network that was to forget some of its training examples still knows of them.

With the forgotten examples F, the others R that it was trained on, and a test set T:

    ua   1 - accuracy on F
    mia  share of F that an attacker takes for strangers: its confidence in the right class is below
         the threshold that best tells R from T
    ra   accuracy on R
    ta   accuracy on T

The aim is not a high number but that of a network trained anew on R alone: ``average_gap``.

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
    right, confidence = _seen("log_probabilities", log_probabilities, labels)
    test_right, test_confidence = _seen(
        "test_log_probabilities", test_log_probabilities, test_labels
    )
    forget = booleans("forget", forget, (len(right),))
    threshold = best_threshold(confidence[~forget], test_confidence)
    return {
        "ua": 1 - _mean(right[forget]),
        "mia": math.nan if math.isnan(threshold) else _mean(confidence[forget] < threshold),
        "ra": _mean(right[~forget]),
        "ta": _mean(test_right),
    }


def best_threshold(members: np.ndarray, strangers: np.ndarray) -> float:
    """Where members are at or above and strangers below most often, both sets counting alike.

    One of the scores, the least of several that are as good, or infinity where none is better than
    calling all strangers; NaN without members or strangers.
    """
    members = np.sort(defined("members", vector("members", members)))
    strangers = np.sort(defined("strangers", vector("strangers", strangers)))
    if not len(members) or not len(strangers):
        return math.nan
    places = np.append(np.unique(np.concatenate([members, strangers])), np.inf)
    below = np.searchsorted(strangers, places, side="left") / len(strangers)
    above = 1 - np.searchsorted(members, places, side="left") / len(members)
    return float(places[np.argmax(below + above)])


def average_gap(found: Mapping[str, float], retrained: Mapping[str, float]) -> float:
    """Mean absolute difference of the four numbers to those of a network trained on R alone."""
    return float(
        np.mean([abs(found[name] - retrained[name]) for name in ("ua", "mia", "ra", "ta")])
    )


def _seen(name: str, x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the largest is the right one, bool (N,), and log-probability of that one."""
    x = defined(name, matrix(name, x))
    labels = np.asarray(labels)
    if labels.shape != (len(x),) or labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {labels.dtype}{list(labels.shape)}; int ({len(x)},)")
    if len(labels) and not 0 <= labels.min() <= labels.max() < x.shape[1]:
        raise MetricError(f"labels of {name} lie in 0..{x.shape[1] - 1}")
    return x.argmax(1) == labels, x[np.arange(len(x)), labels]


def _mean(x: np.ndarray) -> float:
    return float(np.mean(x)) if len(x) else math.nan
