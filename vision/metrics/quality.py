"""Agreement of predicted scores with ratings: linear correlation and a fitted logistic map."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from vision.metrics.arrays import MetricError, defined, vector


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Linear correlation of two vectors (N,), -1..1; NaN where N < 2 or one is constant.

    Raises:
      ValueError: shapes or dtypes.
      MetricError: NaN or infinity.
    """
    a = defined("a", vector("a", a), finite=True)
    b = defined("b", vector("b", b, len(a)), finite=True)
    if len(a) < 2 or not np.ptp(a) or not np.ptp(b):
        return math.nan
    # Scaled first, so that squares of tiny or huge deviations neither under- nor overflow.
    a, b = (x / np.abs(x).max() for x in (a - a.mean(), b - b.mean()))
    return float(np.clip(a @ b / (math.sqrt(a @ a) * math.sqrt(b @ b)), -1, 1))


@dataclasses.dataclass(frozen=True)
class Logistic:
    """``low + (high - low) / (1 + exp(-(x - centre) / width))``, ``width`` above 0.

    Attributes:
      low, high: limits of the curve.
      centre: where it is half way.
      width: of the rise, positive.
    """

    low: float
    high: float
    centre: float
    width: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Mapped scores, float64, of the shape of ``x``."""
        z = (np.asarray(x, np.float64) - self.centre) / self.width
        return self.low + (self.high - self.low) * _sigmoid(z)


def fit_logistic(predicted: np.ndarray, targets: np.ndarray, max_steps: int = 500) -> Logistic:
    """The least-squares logistic of four parameters from ``predicted`` to ``targets``, (N,).

    Levenberg-Marquardt, initialised with the targets' range and the mean and a quarter of the
    standard deviation of ``predicted``, as the Video Quality Experts Group proposes;
    ``high < low`` where the relation is decreasing. A local minimum, never worse than the start.

    Raises:
      ValueError: shapes or dtypes.
      MetricError: NaN or infinity, fewer than 4 examples, or constant predictions.
    """
    x = defined("predicted", vector("predicted", predicted), finite=True)
    y = defined("targets", vector("targets", targets, len(x)), finite=True)
    if len(x) < 4 or not np.ptp(x):
        raise MetricError(
            f"a logistic map has 4 parameters; {len(x)} examples with "
            f"{len(np.unique(x))} different predictions do not determine them"
        )
    mean_x, spread = x.mean(), x.std()
    z = (x - mean_x) / spread
    ends = (y.min(), y.max()) if pearson(z, y) >= 0 or not np.ptp(y) else (y.max(), y.min())
    # low, high, centre, log width: the width stays above 0.
    params = np.array([*ends, 0.0, math.log(0.25)])

    def model(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u = (z - p[2]) * math.exp(-p[3])
        s = _sigmoid(u)
        slope = (p[1] - p[0]) * s * (1 - s)
        jacobian = np.stack([1 - s, s, -slope * math.exp(-p[3]), -slope * u], 1)
        return p[0] + (p[1] - p[0]) * s - y, jacobian

    residual, jacobian = model(params)
    damping = 1e-3
    for _ in range(max_steps):
        normal, gradient = jacobian.T @ jacobian, jacobian.T @ residual
        scale = np.diag(normal) + 1e-12 * (1 + np.trace(normal))
        step = np.linalg.solve(normal + damping * np.diag(scale), gradient)
        proposal = params - step
        proposal[3] = np.clip(proposal[3], -12, 12)
        new_residual, new_jacobian = model(proposal)
        better = residual @ residual - new_residual @ new_residual
        if better > 0:
            params, residual, jacobian = proposal, new_residual, new_jacobian
            damping = max(damping / 5, 1e-12)
            if better <= 1e-14 * (residual @ residual):
                break
        elif damping > 1e12:
            break
        else:
            damping *= 4
    return Logistic(
        low=float(params[0]),
        high=float(params[1]),
        centre=float(mean_x + spread * params[2]),
        width=float(spread * math.exp(params[3])),
    )


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(z / 2))
