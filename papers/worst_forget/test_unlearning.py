"""Numbers of unlearning on cases that can be counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from papers.worst_forget.unlearning import average_gap, best_threshold, unlearning
from vision.metrics.arrays import MetricError


def probabilities(confidence: list[float]) -> np.ndarray:
    """Log-probabilities (N, 2) whose class 0 has these."""
    p = np.asarray(confidence)
    return np.log(np.stack([p, 1 - p], 1))


def test_the_four_numbers_of_a_small_case():
    train = probabilities([0.9, 0.8, 0.95, 0.4, 0.85, 0.3])
    forget = np.array([0, 0, 0, 1, 1, 1], bool)
    test = probabilities([0.6, 0.7, 0.2, 0.45])
    zero = np.zeros(6, np.int32)
    metrics = unlearning(train, zero, forget, test, zero[:4])
    # Members are at least 0.8 sure and non-members at most 0.7.
    assert metrics == pytest.approx({"ua": 2 / 3, "mia": 2 / 3, "ra": 1, "ta": 0.5})
    assert average_gap(metrics, metrics) == 0
    assert average_gap(metrics, {**metrics, "ta": 0.9}) == pytest.approx(0.1)


def test_the_threshold_is_the_best_of_all():
    rng = np.random.default_rng(0)
    members, others = rng.integers(0, 9, 30) + 2.0, rng.integers(0, 9, 11) + 0.0

    def balanced(t: float) -> float:
        return float(np.mean(members >= t) + np.mean(others < t))

    best = max(balanced(t) for t in np.arange(-1, 13, 0.5))
    assert balanced(best_threshold(members, others)) == pytest.approx(best)
    assert math.isnan(best_threshold(members, others[:0]))
    assert best_threshold(np.zeros(3), np.ones(3)) in (0.0, math.inf)


def test_nothing_to_forget_and_faults():
    zero = np.zeros(2, np.int32)
    metrics = unlearning(
        probabilities([0.9, 0.8]), zero, np.zeros(2, bool), probabilities([0.2, 0.3]), zero
    )
    assert math.isnan(metrics["ua"])
    assert metrics["ra"] == 1
    with pytest.raises(MetricError, match="labels"):
        unlearning(
            probabilities([0.9, 0.8]), zero + 2, np.zeros(2, bool), probabilities([0.2, 0.3]), zero
        )
