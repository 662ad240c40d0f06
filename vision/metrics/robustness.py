"""Corruption error against a baseline, and effective robustness to a natural shift."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from vision.metrics.arrays import MetricError, vector

ALEXNET_CLEAN_ERROR = 0.43478  # torchvision's weights: 56.522% top-1

ALEXNET_ERRORS: Mapping[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""Top-1 error of AlexNet on ImageNet-C, mean of five severities; published beside the data set."""


@dataclasses.dataclass(frozen=True, eq=False)
class CorruptionError:
    """Errors under corruption relative to a baseline's (the usual figures are these times 100).

    Attributes:
      ce: float64 (C,), ``sum_s error / sum_s baseline error`` of every corruption.
      mean: mCE, the mean of ``ce`` where it is known.
      relative: float64 (C,), the same with the clean error subtracted from every error; NaN where
        the baseline does not get worse.
      relative_mean: relative mCE.
      missing: names of corruptions without errors: they are left out of both means, which are then
        not comparable with published mCE.
    """

    ce: np.ndarray
    mean: float
    relative: np.ndarray
    relative_mean: float
    missing: tuple[str, ...]


def corruption_error(
    errors: Mapping[str, np.ndarray],
    clean_error: float,
    baseline: Mapping[str, float] = ALEXNET_ERRORS,
    baseline_clean: float = ALEXNET_CLEAN_ERROR,
) -> CorruptionError:
    """mCE and relative mCE.

    Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness", 2019.

    Args:
      errors: name of a corruption -> top-1 errors at its severities, real (S,) in 0..1.
      clean_error: the model's top-1 error without corruption, 0..1.
      baseline: name -> the baseline's error averaged over the same severities, above 0; the order
        of ``ce``.
      baseline_clean: the baseline's clean error.

    Raises:
      ValueError: a corruption that the baseline lacks.
      MetricError: an error outside 0..1, or NaN; no severities; a baseline without errors.
    """
    unknown = sorted(set(errors) - set(baseline))
    if unknown:
        raise ValueError(f"errors: {unknown[0]!r} is not in the baseline: {', '.join(baseline)}")
    for name, value in {"clean_error": clean_error, "baseline_clean": baseline_clean}.items():
        if not 0 <= value <= 1:
            raise MetricError(f"{name}={value}; errors are shares in 0..1")
    ce, relative = np.full(len(baseline), np.nan), np.full(len(baseline), np.nan)
    for index, (name, reference) in enumerate(baseline.items()):
        if name not in errors:
            continue
        values = vector(f"errors[{name!r}]", errors[name])
        if not len(values) or not ((values >= 0) & (values <= 1)).all():
            raise MetricError(f"errors of {name!r} are {values}; one share in 0..1 per severity")
        if not 0 < reference <= 1:
            raise MetricError(f"the baseline's error of {name!r} is {reference}, not in (0, 1]")
        ce[index] = values.mean() / reference
        if reference > baseline_clean:
            relative[index] = (values.mean() - clean_error) / (reference - baseline_clean)
    return CorruptionError(
        ce,
        _mean(ce),
        relative,
        _mean(relative),
        tuple(name for name in baseline if name not in errors),
    )


def _mean(x: np.ndarray) -> float:
    return float(np.nanmean(x)) if not np.isnan(x).all() else math.nan


def _logit(name: str, accuracy: np.ndarray) -> np.ndarray:
    accuracy = vector(name, accuracy)
    invalid = np.flatnonzero(~((accuracy > 0) & (accuracy < 1)))
    if len(invalid):
        raise MetricError(
            f"{name}: {accuracy[invalid[0]]} (model {invalid[0]}) has no logit; accuracies must "
            "lie strictly between 0 and 1: leave such models out of the fit"
        )
    return np.log(accuracy) - np.log1p(-accuracy)


@dataclasses.dataclass(frozen=True)
class RobustnessLine:
    """Accuracy under a distribution shift as predicted from accuracy without it.

    ``logit(shifted) = slope logit(standard) + intercept``.

    Attributes:
      slope, intercept: of the least-squares line.
      r2: share of the variance of the shifted logits that it explains, NaN if they are all equal.
      models: number of models it was fitted to.
    """

    slope: float
    intercept: float
    r2: float
    models: int

    def expected(self, standard: np.ndarray) -> np.ndarray:
        """Accuracy on the shifted set, float64 (M,), of models with ``standard`` (M,)."""
        return 1 / (1 + np.exp(-(self.slope * _logit("standard", standard) + self.intercept)))

    def effective(self, standard: np.ndarray, shifted: np.ndarray) -> np.ndarray:
        """Effective robustness, float64 (M,): accuracy minus the expected one, -1..1."""
        expected = self.expected(standard)
        return vector("shifted", shifted, len(expected)) - expected


def fit_robustness_line(standard: np.ndarray, shifted: np.ndarray) -> RobustnessLine:
    """Fits accuracies (M,) of baseline models on the standard and on the shifted set.

    Source: Taori et al., "Measuring Robustness to Natural Distribution Shifts", 2020. Fit on models
    trained on the standard set alone, and compare others with the line.

    Raises:
      ValueError: shapes.
      MetricError: fewer than two different standard accuracies, or one of 0, 1, NaN.
    """
    x, y = _logit("standard", standard), _logit("shifted", shifted)
    if len(x) != len(y):
        raise ValueError(f"standard has {len(x)} models and shifted {len(y)}")
    if len(np.unique(x)) < 2:
        raise MetricError("a line needs models of at least two different standard accuracies")
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    spread = float(dy @ dy)
    unexplained = float(np.square(dy - slope * dx).sum())
    return RobustnessLine(
        slope=slope,
        intercept=float(y.mean() - slope * x.mean()),
        r2=1 - unexplained / spread if np.ptp(y) > 0 else math.nan,
        models=len(x),
    )
