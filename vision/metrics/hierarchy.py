"""Severity of mistakes in a class hierarchy.

Source: Bertinetto et al., "Making Better Mistakes: Leveraging Class Hierarchies with Deep
Networks", 2020.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from vision.metrics.arrays import (
    MetricError,
    class_indices,
    matrix,
    mean,
    predictions,
    undefined_rows,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Hierarchy:
    """A rooted tree whose leaves are the classes.

    Attributes:
      path: int64 (K, L + 1), nodes from the root (column 0) to class k; a shallower leaf is
        repeated to the end, so that two rows agree in a column only if they do in all before it.
      height: int64 (nodes,), edges on the longest path down to a leaf, 0 for leaves.
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
            nodes = self.path[a, level]
            common = np.where(nodes == self.path[b, level], nodes, common)
        return self.height[common]


def hierarchy(paths: Sequence[Sequence[str]]) -> Hierarchy:
    """A tree from the path of names to every class, without the root, the class last.

    ``[("animal", "dog"), ("animal", "cat"), ("car",)]``. A node is identified by its path from the
    root: nodes of one name under different parents are different nodes.

    Raises:
      ValueError: no classes, an empty path, one path twice, or a class that is an inner node on
        the path to another one.
    """
    index: dict[tuple[str, ...], int] = {(): 0}
    rows: list[list[int]] = []
    leaves: set[tuple[str, ...]] = set()
    for number, names in enumerate(paths):
        names = tuple(names)
        if not names or names in leaves:
            what = f"path {'/'.join(names)!r} occurs twice" if names else "the path is empty"
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
    """Accuracy and severity of mistakes in a class hierarchy.

    Attributes:
      severity: mean height of the lowest common ancestor of true and predicted class over the
        mistakes, 1..height of the tree; NaN without mistakes.
      distance: the same over all examples, 0 for correct ones.
      level_accuracy: float64 (L,), share of examples whose prediction has the correct ancestor 1,
        2, ..., L edges below the root (a shallower class counts as its own ancestor); the last is
        the accuracy.
      examples: number of labelled examples with a prediction.
      mistakes: number of wrong ones among them.
      undefined: number of labelled examples without a prediction (-1, from scores that are not
        finite): left out of the distances, wrong on every level.
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
      MetricError: a class outside the tree.
    """
    classes = len(tree.path)
    labels = class_indices("labels", labels, None, classes)
    predicted = class_indices("predicted", predicted, len(labels), classes)
    labelled = labels >= 0
    predicted_rows = labelled & (predicted >= 0)
    true, best = labels[predicted_rows], predicted[predicted_rows]
    distance = tree.distance(true, best)
    mistaken = distance > 0
    agreeing = (tree.path[true, 1:] == tree.path[best, 1:]).sum(0)
    total = int(labelled.sum())
    return HierarchicalAccuracy(
        severity=mean(distance[mistaken]),
        distance=mean(distance),
        level_accuracy=agreeing / total if total else np.full(tree.levels, np.nan),
        examples=len(true),
        mistakes=int(mistaken.sum()),
        undefined=total - len(true),
    )


def hierarchical_distance_at(
    scores: np.ndarray, labels: np.ndarray, tree: Hierarchy, k: int
) -> float:
    """Mean height of the common ancestor of the true class and each of the ``k`` best classes.

    Averaged over the ``k`` classes and the labelled examples; 0 is reached only for ``k`` = 1.
    Equal scores rank by class index.

    Args:
      scores: (N, K) without ``undefined_rows``.
      labels: int (N,), -1 where unlabelled.
      k: 1..K.

    Raises:
      ValueError: shapes or ``k``.
      MetricError: undefined rows, a label out of range, or K other than the tree's classes.
    """
    scores = matrix("scores", scores)
    classes = len(tree.path)
    if scores.shape[1] != classes:
        raise MetricError(f"scores have {scores.shape[1]} classes, the hierarchy {classes}")
    if not 1 <= k <= classes:
        raise ValueError(f"k={k}; it must be in 1..{classes}")
    labels = class_indices("labels", labels, len(scores), classes)
    keep = labels >= 0
    scores, labels = scores[keep], labels[keep]
    undefined = np.flatnonzero(undefined_rows(scores))
    if len(undefined):
        raise MetricError(
            f"scores: {len(undefined)} of {len(labels)} labelled rows predict no class (NaN or "
            f"infinity), the first is row {undefined[0]}; leave such rows out"
        )
    if k == 1:
        best = predictions(scores)[:, None]
    else:
        # Ascending sort of the reversed columns, read backwards: ties are in order of class index.
        best = classes - 1 - np.argsort(scores[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :k]
    return mean(tree.distance(labels[:, None], best).ravel())
