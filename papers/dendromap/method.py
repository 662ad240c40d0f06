"""DendroMap: large image sets explored as a treemap of a hierarchical clustering.

Bertucci et al., DendroMap: Visual Exploration of Large-Scale Image Datasets for Machine Learning
with Treemaps, 2022. Headline: preferred over a grid of t-SNE in a user study of 20 people (number
unconfirmed).

Features of images are clustered by Ward's criterion (``papers.dendromap.ward``). A cut of the
binary tree, k nodes that together hold every image once, is drawn as a treemap: the area of a cell
is proportional to the number of its images. Nodes are split in order of the distance of their
children, of their size, or breadth first; zooming draws the cut below a node. The page is written
by ``python -m papers.dendromap.treemap``.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np

from vision.config.errors import UserError

Order = Literal["breadth", "min_merging_distance", "max_node_count"]


ORDERS = ("breadth", "min_merging_distance", "max_node_count")


@dataclasses.dataclass(frozen=True, eq=False)
class Tree:
    """A binary tree; nodes 0..L-1 are leaves, node L + i is the i-th merge, the last the root.

    Attributes:
      children: (L - 1, 2) int64, nodes that a merge joins; both are smaller than the merge.
      distance: (L - 1,) float64, ascending; between the clusters of a merge, as SciPy's
        ``linkage(method="ward")`` has it: sqrt(2 a b / (a + b)) times the distance of the means.
      count: (2 L - 1,) int64, points below a node.
      leaf: (N,) int64, the leaf of a point; a leaf holds one point unless points were joined
        before (see ``ward``).
    """

    children: np.ndarray
    distance: np.ndarray
    count: np.ndarray
    leaf: np.ndarray

    @property
    def leaves(self) -> int:
        return len(self.children) + 1

    @property
    def root(self) -> int:
        return 2 * len(self.children)

    def order(self) -> tuple[np.ndarray, np.ndarray]:
        """Points so that those below any node are neighbours, (N,) int64, and where the points of
        each node begin, (2 L - 1,) int64: ``points[start[v]:start[v] + count[v]]``."""
        start = np.zeros(len(self.count), np.int64)
        for i in range(len(self.children) - 1, -1, -1):
            left, right = self.children[i]
            start[left] = start[self.leaves + i]
            start[right] = start[left] + self.count[left]
        return np.argsort(start[self.leaf], kind="stable"), start

    def cut(self, k: int, root: int | None = None, by: Order = "min_merging_distance") -> list[int]:
        """At most ``k`` nodes that together hold the points below ``root``, each point once.

        From the root on, one node after another is replaced by its children: the oldest
        (``breadth``), that with the largest distance between its children
        (``min_merging_distance``: what remains is closest together), or that with most points
        (``max_node_count``). Fewer than ``k`` where there are no more leaves.

        Raises:
          UserError: ``k`` below 1, or another order.
        """
        if k < 1 or by not in ORDERS:
            raise UserError(f"k={k}, by={by!r}: k is 1 or more, by is one of {', '.join(ORDERS)}")
        counter = itertools.count()

        def entry(node: int) -> tuple[float, int, int]:
            i = next(counter)
            if by == "breadth":
                return i, i, node
            distance = self.distance[node - self.leaves] if node >= self.leaves else 0.0
            return -float(distance if by == "min_merging_distance" else self.count[node]), i, node

        heap, done = [entry(self.root if root is None else root)], []
        while heap and len(heap) + len(done) < k:
            _, _, node = heapq.heappop(heap)
            if node < self.leaves:
                done.append(node)
                continue
            for child in self.children[node - self.leaves].tolist():
                heapq.heappush(heap, entry(child))
        return sorted(done + [node for _, _, node in heap])

    def labels(self, k: int) -> np.ndarray:
        """(N,) int64: which of ``k`` clusters, 0..k-1, a point is in, the last merges undone."""
        points, start = self.order()
        labels = np.empty(len(self.leaf), np.int64)
        for i, node in enumerate(self.cut(k)):
            labels[points[start[node] : start[node] + self.count[node]]] = i
        return labels


def treemap(
    tree: Tree, nodes: Sequence[int], root: int | None = None
) -> dict[int, tuple[float, float, float, float]]:
    """Rectangles (x, y, width, height) in the unit square, with areas proportional to counts.

    Slice and dice: the two children of a node divide its rectangle along its longer side.

    Args:
      tree: the hierarchy.
      nodes: a cut of ``tree`` below ``root``, as ``Tree.cut`` gives it.
      root: the node that fills the square; None for all.
    """
    cut, rectangles = set(nodes), {}
    stack = [(tree.root if root is None else root, (0.0, 0.0, 1.0, 1.0))]
    while stack:
        node, (x, y, width, height) = stack.pop()
        if node in cut or node < tree.leaves:
            rectangles[node] = (x, y, width, height)
            continue
        left, right = tree.children[node - tree.leaves].tolist()
        part = tree.count[left] / tree.count[node]
        if width >= height:
            stack.append((left, (x, y, width * part, height)))
            stack.append((right, (x + width * part, y, width * (1 - part), height)))
        else:
            stack.append((left, (x, y, width, height * part)))
            stack.append((right, (x, y + height * part, width, height * (1 - part))))
    return rectangles
