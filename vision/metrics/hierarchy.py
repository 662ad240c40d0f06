"""How bad a mistake is, by a tree of classes.

Source: Bertinetto et al., "Making Better Mistakes: Leveraging Class Hierarchies with Deep
Networks", 2020.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from vision.metrics.arrays import MetricError, defined, matrix, mean, predictions, whole


@dataclasses.dataclass(frozen=True, eq=False)
class Hierarchy:
    """A rooted tree whose leaves are the classes.

    Attributes:
      path: int64 (K, L + 1), nodes from the root (column 0) to class k; a leaf less deep than L is
        repeated to the end, so that two rows agree in a column only if they do in all before it.
      height: int64 (nodes,), edges on the longest way down to a leaf, 0 of leaves.
    """

    path: np.ndarray
    height: np.ndarray

    @property
    def levels(self) -> int:
        """L: edges from the root to the deepest class."""
        return self.path.shape[1] - 1

    def distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Height of the lowest common ancestor of classes ``a`` and ``b``, int64, 0 if equal.

        ``a`` and ``b`` are integer arrays 0..K-1 of shapes that broadcast.
        """
        a, b = np.broadcast_arrays(a, b)
        common = self.path[a, 0]
        for level in range(1, self.path.shape[1]):
            here = self.path[a, level]
            common = np.where(here == self.path[b, level], here, common)
        return self.height[common]


def hierarchy(paths: Sequence[Sequence[str]]) -> Hierarchy:
    """A tree from the names on the way to every class, root left out, the class last.

    ``[("animal", "dog"), ("animal", "cat"), ("car",)]``. A node is its whole way from the root: two
    nodes of one name under different parents are two nodes.

    Raises:
      ValueError: no classes, an empty path, one path twice, or a class that lies on the way to
        another one.
    """
    index: dict[tuple[str, ...], int] = {(): 0}
    rows: list[list[int]] = []
    leaves: set[tuple[str, ...]] = set()
    for number, names in enumerate(paths):
        names = tuple(names)
        if not names or names in leaves:
            what = f"path {'/'.join(names)!r} is there twice" if names else "the path is empty"
            raise ValueError(f"paths: class {number}: {what}")
        leaves.add(names)
        prefixes = [names[:depth] for depth in range(len(names) + 1)]
        rows.append([index.setdefault(prefix, len(index)) for prefix in prefixes])
    if not rows:
        raise ValueError("paths: no classes")
    inner = {prefix for names in leaves for prefix in (names[:d] for d in range(len(names)))}
    if inner & leaves:
        name = "/".join(min(inner & leaves))
        raise ValueError(f"paths: {name!r} is a class and on the way to another; give it a leaf")
    depth = max(map(len, rows))
    height = np.zeros(len(index), np.int64)
    for row in rows:
        for up, node in enumerate(reversed(row)):
            height[node] = max(height[node], up)
    path = np.array([row + [row[-1]] * (depth - len(row)) for row in rows], np.int64)
    return Hierarchy(path, height)


@dataclasses.dataclass(frozen=True, eq=False)
class HierarchicalAccuracy:
    """Predictions seen through a tree.

    Attributes:
      severity: mean height of the lowest common ancestor of true and predicted class over the
        mistakes, 1..height of the tree; NaN without mistakes.
      distance: the same over all examples, 0 for right ones.
      level_accuracy: float64 (L,), share of examples whose prediction has the right ancestor 1, 2,
        ..., L edges below the root (a less deep class counts as its own ancestor); the last is the
        accuracy.
      examples: labelled, and with a prediction.
      mistakes: of these.
      undefined: labelled without a prediction (-1, from NaN scores): left out of the distances,
        wrong on every level.
    """

    severity: float
    distance: float
    level_accuracy: np.ndarray
    examples: int
    mistakes: int
    undefined: int


def hierarchical_accuracy(
    predicted: np.ndarray, labels: np.ndarray, tree: Hierarchy
) -> HierarchicalAccuracy:
    """Severity of mistakes and accuracy per level.

    Args:
      predicted: int (N,), -1 where there is no prediction (``arrays.predictions``).
      labels: int (N,), -1 where unlabelled.

    Raises:
      ValueError: shapes or dtypes.
      MeasureError: a class outside the tree.
    """
    classes = len(tree.path)
    labels = whole("labels", labels, None, classes)
    predicted = whole("predicted", predicted, len(labels), classes)
    labelled = labels >= 0
    fine = labelled & (predicted >= 0)
    true, found = labels[fine], predicted[fine]
    distance = tree.distance(true, found)
    wrong = distance > 0
    same = (tree.path[true, 1:] == tree.path[found, 1:]).sum(0)
    total = int(labelled.sum())
    return HierarchicalAccuracy(
        severity=mean(distance[wrong]),
        distance=mean(distance),
        level_accuracy=same / total if total else np.full(tree.levels, np.nan),
        examples=len(true),
        mistakes=int(wrong.sum()),
        undefined=total - len(true),
    )


def hierarchical_distance_at(
    scores: np.ndarray, labels: np.ndarray, tree: Hierarchy, k: int
) -> float:
    """Mean height of the common ancestor of the true class and each of the ``k`` best classes.

    Averaged over the ``k`` classes and the labelled examples; 0 is reached only for ``k`` = 1.
    Equal scores rank by class index.

    Args:
      scores: (N, K) without NaN.
      labels: int (N,), -1 where unlabelled.
      k: 1..K.

    Raises:
      ValueError: shapes or ``k``.
      MeasureError: NaN, a label out of range, or K other than the tree's classes.
    """
    scores = matrix("scores", scores)
    classes = len(tree.path)
    if scores.shape[1] != classes:
        raise MetricError(f"scores have {scores.shape[1]} classes, the hierarchy {classes}")
    if not 1 <= k <= classes:
        raise ValueError(f"k={k}; it must be in 1..{classes}")
    labels = whole("labels", labels, len(scores), classes)
    keep = labels >= 0
    scores, labels = defined("scores", scores[keep]), labels[keep]
    if k == 1:
        best = predictions(scores)[:, None]
    else:
        # Rising sort of the reversed columns, read backwards: ties come out by rising class.
        best = classes - 1 - np.argsort(scores[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :k]
    return mean(tree.distance(labels[:, None], best).ravel())
