"""Localisation: boxes, pointing, energy and pixels of maps whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vision.metrics.arrays import MetricError
from vision.metrics.localisation import (
    best_iou,
    box_iou,
    energy,
    largest_box,
    near,
    parts,
    pixel_auroc,
    pixels_in_boxes,
    pointing,
    region_overlap,
)


def heat(**boxes: tuple[float, tuple[int, int, int, int]]) -> np.ndarray:
    x = np.zeros((20, 30), np.float32)
    for value, (y0, x0, y1, x1) in boxes.values():
        x[y0:y1, x0:x1] = value
    return x


TWO = heat(large=(0.2, (2, 3, 8, 9)), small=(1.0, (12, 20, 14, 22)))


def test_the_box_is_that_of_the_largest_part_above_the_threshold():
    assert largest_box(TWO).tolist() == [[2, 3, 8, 9]]
    assert largest_box(TWO, 0.3).tolist() == [[12, 20, 14, 22]]
    assert parts(TWO, 0.15)[1] == 2
    # Corners do not join.
    assert parts(heat(a=(1, (0, 0, 2, 2)), b=(1, (2, 2, 4, 4))), 0.15)[1] == 2
    assert best_iou(TWO, np.asarray([[0, 0, 0, 0], [2, 3, 8, 6]])) == pytest.approx(0.5)
    assert best_iou(np.ones((4, 4), np.float32), np.asarray([[0, 0, 4, 4]])) == 0
    assert largest_box(np.zeros((4, 4), np.float32)).shape == (0, 4)


def test_box_iou():
    first = np.asarray([[0, 0, 4, 4], [1, 1, 2, 2]])
    second = np.asarray([[2, 2, 6, 6], [0, 0, 4, 4], [8, 8, 9, 9]])
    np.testing.assert_allclose(box_iou(first, second), [[4 / 28, 1, 0], [0, 1 / 16, 0]])


def test_pointing_has_a_tolerance_from_the_edge_of_the_box():
    boxes = np.asarray([[0, 0, 0, 0], [10, 10, 13, 16]])
    assert not pointing(TWO, boxes, 4)  # at (12.5, 20.5), 5.5 to the right of the last column
    assert pointing(TWO, boxes, 6)
    assert near((10, 15), boxes, 0)
    assert not near((13, 15), boxes, 0)
    assert not near((0, 0), boxes, 4)
    assert not pointing(np.ones((4, 4), np.float32), np.asarray([[0, 0, 4, 4]]))


def test_energy_and_pixels():
    mask = np.zeros((20, 30), bool)
    mask[2:8, 3:6] = True
    total = 36 * 0.2 + 4
    assert energy(TWO, mask) == pytest.approx(18 * 0.2 / total)
    assert energy(TWO - 5, mask) != energy(TWO - 5, mask)  # nothing positive: NaN
    outside = np.sort(TWO[~mask])
    wins = np.mean([(outside < v).mean() + (outside == v).mean() / 2 for v in TWO[mask]])
    assert pixel_auroc(TWO, mask) == pytest.approx(wins)
    assert math.isnan(pixel_auroc(TWO, np.zeros((20, 30), bool)))
    with pytest.raises(MetricError, match="NaN"):
        energy(np.full((2, 2), np.nan), np.ones((2, 2), bool))
    with pytest.raises(ValueError, match="boxes"):
        pointing(TWO, np.zeros(4))


def test_region_overlap_counts_regions_alike_up_to_a_false_positive_rate():
    rng = np.random.default_rng(0)
    masks = np.zeros((3, 8, 9), bool)
    masks[0, :2, :3] = masks[0, 5:, 7:] = masks[2, 3, 3] = masks[2, 4, 4] = True
    heats = np.round(rng.random(masks.shape) + 0.4 * masks, 1)
    # One by one, for every threshold; the two diagonal pixels are one region.
    regions = [np.zeros_like(masks) for _ in range(3)]
    regions[0][0, :2, :3] = regions[1][0, 5:, 7:] = True
    regions[2][2] = masks[2]
    points = [(0.0, 0.0)]
    for threshold in np.unique(heats)[::-1]:
        found = heats >= threshold
        shares = [float(found[region].mean()) for region in regions]
        points.append((float(found[~masks].mean()), float(np.mean(shares))))
    at = np.linspace(0, 0.3, 30001)
    expected = np.trapezoid(np.interp(at, *np.transpose(points)), at) / 0.3
    assert region_overlap(heats, masks) == pytest.approx(expected, abs=1e-5)
    assert region_overlap(np.exp(heats), masks) == pytest.approx(expected, abs=1e-5)
    assert region_overlap(masks.astype(float), masks) == pytest.approx(1)
    assert math.isnan(region_overlap(heats, np.zeros_like(masks)))
    with pytest.raises(ValueError, match="limit=0"):
        region_overlap(heats, masks, 0)
    with pytest.raises(MetricError, match="the first is row 1"):
        region_overlap(np.where(np.arange(3)[:, None, None] == 1, np.nan, heats), masks)


def test_pixels_in_boxes_are_counted():
    masks = np.random.default_rng(0).random((2, 5, 7)) < 0.5
    boxes = np.array([[[0, 0, 5, 7], [1, 2, 3, 4]], [[4, 6, 5, 7], [2, 2, 2, 5]]])
    expected = [
        [mask[y0:y1, x0:x1].sum() for y0, x0, y1, x1 in of]
        for mask, of in zip(masks, boxes.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(pixels_in_boxes(masks, boxes), expected)
