"""Labels of a hierarchy that people verified in part, and the detection precision made for them.

Kuznetsova et al., "The Open Images Dataset V4", 2020, and the rules of its challenge of 2018.
Labels are 1 (verified to be there), 0 (verified not to be) and -1 (nobody looked), as in
``vision.metrics.multilabel``, whose mAP takes them as they are.
"""

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


def closure(parents: np.ndarray) -> np.ndarray:
    """``above`` (K, K) bool: ``above[c, a]`` where ``a`` is ``c`` or one of its ancestors.

    Args:
      parents: (K, K) bool, ``parents[c, p]`` where ``p`` is a parent of ``c``; several are allowed.

    Raises:
      ValueError: not square, or a class that is its own ancestor.
    """
    count = len(np.asarray(parents))
    above = booleans("parents", parents, (count, count))
    if not count:
        raise ValueError("parents is empty: no classes")
    for _ in range(count.bit_length()):
        above = above | (above.astype(np.float32) @ above.astype(np.float32) > 0)
    if above.diagonal().any():
        raise ValueError(f"parents: class {int(above.diagonal().argmax())} is its own ancestor")
    return above | np.eye(count, dtype=bool)


def expand_labels(labels: np.ndarray, above: np.ndarray) -> np.ndarray:
    """What labels (N, K) say of other classes: 1 of all ancestors, 0 of all descendants, int8.

    Raises:
      ValueError: shapes or dtypes.
      MetricError: labels other than -1, 0, 1, or a class that is there below one that is not.
    """
    labels, above = np.asarray(labels), booleans("above", above, (None, None))
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or above.shape != (labels.shape[1],) * 2:
        raise ValueError(
            f"labels is {labels.dtype}{list(labels.shape)} and above {list(above.shape)}; they "
            "must be integers (N, K) and (K, K)"
        )
    if ((labels < -1) | (labels > 1)).any():
        raise MetricError("labels other than -1, 0 and 1")
    up = above.astype(np.float32)
    there = (labels == 1).astype(np.float32) @ up > 0
    absent = (labels == 0).astype(np.float32) @ up.T > 0
    if (there & absent).any():
        row, column = (int(i[0]) for i in np.nonzero(there & absent))
        raise MetricError(
            f"row {row} says of class {column} that it is there, by itself or a descendant, and "
            "that it is not, by itself or an ancestor; mend the labels or leave the image out"
        )
    return np.where(there, 1, np.where(absent, 0, -1)).astype(np.int8)


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
          MetricError: an image or class out of range, NaN, or a box turned inside out.
        """
        image = class_indices(f"{name}.image", self.image, None, images)
        label = class_indices(f"{name}.label", self.label, len(image), classes)
        box = np.asarray(self.box)
        if box.shape != (len(image), 4) or box.dtype.kind not in "fiu":
            raise ValueError(
                f"{name}.box is {box.dtype}{list(box.shape)}; it must be real ({len(image)}, 4)"
            )
        box = defined(f"{name}.box", box.astype(np.float64), finite=True)
        wrong = (image < 0) | (label < 0) | (box[:, :2] > box[:, 2:]).any(1)
        if wrong.any():
            raise MetricError(
                f"{name}: {wrong.sum()} rows lack an image or class or have a box that ends "
                f"before it begins, the first is row {int(wrong.argmax())}"
            )
        return DetectedBoxes(image, label, box)


def expand_boxes(boxes: DetectedBoxes, above: np.ndarray) -> tuple[DetectedBoxes, np.ndarray]:
    """Every box once for its class and each ancestor, and the row (M',) that each came from."""
    above = booleans("above", above, (None, None))
    row, label = np.nonzero(above[boxes.label])
    return DetectedBoxes(boxes.image[row], label, boxes.box[row]), row


def overlap(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of boxes (A, 4) and (B, 4): intersection over union, and over the area of ``a``, (A, B).

    0 where the divisor has no area.
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    of_a, of_b = ((x[:, 2:] - x[:, :2]).prod(-1) for x in (a, b))
    union = of_a[:, None] + of_b - common
    return (
        np.nan_to_num(ratio(common, union)),
        np.nan_to_num(ratio(common, np.broadcast_to(of_a[:, None], common.shape))),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class DetectionPrecision:
    """Average precision of detections.

    Attributes:
      precision: float64 (K,), area under the falling envelope of precision over recall; NaN of a
        class without true boxes.
      positives: int64 (K,), boxes to find, groups included where the rule counts them.
      mean: of the classes that have any; NaN if none has.
      unverified: detections dropped, since nobody looked for their class in their image.
      ignored: detections inside a group that count neither way.
    """

    precision: np.ndarray
    positives: np.ndarray
    mean: float
    unverified: int
    ignored: int


def detection_precision(
    truth: DetectedBoxes,
    group: np.ndarray,
    found: DetectedBoxes,
    scores: np.ndarray,
    verified: np.ndarray,
    rule: Rule = "challenge",
    iou: float = 0.5,
) -> DetectionPrecision:
    """AP per class of ``found`` boxes against true ones.

    By falling score, equal ones in their order, a detection is right if the single true box of its
    image and class that it overlaps most is not taken yet and the overlap is ``iou`` or more.
    ``voc``: every other detection is wrong, groups are boxes like others, and labels that nobody
    verified count as absent. ``v2``: detections of classes whose label is -1 in that image are
    dropped, and those that are not right but lie with ``iou`` or more of their area in a group of
    their class are ignored. ``challenge``: of the latter the best one of every group is right, and
    a group without any is missed. Labels and boxes are to be expanded beforehand.

    Args:
      truth: true boxes.
      group: bool (M,), which of them stand for a group of five or more.
      found: detections.
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
    found = found.checked("found", images, classes)
    scores = defined("scores", vector("scores", scores, len(found.label)))
    group = booleans("group", group, (len(truth.label),))
    unverified = 0
    if rule == "voc":
        group = np.zeros_like(group)
    else:
        looked = verified >= 0
        looked[truth.image, truth.label] = True
        keep = looked[found.image, found.label]
        found, scores, unverified = found.take(keep), scores[keep], int((~keep).sum())
    # 1 right, 0 wrong, -1 ignored.
    outcome = np.zeros(len(scores), np.int64)
    order = np.argsort(-scores, kind="stable")
    keys = found.image * classes + found.label
    order = order[np.argsort(keys[order], kind="stable")]
    true_keys = truth.image * classes + truth.label
    for rows in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
        if len(rows):
            here = true_keys == keys[rows[0]]
            outcome[rows] = _match(
                found.box[rows], truth.box[here & ~group], truth.box[here & group], rule, iou
            )
    counted = ~group if rule == "v2" else np.ones_like(group)
    positives = np.bincount(truth.label[counted], minlength=classes)
    precision = np.full(classes, np.nan)
    for label in np.flatnonzero(positives):
        rows = (found.label == label) & (outcome >= 0)
        precision[label] = _area(scores[rows], outcome[rows], int(positives[label]))
    return DetectionPrecision(
        precision=precision,
        positives=positives,
        mean=mean(precision[positives > 0]),
        unverified=unverified,
        ignored=int((outcome < 0).sum()),
    )


def _match(
    found: np.ndarray, single: np.ndarray, groups: np.ndarray, rule: Rule, iou: float
) -> np.ndarray:
    """Outcomes (D,) of the detections of one class in one image, by falling score."""
    outcome = np.zeros(len(found), np.int64)
    if len(single):
        union, _ = overlap(found, single)
        taken = np.zeros(len(single), bool)
        for i, best in enumerate(union.argmax(1)):
            if union[i, best] >= iou and not taken[best]:
                taken[best] = True
                outcome[i] = 1
    if len(groups):
        _, inside = overlap(found, groups)
        best = inside.argmax(1)
        within = (inside.max(1) >= iou) & (outcome == 0)
        outcome[within] = -1
        if rule == "challenge":
            for which in np.unique(best[within]):
                outcome[np.flatnonzero(within & (best == which))[0]] = 1
    return outcome


def _area(scores: np.ndarray, right: np.ndarray, positives: int) -> float:
    """Equal scores are one step."""
    threshold, place = np.unique(-scores, return_inverse=True)
    hits = np.cumsum(np.bincount(place, right, minlength=len(threshold)))
    said = np.cumsum(np.bincount(place, minlength=len(threshold)))
    envelope = np.maximum.accumulate((hits / said)[::-1])[::-1]
    return float((np.diff(hits, prepend=0) * envelope).sum() / positives)
