"""Open Images: what labels imply, and detections of classes that nobody verified or in groups."""

from __future__ import annotations

import numpy as np
import pytest

from papers.open_images.detection import (
    DetectedBoxes,
    Rule,
    detection_precision,
    expand_boxes,
    overlap,
)
from papers.open_images.method import closure, expand_labels
from vision.metrics.arrays import MetricError

# 0 animal, 1 dog, 2 poodle, 3 car
PARENTS = np.zeros((4, 4), bool)
PARENTS[1, 0] = PARENTS[2, 1] = True
ABOVE = closure(PARENTS)


def boxes(*rows: tuple[float, ...]) -> DetectedBoxes:
    """Rows of image, label, y0, x0, y1, x1."""
    table = np.asarray(rows, float).reshape(-1, 6)
    return DetectedBoxes(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2:])


TRUTH = boxes((0, 0, 0, 0, 10, 10), (0, 0, 20, 20, 30, 30), (1, 1, 0, 0, 10, 10))
SINGLE = np.zeros(3, bool)
VERIFIED = np.array([[1, -1], [0, 1]])


def precision(detections: DetectedBoxes, scores: list[float], rule: Rule, **changes):
    given = {"truth": TRUTH, "group": SINGLE, "verified": VERIFIED} | changes
    return detection_precision(detections=detections, scores=np.asarray(scores), rule=rule, **given)


def test_ancestors_follow_and_descendants_are_absent():
    np.testing.assert_array_equal(ABOVE[2], [True, True, True, False])
    labels = np.array([[-1, -1, 1, -1], [0, -1, -1, 1], [1, 0, -1, -1], [-1, -1, -1, -1]])
    expected = [[1, 1, 1, -1], [0, 0, 0, 1], [1, 0, 0, -1], [-1, -1, -1, -1]]
    np.testing.assert_array_equal(expand_labels(labels, ABOVE), expected)
    np.testing.assert_array_equal(expand_labels(expand_labels(labels, ABOVE), ABOVE), expected)
    with pytest.raises(MetricError, match="row 0: class"):
        expand_labels(np.array([[0, -1, 1, -1]]), ABOVE)
    many, row = expand_boxes(boxes((0, 2, 0, 0, 1, 1), (1, 3, 0, 0, 1, 1)), ABOVE)
    assert (many.label.tolist(), row.tolist()) == ([0, 1, 2, 3], [0, 0, 0, 1])
    circle = PARENTS.copy()
    circle[0, 2] = True
    with pytest.raises(ValueError, match="its own ancestor"):
        closure(circle)


def test_an_unverified_class_lowers_voc_alone():
    hits = [(0, 0, 0, 0, 10, 10), (1, 1, 0, 0, 10, 10)]
    stranger = (0, 1, 0, 0, 10, 10)  # class 1 was not looked for in image 0
    for rule in ("v2", "challenge"):
        before = precision(boxes(*hits), [0.5, 0.4], rule)
        after = precision(boxes(*hits, stranger), [0.5, 0.4, 0.9], rule)
        assert before.mean == after.mean == pytest.approx((0.5 + 1) / 2)
        assert after.unverified == 1
    before = precision(boxes(*hits), [0.5, 0.4], "voc")
    after = precision(boxes(*hits, stranger), [0.5, 0.4, 0.9], "voc")
    assert (before.mean, after.mean) == pytest.approx((0.75, 0.5))
    # Verified to be absent: an error under all rules.
    absent = boxes(*hits, (1, 0, 0, 0, 10, 10))
    assert precision(absent, [0.5, 0.4, 0.9], "v2").precision[0] == pytest.approx(0.25)


