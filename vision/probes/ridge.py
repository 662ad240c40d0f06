"""Least squares with a penalty on frozen features, in closed form for many penalties at once."""

from __future__ import annotations

import dataclasses

import numpy as np

from vision.probes.linear import FitError, LinearClassifier, starts

_SMALL = 1e-12  # of the largest eigenvalue: smaller ones are rounding errors


@dataclasses.dataclass(frozen=True, eq=False)
class Ridge:
    """Statistics of features and targets from which the solution for any penalty follows.

    Attributes:
      mean: float64 (D,) of the features.
      scale: float64 (D,) that features are divided by, after the mean; ones for none.
      target: float64 (T,) mean of the targets.
      basis: float64 (D, R) principal directions of the scaled features.
      values: float64 (R,) their variances.
      along: float64 (R, T) covariance of scaled features, along the basis, with the targets.
      variance: mean over rows of the squared distance of the targets from their mean.
    """

    mean: np.ndarray
    scale: np.ndarray
    target: np.ndarray
    basis: np.ndarray
    values: np.ndarray
    along: np.ndarray
    variance: float

    def fit(self, decay: float) -> LinearClassifier:
        """Minimises ``mean_n |y_n - x_n W - b|^2 + decay |W|^2``; the bias is not penalised.

        ``W`` acts on scaled features. scikit-learn's ``Ridge(alpha)`` minimises the same with
        ``decay = alpha / N``. ``converged`` is always true, ``steps`` 1.

        Raises:
          FitError: ``decay`` that is not positive.
        """
        if not (decay > 0 and np.isfinite(decay)):
            raise FitError(f"decay={decay}: must be positive and finite")
        inner = self.along / (self.values + decay)[:, None]
        weight = (self.basis @ inner) / self.scale[:, None]
        bias = self.target - self.mean @ weight
        loss = self.variance - float(np.sum(inner * self.along))
        return LinearClassifier(weight, bias, loss, 1, True)


def prepare_ridge(x: np.ndarray, targets: np.ndarray, standardise: bool = False) -> Ridge:
    """Reads the features and decomposes their covariance, or their Gram matrix if N <= D.

    Source of closed form and scaling: the few-shot regression of Dosovitskiy et al., "An Image is
    Worth 16x16 Words", 2021, and Kolesnikov et al., "Big Transfer", 2020.

    Args:
      x: (N, D) float, also a memory map.
      targets: (N, T) float, such as -1 and 1 of ``signs``.
      standardise: whether every feature is divided by its standard deviation, so that the penalty
        does not depend on their units; constant ones are left as they are.

    Raises:
      FitError: shapes, no rows, or numbers that are not finite.
    """
    targets = np.asarray(targets, np.float64)
    if x.ndim != 2 or targets.ndim != 2 or len(x) != len(targets) or not len(x):
        raise FitError(f"features {x.shape} and targets {targets.shape} must be (N, D) and (N, T)")
    if not np.isfinite(targets).all():
        raise FitError("targets hold NaN or infinity")
    count, width = x.shape
    total = np.zeros(width)
    for i in starts(x):
        total += _rows(x, i).sum(0)
    mean, target = total / count, targets.mean(0)
    centred_targets = targets - target
    scale = np.ones(width)
    if standardise:
        sum_of_squares = np.zeros(width)
        for i in starts(x):
            sum_of_squares += np.square(_rows(x, i) - mean).sum(0)
        deviation = np.sqrt(sum_of_squares / count)
        scale = np.where(deviation > 1e-6 * np.maximum(np.abs(mean), 1e-6), deviation, 1.0)
    variance = float(np.square(centred_targets).sum() / count)
    if count <= width:
        rows = (_rows(x, 0, count) - mean) / scale
        values, left_vectors = np.linalg.eigh(rows @ rows.T / count)
        significant = values > _SMALL * max(values[-1], 0)
        values, left_vectors = values[significant], left_vectors[:, significant]
        basis = rows.T @ left_vectors / np.sqrt(values * count)
        along = np.sqrt(values / count)[:, None] * (left_vectors.T @ centred_targets)
    else:
        moment, cross = np.zeros((width, width)), np.zeros((width, centred_targets.shape[1]))
        for i in starts(x):
            rows = (_rows(x, i) - mean) / scale
            moment += rows.T @ rows
            cross += rows.T @ centred_targets[i : i + len(rows)]
        values, basis = np.linalg.eigh(moment / count)
        values = np.maximum(values, 0)
        along = basis.T @ cross / count
    return Ridge(mean, scale, target, basis, values, along, variance)


def signs(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Targets (N, K) of labels (N,): 1 for the class, -1 for all others."""
    return 2.0 * np.eye(num_classes)[labels] - 1.0


def _rows(x: np.ndarray, first: int, count: int | None = None) -> np.ndarray:
    step = count or starts(x).step
    rows = np.asarray(x[first : first + step], np.float64)
    if not np.isfinite(rows).all():
        raise FitError(f"features of rows {first}..{first + len(rows) - 1} hold NaN or infinity")
    return rows
