"""Metrics of video object segmentation and point tracking: J, F, recall, decay, PCK.

Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, 2016,
and Pont-Tuset et al., The 2017 DAVIS Challenge, 2017. J and F of two empty masks are 1.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from vision.metrics.arrays import booleans


def region(predicted: np.ndarray, truth: np.ndarray) -> float:
    """J: intersection over union of masks (H, W)."""
    predicted, truth = _pair(predicted, truth)
    union = (predicted | truth).sum()
    return float((predicted & truth).sum() / union) if union else 1.0


def boundary(predicted: np.ndarray, truth: np.ndarray, tolerance: float = 0.008) -> float:
    """F: harmonic mean of boundary precision and recall of masks (H, W).

    Boundary pixels match within ``tolerance`` times the image's diagonal, rounded up to pixels.
    """
    predicted, truth = _pair(predicted, truth)
    radius = math.ceil(tolerance * math.hypot(*predicted.shape))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = y * y + x * x <= radius * radius
    edge, true_edge = outline(predicted), outline(truth)
    if not edge.any() or not true_edge.any():
        return float(edge.any() == true_edge.any())
    precision = (edge & ndimage.binary_dilation(true_edge, disk)).sum() / edge.sum()
    recall = (true_edge & ndimage.binary_dilation(edge, disk)).sum() / true_edge.sum()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def outline(mask: np.ndarray) -> np.ndarray:
    """Bool (H, W): pixels that differ from the one below, to the right, or diagonally below."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    centre = padded[:-1, :-1]
    return (centre ^ padded[1:, :-1]) | (centre ^ padded[:-1, 1:]) | (centre ^ padded[1:, 1:])


def recall(values: np.ndarray, threshold: float = 0.5) -> float:
    """Share of frames above ``threshold``; NaN for no frames."""
    values = np.asarray(values, np.float64)
    return float((values > threshold).mean()) if len(values) else math.nan


def decay(values: np.ndarray) -> float:
    """Mean of the first quarter of frames minus that of the last; NaN below four frames."""
    parts = np.array_split(np.asarray(values, np.float64), 4)
    return float(parts[0].mean() - parts[3].mean()) if len(parts[3]) else math.nan


def correct_points(
    predicted: np.ndarray, truth: np.ndarray, size: np.ndarray, share: float
) -> np.ndarray:
    """Bool (N,): points (N, 2) within ``share`` times ``size`` (N,) of the true ones.

    Their mean is PCK at ``share`` (Yang and Ramanan, 2013); the size is that of the object.
    """
    distance = np.linalg.norm(
        np.asarray(predicted, np.float64) - np.asarray(truth, np.float64), axis=-1
    )
    return distance <= share * np.asarray(size, np.float64)


def _pair(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predicted = booleans("predicted", predicted, (None, None))
    return predicted, booleans("truth", truth, predicted.shape)
