"""Scores for out-of-distribution detection: greater is more in-distribution.

Computed from ``logits`` (N, K) alone, or from ``features`` (N, D) by a model fitted on the training
set, a frozen dataclass with a method ``score``. Inputs are real numbers of any width; scores are
float64 (N,), computed a block of rows at a time. NaN is a ``MetricError``; so is infinity in
features. Minus infinity among logits is a class of probability zero.

ODIN (Liang et al., 2018) needs the gradient of the network: ``vision.evaluators.robustness.odin``.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from vision.metrics.arrays import (
    MetricError,
    blocks,
    class_indices,
    defined,
    log_normaliser,
    matrix,
    softmax_parts,
)


def _logits(logits: np.ndarray) -> np.ndarray:
    return defined("logits", matrix("logits", logits))


def _features(name: str, features: np.ndarray, width: int | None = None) -> np.ndarray:
    features = matrix(name, features)
    if width is not None and features.shape[1] != width:
        raise ValueError(f"{name} has {features.shape[1]} columns; it was fitted on {width}")
    return defined(name, features, finite=True)


def max_logit(logits: np.ndarray) -> np.ndarray:
    """The largest logit. Hendrycks et al., "Scaling Out-of-Distribution Detection", 2022."""
    return _logits(logits).max(1).astype(np.float64)


def max_softmax(logits: np.ndarray) -> np.ndarray:
    """The largest probability, 1/K..1. Hendrycks and Gimpel, "A Baseline", 2017.

    Very confident examples all round to 1 and tie.
    """
    return np.exp(-softmax_parts(_logits(logits))[1])


def energy(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """``T log sum_k exp(z_k / T)``: the negative free energy.

    Source: Liu et al., "Energy-based Out-of-distribution Detection", 2020.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature={temperature}; it must be positive and finite")
    return temperature * log_normaliser(_logits(logits), temperature)


def _squared_distances(x: np.ndarray, y: np.ndarray, y_norm: np.ndarray) -> np.ndarray:
    """(N, M) squared Euclidean distances; inaccurate where ``x`` and ``y`` are nearly equal."""
    squared = np.square(x).sum(1)[:, None] - 2 * (x @ y.T) + y_norm
    return np.maximum(squared, 0, out=squared)


