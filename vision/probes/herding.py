"""Herding: exemplars whose running mean approximates the class mean."""

from __future__ import annotations

import numpy as np


def herd(x: np.ndarray, count: int) -> np.ndarray:
    """Rows of features x (N, D) in the order in which they are chosen: int64 (count,).

    Each next row brings the mean of the chosen ones nearest to the mean of all; the first ``m`` are
    the selection for a memory of m. Rows are normalised to unit length first (Rebuffi et al.,
    iCaRL: Incremental Classifier and Representation Learning, 2017).

    Raises:
      ValueError: ``count`` outside 0..N.
    """
    if not 0 <= count <= len(x):
        raise ValueError(f"count={count} of {len(x)} rows")
    x = np.asarray(x, np.float64)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    mean, total = x.mean(0), np.zeros(x.shape[1])
    available, chosen = np.ones(len(x), bool), []
    for k in range(1, count + 1):
        distances = np.sum((mean - (total + x) / k) ** 2, 1)
        chosen.append(int(np.argmin(np.where(available, distances, np.inf))))
        available[chosen[-1]] = False
        total = total + x[chosen[-1]]
    return np.asarray(chosen, np.int64)
