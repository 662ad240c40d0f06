"""Subgroups of a hierarchical clustering on which a classifier fails."""

from __future__ import annotations

import numpy as np

from papers.dendromap.method import Tree
from vision.config.errors import UserError


def worst_subgroup(
    tree: Tree, right: np.ndarray, least: int = 20, labelled: np.ndarray | None = None
) -> tuple[int, float]:
    """The node of at least ``least`` labelled points with the lowest share of ``right`` among
    them, and that share; of equal ones the one with the most.

    Args:
      tree: of the points.
      right: (N,) bool.
      least: labelled points of a subgroup.
      labelled: (N,) bool, the points that count; None for all.

    Raises:
      UserError: fewer than ``least`` labelled points, or arrays of another length.
    """
    labelled = np.ones(right.shape, bool) if labelled is None else labelled
    if right.shape != tree.leaf.shape or labelled.shape != right.shape or labelled.sum() < least:
        raise UserError(
            f"right has shape {right.shape} for {len(tree.leaf)} points, {labelled.sum()} of them "
            f"labelled; a subgroup has {least}"
        )
    points, start = tree.order()
    correct, counted = (
        np.concatenate([[0], np.cumsum(x[points])]) for x in (right & labelled, labelled)
    )
    count = counted[start + tree.count] - counted[start]
    share = (correct[start + tree.count] - correct[start]) / np.maximum(count, 1)
    share[count < least] = np.inf
    best = np.lexsort((-count, share))[0]
    return int(best), float(share[best])