@dataclasses.dataclass(frozen=True, eq=False)
class Mahalanobis:
    """Mahalanobis distance to the nearest class mean, by the shared covariance within classes.

    ``score(x) = -min_c (x - mean_c)' S^+ (x - mean_c)``. ``S`` is the covariance of the training
    features around the means of their classes, divided by their number, and shrunk:
    ``(1 - s) S + s tr(S) / D``. Its inverse is the pseudo-inverse over eigenvalues above
    ``D * 2.2e-16`` of the greatest: directions in which the training set does not vary are ignored.
    With ``s > 0`` every direction counts. Source: Lee et al., "A Simple Unified Framework", 2018.

    Attributes:
      centre: (D,) mean of all features, subtracted first so that no digits are lost.
      whitening: (D, R) maps into a space where ``S`` is the identity; R is its rank.
      means: (C, R) class means there.
      classes: (C,) int64, the classes that have training examples.
    """

    centre: np.ndarray
    whitening: np.ndarray
    means: np.ndarray
    classes: np.ndarray

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Squared distances to every class mean, float64 (N, C), 0 or more."""
        features = _features("features", features, len(self.centre))
        squared = np.zeros((len(features), len(self.means)))
        norm = np.square(self.means).sum(1)
        for rows in blocks(len(features), sum(self.whitening.shape)):
            whitened = (features[rows] - self.centre) @ self.whitening
            squared[rows] = _squared_distances(whitened, self.means, norm)
        return squared

    def score(self, features: np.ndarray) -> np.ndarray:
        return -self.distances(features).min(1)


def fit_mahalanobis(
    features: np.ndarray, labels: np.ndarray, shrinkage: float = 0.0
) -> Mahalanobis:
    """Class means and shared covariance of ``features`` (N, D) with ``labels`` (N,).

    Rows labelled -1 are left out. Classes without examples have no mean and are never nearest.

    Raises:
      ValueError: shapes, or ``shrinkage`` outside 0..1.
      MetricError: no labelled rows, NaN or infinity, or no spread within any class.
    """
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage={shrinkage}; it must be in 0..1")
    features = _features("features", features)
    labels = class_indices("labels", labels, len(features), None)
    keep = labels >= 0
    if not keep.any():
        raise MetricError("Mahalanobis: no labelled rows to fit on")
    features, labels = features[keep].astype(np.float64), labels[keep]
    centre = features.mean(0)
    features -= centre
    classes, class_index, count = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(class_index, kind="stable")
    starts = np.concatenate([[0], np.cumsum(count)[:-1]])
    means = np.add.reduceat(features[order], starts, axis=0) / count[:, None]
    width = len(centre)
    covariance = np.zeros((width, width))
    for rows in blocks(len(features), width):
        spread = features[rows] - means[class_index[rows]]
        covariance += spread.T @ spread
    covariance /= len(features)
    level = np.trace(covariance) / width
    covariance = (1 - shrinkage) * covariance + shrinkage * level * np.eye(width)
    values, vectors = np.linalg.eigh(covariance)
    scale = np.square(means).max(initial=0) + level
    significant = (
        values > max(values[-1], scale * np.finfo(float).eps) * width * np.finfo(float).eps
    )
    if not significant.any():
        raise MetricError(
            f"Mahalanobis: no spread within any of {len(classes)} classes ({len(features)} rows); "
            "fit on more examples per class"
        )
    whitening = vectors[:, significant] / np.sqrt(values[significant])
    return Mahalanobis(centre, whitening, means @ whitening, classes)


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbours:
    """Distance to the ``k``-th nearest training example, exact: ``score(x) = -distance_k``.

    Source: Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", 2022.

    Attributes:
      bank: float64 (M, D), of length 1 where ``normalised``.
      k: 1..M; 1 is the nearest.
      normalised: whether features are scaled to length 1 first; zero vectors stay zero.
    """

    bank: np.ndarray
    k: int
    normalised: bool

    def score(self, features: np.ndarray) -> np.ndarray:
        features = _features("features", features, self.bank.shape[1])
        norm = np.square(self.bank).sum(1)
        distances = np.zeros(len(features))
        for rows in blocks(len(features), len(self.bank) + self.bank.shape[1]):
            rows_scaled = (
                _unit(features[rows]) if self.normalised else features[rows].astype(np.float64)
            )
            squared = _squared_distances(rows_scaled, self.bank, norm)
            nearest = np.argpartition(squared, self.k - 1, axis=1)[:, self.k - 1]
            # Again from the difference: the expanded square loses digits for small distances.
            distances[rows] = np.sqrt(np.square(rows_scaled - self.bank[nearest]).sum(1))
        return -distances


def _unit(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def fit_neighbours(features: np.ndarray, k: int = 50, normalise: bool = True) -> Neighbours:
    """Keeps the training ``features`` (M, D).

    Raises:
      ValueError: ``k`` outside 1..M.
      MetricError: NaN or infinity.
    """
    features = _features("features", features)
    if not 1 <= k <= len(features):
        raise ValueError(f"k={k}; it must be in 1..{len(features)}, the number of training rows")
    bank = _unit(features) if normalise else features.astype(np.float64)
    return Neighbours(bank, k, normalise)


@dataclasses.dataclass(frozen=True, eq=False)
class VirtualLogit:
    """ViM: energy minus the scaled residual of a feature outside the principal training subspace.

    ``score(x) = log sum_k exp(z_k) - alpha |R' (x - origin)|``: the residual is scaled to the size
    of the logits and subtracted. Source: Wang et al., "ViM: Out-Of-Distribution with
    Virtual-logit Matching", 2022, whose score is this one.

    Attributes:
      origin: (D,) the shortest point where all logits are zero, ``-W^+ b``.
      residual: (D, D - dimension) orthonormal basis of the complement of the principal space.
      alpha: mean of the largest training logit over the mean length of the training residuals.
    """

    origin: np.ndarray
    residual: np.ndarray
    alpha: float

    def score(self, features: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """``logits`` (N, K) are those of the same rows."""
        features = _features("features", features, len(self.origin))
        if len(features) != len(logits):
            raise ValueError(
                f"{len(features)} features and {len(logits)} logits; they must be of the same rows"
            )
        return energy(logits) - self.alpha * _lengths(features, self.origin, self.residual)


def _lengths(features: np.ndarray, origin: np.ndarray, basis: np.ndarray) -> np.ndarray:
    lengths = np.zeros(len(features))
    for rows in blocks(len(features), 2 * len(origin)):
        lengths[rows] = np.linalg.norm((features[rows] - origin) @ basis, axis=1)
    return lengths


def fit_virtual_logit(
    features: np.ndarray, kernel: np.ndarray, bias: np.ndarray, dimension: int | None = None
) -> VirtualLogit:
    """Fits ``VirtualLogit`` to training ``features`` (N, D) and the classifier's head.

    The head is ``logits = features @ kernel + bias``.

    Args:
      kernel: (D, K).
      bias: (K,).
      dimension: of the principal space, 1..D-1; by default 1000 of 2048 or more, 512 of 768 or
        more, half of fewer, as the authors chose.

    Raises:
      ValueError: shapes, or ``dimension`` out of range.
      MetricError: no rows, NaN, or training features that all lie in the principal space.
    """
    features = _features("features", features)
    width = features.shape[1]
    kernel = _features("kernel", kernel).astype(np.float64)
    bias = np.asarray(bias, np.float64)
    if kernel.shape[0] != width or bias.shape != kernel.shape[1:]:
        raise ValueError(
            f"kernel {kernel.shape} and bias {bias.shape} must be ({width}, K) and (K,)"
        )
    if dimension is None:
        dimension = 1000 if width >= 2048 else 512 if width >= 768 else max(1, width // 2)
    if not 1 <= dimension < width:
        raise ValueError(f"dimension={dimension}; it must be in 1..{width - 1}")
    if not len(features):
        raise MetricError("ViM: no rows to fit on")
    origin = -np.linalg.pinv(kernel.T) @ bias
    moment, top = np.zeros((width, width)), 0.0
    for rows in blocks(len(features), 2 * width):
        shifted = features[rows] - origin
        moment += shifted.T @ shifted
        top += float((features[rows] @ kernel + bias).max(1).sum())
    values, vectors = np.linalg.eigh(moment)
    residual = vectors[:, : width - dimension]
    length = float(_lengths(features, origin, residual).mean())
    if length <= np.sqrt(max(values[-1], 0) / len(features)) * width * np.finfo(float).eps:
        raise MetricError(
            f"ViM: the training features have no residual outside their {dimension} principal "
            "directions; choose a smaller dimension"
        )
    return VirtualLogit(origin, residual, top / len(features) / length)
