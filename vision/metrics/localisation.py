"""Localisation of an object by a heat map (H, W): boxes, pointing game, energy, pixel AUROC.

Boxes are (K, 4): y0, x0, y1, x1 in pixels, the last two exclusive; those without area are ignored.
A constant map has no box and is never a hit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import ndimage

from vision.metrics.arrays import booleans, defined
from vision.metrics.detection import auroc


def pointing(heat: np.ndarray, boxes: np.ndarray, tolerance_px: int = 15) -> bool:
    """Whether the largest value lies in one of ``boxes``, or within the tolerance of one.

    Zhang et al., Top-down Neural Attention by Excitation Backprop, 2016. With several largest
    values their mean position is taken, so that their order in memory does not matter.
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
    """Connected components of the pixels of at least ``threshold`` times the largest value.

    int32 (H, W) index of each pixel's component, 0 for none, and the number of components. Pixels
    that share a side are connected.
    """
    heat = _map(heat)
    if not np.ptp(heat) > 0:
        return np.zeros(heat.shape, np.int32), 0
    labels, count = ndimage.label(heat >= threshold * heat.max())  # pyright: ignore
    return labels, count


def largest_box(heat: np.ndarray, threshold: float = 0.15) -> np.ndarray:
    """int64 (1, 4) around the largest component of ``parts``; (0, 4) if there is none.

    Zhou et al., Learning Deep Features for Discriminative Localization, 2016 (with 20 %), and
    Selvaraju et al., Grad-CAM, 2017 (with 15 %). Maps are at least 0.
    """
    labels, count = parts(heat, threshold)
    if not count:
        return np.zeros((0, 4), np.int64)
    best = np.bincount(labels.ravel())[1:].argmax() + 1
    rows, columns = np.nonzero(labels == best)
    return np.asarray([[rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]])


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (K, 4) and (L, 4), float64 (K, L)."""
    first, second = first[:, None].astype(np.float64), second[None].astype(np.float64)
    size = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    shared = np.maximum(size, 0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (first, second)]
    return shared / np.maximum(areas[0] + areas[1] - shared, 1e-12)


def pixels_in_boxes(masks: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """How many pixels of masks bool (N, H, W) are in boxes (N, K, 4), float64 (N, K)."""
    rows, columns = (np.arange(side) for side in masks.shape[1:])
    down = (rows >= boxes[..., :1]) & (rows < boxes[..., 2:3])
    across = (columns >= boxes[..., 1:2]) & (columns < boxes[..., 3:])
    return np.einsum("nhw,nkh,nkw->nk", *(x.astype(np.float64) for x in (masks, down, across)))


def best_iou(heat: np.ndarray, boxes: np.ndarray, threshold: float = 0.15) -> float:
    """Largest intersection over union of the map's box with any of ``boxes``, 0..1."""
    overlaps = box_iou(largest_box(heat, threshold), _boxes(boxes))
    return float(overlaps.max()) if overlaps.size else 0.0


def energy(heat: np.ndarray, mask: np.ndarray) -> float:
    """Share of the map's sum that lies within ``mask`` (H, W); NaN if the sum is 0.

    Wang et al., Score-CAM, 2020. Negative values count as 0.
    """
    heat = np.maximum(_map(heat), 0)
    in_mask = booleans("mask", mask, heat.shape)
    total = heat.sum()
    return float(heat[in_mask].sum() / total) if total > 0 else math.nan


def pixel_auroc(heat: np.ndarray, mask: np.ndarray) -> float:
    """AUROC of the map as a score of ``mask`` (H, W) bool; NaN if all or no pixels are inside."""
    heat = _map(heat)
    in_mask = booleans("mask", mask, heat.shape)
    return auroc(heat[in_mask], heat[~in_mask])


def region_overlap(heats: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """PRO: the mean share of a region that is found, over false positive rates up to ``limit``.

    Bergmann et al., MVTec AD, 2021. Regions are the connected parts of the masks (pixels that share
    a side or a corner); all count alike, whatever their size. The area under the mean share over
    the false positive rate of pixels, by exact steps, straight between them, is divided by
    ``limit``: 0..1. NaN without regions or without pixels outside of them.

    Args:
      heats: (N, H, W), greater for more likely inside.
      masks: bool (N, H, W).
      limit: above 0, at most 1.
    """
    if not 0 < limit <= 1:
        raise ValueError(f"limit={limit}; it must be above 0 and at most 1")
    heats, masks = np.asarray(heats), np.asarray(masks)
    if heats.ndim != 3 or heats.dtype.kind != "f":
        raise ValueError(
            f"heats are {heats.dtype}{list(heats.shape)}; they must be floats (N, H, W)"
        )
    inside = booleans("masks", masks, heats.shape)
    heats = defined("heats", heats.reshape(len(heats), -1), finite=True).reshape(heats.shape)
    if not inside.any() or inside.all():
        return math.nan
    weights, regions = np.zeros(heats.shape), 0
    for weight, mask in zip(weights, inside, strict=True):
        labels: Any = ndimage.label(mask, np.ones((3, 3)))
        found, count = labels
        sizes = np.bincount(found.ravel(), minlength=count + 1)
        weight[mask] = 1 / sizes[found[mask]]
        regions += count
    order = np.argsort(-heats, axis=None, kind="stable")
    scores = heats.ravel()[order]
    last = np.append(scores[1:] != scores[:-1], True)
    overlap = np.append(0, np.cumsum(weights.ravel()[order])[last] / regions)
    rate = np.append(0, np.cumsum(~inside.ravel()[order])[last] / (~inside).sum())
    end = np.interp(limit, rate, overlap)
    overlap, rate = np.append(overlap[rate <= limit], end), np.append(rate[rate <= limit], limit)
    return float(np.trapezoid(overlap, rate) / limit)


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
