"""Whether a heat map (H, W) is where the object is: boxes, pointing, energy, pixels.

Boxes are (K, 4): y0, x0, y1, x1 in pixels, the last two exclusive; those without area count as
none. A map that is the same everywhere points nowhere: its box is none and it never hits.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from vision.metrics.arrays import bits, defined
from vision.metrics.detection import auroc


def pointing(heat: np.ndarray, boxes: np.ndarray, tolerance_px: int = 15) -> bool:
    """Whether the largest value lies in one of ``boxes``, or no farther off than the tolerance.

    Zhang et al., Top-down Neural Attention by Excitation Backprop, 2016. Of several largest values
    the mean of their places is taken, so that their order in memory decides nothing.
    """
    heat, boxes = _map(heat), _boxes(boxes)
    if not np.ptp(heat) > 0:
        return False
    y, x = np.argwhere(heat == heat.max()).mean(0)
    return near((float(y), float(x)), boxes, tolerance_px)


def near(point: tuple[float, float], boxes: np.ndarray, tolerance_px: int) -> bool:
    """Whether ``point`` (y, x) is in one of ``boxes`` or within ``tolerance_px`` of it."""
    y, x = point
    y0, x0, y1, x1 = _boxes(boxes).T
    down = np.maximum(np.maximum(y0 - y, y - (y1 - 1)), 0)
    right = np.maximum(np.maximum(x0 - x, x - (x1 - 1)), 0)
    return bool((np.hypot(down, right) <= tolerance_px).any())


def parts(heat: np.ndarray, threshold: float) -> tuple[np.ndarray, int]:
    """Pixels of at least ``threshold`` of the largest, as int32 (H, W) numbers of the component
    that each belongs to, 0 for none, and how many there are. Neighbours share a side."""
    heat = _map(heat)
    if not np.ptp(heat) > 0:
        return np.zeros(heat.shape, np.int32), 0
    labels, count = ndimage.label(heat >= threshold * heat.max())  # pyright: ignore
    return labels, count


def largest_box(heat: np.ndarray, threshold: float = 0.15) -> np.ndarray:
    """int64 (1, 4) around the largest component of ``parts``; (0, 4) where there is none.

    Zhou et al., Learning Deep Features for Discriminative Localization, 2016 (with 20 %), and
    Selvaraju et al., Grad-CAM, 2017 (with 15 %). Maps are at least 0.
    """
    labels, count = parts(heat, threshold)
    if not count:
        return np.zeros((0, 4), np.int64)
    best = np.bincount(labels.ravel())[1:].argmax() + 1
    rows, columns = np.nonzero(labels == best)
    return np.asarray([[rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]])


def box_iou(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (K, 4) and (L, 4), float64 (K, L)."""
    one, two = one[:, None].astype(np.float64), two[None].astype(np.float64)
    size = np.minimum(one[..., 2:], two[..., 2:]) - np.maximum(one[..., :2], two[..., :2])
    shared = np.maximum(size, 0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (one, two)]
    return shared / np.maximum(areas[0] + areas[1] - shared, 1e-12)


def best_iou(heat: np.ndarray, boxes: np.ndarray, threshold: float = 0.15) -> float:
    """Of the map's box with that one of ``boxes`` that it fits best, 0..1."""
    found = box_iou(largest_box(heat, threshold), _boxes(boxes))
    return float(found.max()) if found.size else 0.0


def energy(heat: np.ndarray, mask: np.ndarray) -> float:
    """Share of the map's sum that lies within ``mask`` (H, W); NaN where all is 0.

    Wang et al., Score-CAM, 2020. Negative values count as 0.
    """
    heat = np.maximum(_map(heat), 0)
    inside = bits("mask", mask, heat.shape)
    total = heat.sum()
    return float(heat[inside].sum() / total) if total > 0 else math.nan


def pixel_auroc(heat: np.ndarray, mask: np.ndarray) -> float:
    """The chance that a pixel of ``mask`` has more than one outside; NaN without either."""
    heat = _map(heat)
    inside = bits("mask", mask, heat.shape)
    return auroc(heat[inside], heat[~inside])


def _map(heat: np.ndarray) -> np.ndarray:
    heat = np.asarray(heat)
    if heat.ndim != 2 or heat.dtype.kind != "f":
        raise ValueError(f"heat is {heat.dtype}{list(heat.shape)}; it must be floats (H, W)")
    return defined("heat", heat.astype(np.float64), finite=True)


def _boxes(boxes: np.ndarray) -> np.ndarray:
    boxes = np.asarray(boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "iuf":
        raise ValueError(f"boxes are {boxes.dtype}{list(boxes.shape)}; they must be numbers (K, 4)")
    boxes = defined("boxes", boxes.astype(np.float64), finite=True)
    return boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
