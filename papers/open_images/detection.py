"""Average precision of detections under partially verified labels and group boxes (Open Images)."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from vision.metrics.arrays import (
    MetricError,
    booleans,
    check_choice,
    check_fraction,
    class_indices,
    defined,
    mean,
    ratio,
    vector,
)

Rule = Literal["voc", "v2", "challenge"]


@dataclasses.dataclass(frozen=True, eq=False)
class DetectedBoxes:
    """Boxes of many images, one per row.

    Attributes:
      image: int (M,), 0..N-1.
      label: int (M,), 0..K-1.
      box: real (M, 4): y0, x0, y1, x1, with y0 <= y1 and x0 <= x1, in any unit.
    """

    image: np.ndarray
    label: np.ndarray
    box: np.ndarray

    def take(self, rows: np.ndarray) -> DetectedBoxes:
        return DetectedBoxes(self.image[rows], self.label[rows], self.box[rows])

    def checked(self, name: str, images: int, classes: int) -> DetectedBoxes:
        """With int64 labels and float64 boxes.

        Raises:
          ValueError: shapes or dtypes.
          MetricError: an image or class out of range, NaN, or a box whose end is before its start.
        """
        image = class_indices(f"{name}.image", self.image, None, images)
        label = class_indices(f"{name}.label", self.label, len(image), classes)
        box = np.asarray(self.box)
        if box.shape != (len(image), 4) or box.dtype.kind not in "fiu":
            raise ValueError(
                f"{name}.box is {box.dtype}{list(box.shape)}; it must be real ({len(image)}, 4)"
            )
        box = defined(f"{name}.box", box.astype(np.float64), finite=True)
        invalid = (image < 0) | (label < 0) | (box[:, :2] > box[:, 2:]).any(1)
        if invalid.any():
            raise MetricError(
                f"{name}: {invalid.sum()} rows lack an image or class or have a box that ends "
                f"before it begins, the first is row {int(invalid.argmax())}"
            )
        return DetectedBoxes(image, label, box)


def expand_boxes(boxes: DetectedBoxes, above: np.ndarray) -> tuple[DetectedBoxes, np.ndarray]:
    """Every box once for its class and each ancestor, and the source row (M',) of each."""
    above = booleans("above", above, (None, None))
    row, label = np.nonzero(above[boxes.label])
    return DetectedBoxes(boxes.image[row], label, boxes.box[row]), row


def overlap(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intersection over union, and over the area of ``a``, (A, B) each, of boxes (A, 4), (B, 4).

    0 where the divisor is 0.
    """
    start = np.maximum(a[:, None, :2], b[None, :, :2])
    end = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.clip(end - start, 0, None).prod(-1)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(-1) for x in (a, b))
    union = area_a[:, None] + area_b - intersection
    return (
        np.nan_to_num(ratio(intersection, union)),
        np.nan_to_num(ratio(intersection, np.broadcast_to(area_a[:, None], intersection.shape))),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class DetectionPrecision:
    """Average precision of detections.

    Attributes:
      precision: float64 (K,), area under the monotone envelope of precision over recall; NaN for a
        class without true boxes.
      positives: int64 (K,), true boxes, groups included where the rule counts them.
      mean: over classes with true boxes; NaN if there are none.
      unverified: dropped detections, of classes not verified in their image.
      ignored: detections inside a group that count as neither correct nor wrong.
    """

    precision: np.ndarray
    positives: np.ndarray
    mean: float
    unverified: int
    ignored: int


def detection_precision(
    truth: DetectedBoxes,
    group: np.ndarray,
    detections: DetectedBoxes,
    scores: np.ndarray,
    verified: np.ndarray,
    rule: Rule = "challenge",
    iou: float = 0.5,
) -> DetectionPrecision:
    """AP per class of ``detections`` against true boxes.

    In order of descending score, ties in the given order, a detection is correct if the non-group
    true box of its image and class with the largest overlap is not matched yet and the overlap is
    at least ``iou``. ``voc``: every other detection is wrong, groups are ordinary boxes, and
    unverified labels count as absent. ``v2``: detections of classes whose label is -1 in that image
    are dropped, and those that are not correct but have ``iou`` or more of their area inside a
    group of their class are ignored. ``challenge``: the best of the latter is correct, once per
    group, and a group without any is missed. Labels and boxes have to be expanded beforehand.

    Args:
      truth: true boxes.
      group: bool (M,), true boxes of a group of five or more objects.
      detections: predicted boxes.
      scores: real (D,), without NaN.
      verified: int (N, K), 1, 0 or -1. A class with a box in an image counts as verified.
      rule, iou: see above; ``iou`` in (0, 1).

    Raises:
      ValueError: shapes, dtypes or arguments.
      MetricError: NaN scores, images or classes out of range.
    """
    check_choice("rule", rule, ("voc", "v2", "challenge"))
    check_fraction("iou", iou)
    verified = np.asarray(verified)
    if verified.ndim != 2 or verified.dtype.kind not in "iu":
        raise ValueError(f"verified is {verified.dtype}{list(verified.shape)}; integers (N, K)")
    images, classes = verified.shape
    truth = truth.checked("truth", images, classes)
    detections = detections.checked("detections", images, classes)
    scores = defined("scores", vector("scores", scores, len(detections.label)))
    group = booleans("group", group, (len(truth.label),))
    unverified = 0
    if rule == "voc":
        group = np.zeros_like(group)
    else:
        is_verified = verified >= 0
        is_verified[truth.image, truth.label] = True
        keep = is_verified[detections.image, detections.label]
        detections, scores, unverified = detections.take(keep), scores[keep], int((~keep).sum())
    # 1 correct, 0 wrong, -1 ignored.
    outcome = np.zeros(len(scores), np.int64)
    order = np.argsort(-scores, kind="stable")
    keys = detections.image * classes + detections.label
    order = order[np.argsort(keys[order], kind="stable")]
    true_keys = truth.image * classes + truth.label
    for rows in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
        if len(rows):
            same_class = true_keys == keys[rows[0]]
            outcome[rows] = _match(
                detections.box[rows],
                truth.box[same_class & ~group],
                truth.box[same_class & group],
                rule,
                iou,
            )
    counted = ~group if rule == "v2" else np.ones_like(group)
    positives = np.bincount(truth.label[counted], minlength=classes)
    precision = np.full(classes, np.nan)
    for label in np.flatnonzero(positives):
        rows = (detections.label == label) & (outcome >= 0)
        precision[label] = _area(scores[rows], outcome[rows], int(positives[label]))
    return DetectionPrecision(
        precision=precision,
        positives=positives,
        mean=mean(precision[positives > 0]),
        unverified=unverified,
        ignored=int((outcome < 0).sum()),
    )


def _match(
    detections: np.ndarray, boxes: np.ndarray, groups: np.ndarray, rule: Rule, iou: float
) -> np.ndarray:
    """Outcomes (D,) of the detections of one class in one image, in order of descending score."""
    outcome = np.zeros(len(detections), np.int64)
    if len(boxes):
        ious, _ = overlap(detections, boxes)
        matched = np.zeros(len(boxes), bool)
        for i, best in enumerate(ious.argmax(1)):
            if ious[i, best] >= iou and not matched[best]:
                matched[best] = True
                outcome[i] = 1
    if len(groups):
        _, inside = overlap(detections, groups)
        best = inside.argmax(1)
        within = (inside.max(1) >= iou) & (outcome == 0)
        outcome[within] = -1
        if rule == "challenge":
            for which in np.unique(best[within]):
                outcome[np.flatnonzero(within & (best == which))[0]] = 1
    return outcome


def _area(scores: np.ndarray, correct: np.ndarray, positives: int) -> float:
    """Average precision; detections of equal score are one step of the curve."""
    threshold, step = np.unique(-scores, return_inverse=True)
    true_positives = np.cumsum(np.bincount(step, correct, minlength=len(threshold)))
    predicted = np.cumsum(np.bincount(step, minlength=len(threshold)))
    envelope = np.maximum.accumulate((true_positives / predicted)[::-1])[::-1]
    return float((np.diff(true_positives, prepend=0) * envelope).sum() / positives)
