"""Whether masks and points are followed through a video: J, F, recall, decay, PCK.

Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, 2016,
and Pont-Tuset et al., The 2017 DAVIS Challenge, 2017. Both masks empty: 1.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from vision.metrics.arrays import booleans


def region(found: np.ndarray, truth: np.ndarray) -> float:
    """J: intersection over union of masks (H, W)."""
    found, truth = _pair(found, truth)
    union = (found | truth).sum()
    return float((found & truth).sum() / union) if union else 1.0


def boundary(found: np.ndarray, truth: np.ndarray, tolerance: float = 0.008) -> float:
    """F: harmonic mean of the shares of each boundary that lie near the other's.

    Near is within ``tolerance`` of the image's diagonal, rounded up to whole pixels.
    """
    found, truth = _pair(found, truth)
    reach = math.ceil(tolerance * math.hypot(*found.shape))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = y * y + x * x <= reach * reach
    one, two = outline(found), outline(truth)
    if not one.any() or not two.any():
        return float(one.any() == two.any())
    precision = (one & ndimage.binary_dilation(two, disk)).sum() / one.sum()
    recall = (two & ndimage.binary_dilation(one, disk)).sum() / two.sum()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def outline(mask: np.ndarray) -> np.ndarray:
    """Bool (H, W): pixels unlike that below, to the right, or both; none beyond the edge."""
    wide = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    here = wide[:-1, :-1]
    return (here ^ wide[1:, :-1]) | (here ^ wide[:-1, 1:]) | (here ^ wide[1:, 1:])


def recall(values: np.ndarray, least: float = 0.5) -> float:
    """Share of frames above ``least``; NaN of none."""
    values = np.asarray(values, np.float64)
    return float((values > least).mean()) if len(values) else math.nan


def decay(values: np.ndarray) -> float:
    """Mean of the first quarter of frames less that of the last; NaN below four frames."""
    parts = np.array_split(np.asarray(values, np.float64), 4)
    return float(parts[0].mean() - parts[3].mean()) if len(parts[3]) else math.nan


def correct_points(
    found: np.ndarray, truth: np.ndarray, size: np.ndarray, share: float
) -> np.ndarray:
    """Bool (N,): points (N, 2) no farther from the true ones than ``share`` of ``size`` (N,).

    Their mean is PCK at ``share`` (Yang and Ramanan, 2013); the size is that of the thing.
    """
    apart = np.linalg.norm(np.asarray(found, np.float64) - np.asarray(truth, np.float64), axis=-1)
    return apart <= share * np.asarray(size, np.float64)


def _pair(found: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = booleans("found", found, (None, None))
    return found, booleans("truth", truth, found.shape)
