"""Open Images: partially verified labels in a class hierarchy, expanded to ancestors.

Kuznetsova et al., The Open Images Dataset V4, 2020, and the rules of its challenge of 2018.
Headline: 9.2 million images, a class hierarchy with partially verified labels, and an average
precision for them.

Labels are 1 (verified present), 0 (verified absent) and -1 (not verified), as in
``vision.metrics.multilabel``, whose mAP accepts them. With the hierarchy a present class implies
its ancestors, and an absent one excludes its descendants (``expand_labels``). The average precision
of detections under these labels is ``papers.open_images.detection``.
"""

from __future__ import annotations

import numpy as np

from vision.metrics.arrays import (
    MetricError,
    booleans,
)


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
    """Labels (N, K) with those that they imply, int8: 1 for ancestors, 0 for descendants.

    Raises:
      ValueError: shapes or dtypes.
      MetricError: labels other than -1, 0, 1, or a present class below an absent one.
    """
    labels, above = np.asarray(labels), booleans("above", above, (None, None))
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or above.shape != (labels.shape[1],) * 2:
        raise ValueError(
            f"labels is {labels.dtype}{list(labels.shape)} and above {list(above.shape)}; they "
            "must be integers (N, K) and (K, K)"
        )
    if ((labels < -1) | (labels > 1)).any():
        raise MetricError("labels other than -1, 0 and 1")
    matrix = above.astype(np.float32)
    present = (labels == 1).astype(np.float32) @ matrix > 0
    absent = (labels == 0).astype(np.float32) @ matrix.T > 0
    if (present & absent).any():
        row, column = (int(i[0]) for i in np.nonzero(present & absent))
        raise MetricError(
            f"row {row}: class {column} is both present, by its own label or a descendant's, and "
            "absent, by its own label or an ancestor's; correct the labels or leave the image out"
        )
    return np.where(present, 1, np.where(absent, 0, -1)).astype(np.int8)