def test_three_detections_in_a_group_are_one():
    group = np.array([False, True, False])
    inside = [(0, 0, 20 + i, 20, 25 + i, 25) for i in range(3)]
    single, scores = (0, 0, 0, 0, 10, 10), [0.9, 0.8, 0.7, 0.6]
    challenge = precision(boxes(*inside, single), scores, "challenge", group=group)
    assert challenge.precision[0] == 1
    assert (challenge.positives.tolist(), challenge.ignored) == ([2, 1], 2)
    ignored = precision(boxes(*inside, single), scores, "v2", group=group)
    assert ignored.precision[0] == 1
    assert (ignored.positives.tolist(), ignored.ignored) == ([1, 1], 3)
    # As boxes like others three wrong ones come first, and the group is missed.
    voc = precision(boxes(*inside, single), scores, "voc", group=group)
    assert voc.precision[0] == pytest.approx(0.25 / 2)
    missed = precision(boxes(single), [0.5], "challenge", group=group)
    assert missed.precision[0] == 0.5


def test_a_box_is_found_once_and_the_envelope_falls():
    twice = boxes((0, 0, 0, 0, 10, 10), (0, 0, 0, 0, 10, 9), (0, 0, 20, 20, 30, 30))
    got = precision(twice, [0.9, 0.8, 0.7], "voc")
    assert got.precision[0] == pytest.approx((1 + 2 / 3) / 2)
    tied = precision(twice, [0.5, 0.5, 0.5], "voc")
    assert tied.precision[0] == pytest.approx(2 / 3)
    half = boxes((0, 0, 0, 0, 10, 5))
    assert precision(half, [0.5], "voc").precision[0] == 0.5
    less = boxes((0, 0, 0, 0, 10, 4.9))
    assert precision(less, [0.5], "voc").precision[0] == 0


def reference(
    detections: DetectedBoxes, scores: np.ndarray, truth: DetectedBoxes, label: int
) -> float:
    """AP of one class, detection by detection."""
    left = {i for i in range(len(truth.label)) if truth.label[i] == label}
    total, right, points = len(left), 0, []
    rows = sorted(np.flatnonzero(detections.label == label), key=lambda i: -scores[i])
    for n, i in enumerate(rows, 1):
        candidates = [
            (overlap(detections.box[i : i + 1], truth.box[j : j + 1])[0].item(), -int(j))
            for j in np.flatnonzero((truth.label == label) & (truth.image == detections.image[i]))
        ]
        best, j = max(candidates, default=(0.0, 1))
        if best >= 0.5 and -j in left:
            left.remove(-j)
            right += 1
        points.append((right / total, right / n))
    area, before = 0.0, 0.0
    for k, (recall, _) in enumerate(points):
        area += (recall - before) * max(p for _, p in points[k:])
        before = recall
    return area


def test_equal_to_a_slow_reference():
    rng = np.random.default_rng(0)

    def some(count: int) -> DetectedBoxes:
        low = rng.uniform(0, 6, (count, 2))
        box = np.concatenate([low, low + rng.uniform(3, 6, (count, 2))], 1)
        return DetectedBoxes(rng.integers(0, 5, count), rng.integers(0, 3, count), box)

    truth, detections = some(40), some(120)
    scores, verified = rng.permutation(120) / 120, np.zeros((5, 4), int)
    computed = detection_precision(truth, np.zeros(40, bool), detections, scores, verified, "voc")
    expected = [reference(detections, scores, truth, label) for label in range(3)]
    np.testing.assert_allclose(computed.precision[:3], expected, rtol=1e-12)
    assert min(expected) > 0.05
    assert np.isnan(computed.precision[3])
    assert computed.mean == pytest.approx(np.mean(expected))


def test_nothing_and_bad_input():
    none = boxes()
    empty = precision(none, [], "challenge")
    np.testing.assert_array_equal(empty.precision, [0, 0])
    nothing = precision(none, [], "v2", truth=none, group=np.zeros(0, bool))
    assert np.isnan(nothing.mean)
    with pytest.raises(MetricError, match="NaN"):
        precision(boxes((0, 0, 0, 0, 1, 1)), [np.nan], "v2")
    with pytest.raises(MetricError, match="ends before it begins"):
        precision(boxes((0, 0, 5, 0, 1, 1)), [0.5], "v2")
    with pytest.raises(MetricError, match="out of range"):
        precision(boxes((0, 2, 0, 0, 1, 1)), [0.5], "v2")
    with pytest.raises(ValueError, match="rule='coco'"):
        precision(none, [], "coco")  # pyright: ignore[reportArgumentType]
