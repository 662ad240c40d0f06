"""Principal components of features, scaled to equal variance."""

from __future__ import annotations

import dataclasses

import numpy as np

from vision.probes.linear import FitError


@dataclasses.dataclass(frozen=True, eq=False)
class Whitening:
    """``(x - mean) @ matrix``: on the features it was fitted to, uncorrelated and of variance one.

    Attributes:
      mean: float64 (D,).
      matrix: float64 (D, R), by falling variance of the components.
    """

    mean: np.ndarray
    matrix: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """float32 (..., R) of features (..., D)."""
        return ((np.asarray(x, np.float64) - self.mean) @ self.matrix).astype(np.float32)


def fit_whitening(x: np.ndarray, dimension: int) -> Whitening:
    """The ``dimension`` principal components of features (N, D).

    Raises:
      FitError: shapes, numbers that are not finite, or fewer directions in which the features
        vary than ``dimension``.
    """
    if x.ndim != 2 or len(x) < 2:
        raise FitError(f"features are {x.shape}; whitening needs (N, D) and 2 rows at least")
    x = np.asarray(x, np.float64)
    if not np.isfinite(x).all():
        raise FitError("features hold NaN or infinity; leave such rows out")
    mean = x.mean(0)
    _, values, directions = np.linalg.svd(x - mean, full_matrices=False)
    rank = int((values > values[0] * max(x.shape) * np.finfo(np.float64).eps).sum())
    if not 1 <= dimension <= rank:
        raise FitError(f"dimension={dimension}: these features vary in {rank} directions")
    scale = np.sqrt(len(x)) / values[:dimension]
    return Whitening(mean, directions[:dimension].T * scale)


def signed_root(x: np.ndarray, power: float = 0.5) -> np.ndarray:
    """``sign(x) |x|^power`` of every number: reduces the influence of large values."""
    return np.sign(x) * np.abs(x) ** power
