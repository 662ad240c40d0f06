"""Metrics of features without labels: CKA, alignment, uniformity, effective rank.

``features`` are real (N, D); computed in float64. NaN or infinity is a ``MetricError``. With
too few rows, or features that do not vary, the result is NaN.
"""

from __future__ import annotations

import math

import numpy as np

from vision.metrics.arrays import MetricError, blocks, defined, matrix


def _features(name: str, x: np.ndarray) -> np.ndarray:
    return defined(name, matrix(name, x), finite=True).astype(np.float64)


def _pair(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = _features("x", x), _features("y", y)
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} rows and y {len(y)}; a row is one example in both")
    return x, y


def linear_cka(x: np.ndarray, y: np.ndarray, debiased: bool = False) -> float:
    """Linear centred kernel alignment of two representations (N, D) and (N, E) of the same rows.

    ``|Y'X|^2 / (|X'X| |Y'Y|)`` of centred features, Frobenius norms, in O(N D E): no N by N matrix.
    0..1; 1 for representations equal up to rotation, one scale and shift. ``debiased`` uses the
    unbiased estimator of HSIC (Song et al., 2012) for all three terms, which does not grow with
    D / N and can be slightly negative. NaN if one of them is constant.

    Source: Kornblith et al., "Similarity of Neural Network Representations Revisited", 2019.

    Raises:
      ValueError: shapes.
      MetricError: NaN or infinity; ``debiased`` with fewer than 4 rows.
    """
    x, y = _pair(x, y)
    if debiased and len(x) < 4:
        raise MetricError(f"debiased CKA needs at least 4 rows, not {len(x)}")
    if len(x) < 2:
        return math.nan
    x, y = _centred(x), _centred(y)
    sizes = np.abs(x).max(), np.abs(y).max()
    if min(sizes) == 0:
        return math.nan
    # Scaled to about one, so that fourth powers neither over- nor underflow.
    x, y = x / sizes[0], y / sizes[1]
    cross, self_x, self_y = (_dependence(*p, debiased) for p in ((x, y), (x, x), (y, y)))
    return cross / math.sqrt(self_x * self_y) if self_x > 0 and self_y > 0 else math.nan


def _centred(x: np.ndarray) -> np.ndarray:
    """``x`` minus its mean; exactly zero in columns that are constant up to rounding."""
    centred = x - x.mean(0)
    constant = np.abs(centred).max(0) <= 16 * np.finfo(np.float64).eps * np.abs(x).max(0)
    return np.where(constant, 0, centred)


def _dependence(x: np.ndarray, y: np.ndarray, debiased: bool) -> float:
    """HSIC of centred features, up to a factor that depends on N only."""
    hsic = float(np.square(x.T @ y).sum())
    if not debiased:
        return hsic
    n = len(x)
    rows_x, rows_y = np.square(x).sum(1), np.square(y).sum(1)
    return (
        hsic
        - n / (n - 2) * float(rows_x @ rows_y)
        + float(rows_x.sum()) * float(rows_y.sum()) / ((n - 1) * (n - 2))
    )


def _unit(name: str, x: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    if (length == 0).any():
        raise MetricError(
            f"{name}: {(length == 0).sum()} of {len(x)} rows are zeros and have no direction, the "
            f"first is row {np.flatnonzero(length == 0)[0]}"
        )
    return x / length


def alignment(x: np.ndarray, y: np.ndarray, power: float = 2.0) -> float:
    """Mean of ``|x_i - y_i|^power`` of positive pairs on the unit sphere, 0 (best) to 2^power.

    Rows are scaled to length 1. NaN without rows. Source: Wang and Isola, "Understanding
    Contrastive Representation Learning through Alignment and Uniformity", 2020.

    Args:
      x, y: (N, D), row i of both from one positive pair.
      power: above 0.

    Raises:
      ValueError: shapes, ``power``.
      MetricError: NaN, infinity, or a row of zeros.
    """
    if power <= 0:
        raise ValueError(f"power={power}; it must be above 0")
    x, y = _pair(x, y)
    if x.shape != y.shape:
        raise ValueError(f"x is {list(x.shape)} and y {list(y.shape)}; pairs lie in one space")
    if not len(x):
        return math.nan
    return float((np.linalg.norm(_unit("x", x) - _unit("y", y), axis=1) ** power).mean())


def uniformity(features: np.ndarray, t: float = 2.0) -> float:
    """``log mean exp(-t |x_i - x_j|^2)`` over pairs ``i < j`` on the unit sphere, -4t..0.

    Rows are scaled to length 1; lower is more uniform, 0 is a single point. Exact over all pairs,
    in blocks of O(D) memory per row. NaN of fewer than 2 rows. Source: Wang and Isola, 2020.

    Raises:
      ValueError: shapes, or ``t`` not above 0.
      MetricError: NaN, infinity, or a row of zeros.
    """
    if t <= 0:
        raise ValueError(f"t={t}; it must be above 0")
    x = _unit("features", _features("features", features))
    n = len(x)
    if n < 2:
        return math.nan
    total = 0.0
    for rows in blocks(n, n):
        # Only columns from this block on: pairs within it come twice, and each row with itself.
        kernel = np.exp(2 * t * (np.minimum(x[rows] @ x[rows.start :].T, 1) - 1))
        size = len(kernel)
        total += kernel[:, size:].sum() + (kernel[:, :size].sum() - np.trace(kernel[:, :size])) / 2
    return math.log(total / (n * (n - 1) / 2))


def effective_rank(features: np.ndarray, centre: bool = False) -> float:
    """``exp`` of the entropy of the singular values over their sum, 1..min(N, D).

    The number of directions that the features effectively use. Not centred, as in Roy and
    Vetterli, "The effective rank", 2007, and in RankMe (Garrido et al., 2023, with 1e-7 added to
    the shares); ``centre`` subtracts the mean first. NaN without rows or for zeros.
    """
    x = _features("features", features)
    if not len(x):
        return math.nan
    if centre:
        x = _centred(x)
    values = np.linalg.svd(x, compute_uv=False)
    # Singular values of a rank-deficient matrix that are rounding errors.
    values = values[values > values[0] * max(x.shape) * np.finfo(np.float64).eps]
    if not len(values):
        return math.nan
    p = values / values.sum()
    return float(np.exp(-(p * np.log(p)).sum()))
