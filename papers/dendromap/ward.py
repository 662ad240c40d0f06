"""Ward's hierarchy of points, for thousands exactly and for many more by way of small clusters."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
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
        turn = itertools.count()

        def entry(node: int) -> tuple[float, int, int]:
            i = next(turn)
            if by == "breadth":
                return i, i, node
            inner = self.distance[node - self.leaves] if node >= self.leaves else 0.0
            return -float(inner if by == "min_merging_distance" else self.count[node]), i, node

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
        found = np.empty(len(self.leaf), np.int64)
        for i, node in enumerate(self.cut(k)):
            found[points[start[node] : start[node] + self.count[node]]] = i
        return found


def ward(features: np.ndarray, *, max_leaves: int = 5000) -> Tree:
    """Ward's hierarchical clustering of ``features`` (N, D), deterministic.

    Up to ``max_leaves`` points the result is Ward's own, in O(N) memory: chains of nearest
    neighbours over the means (Murtagh, "A survey of recent advances in hierarchical clustering
    algorithms", 1983) need no matrix of distances. Beyond, the points are first joined to about
    ``max_leaves / 2`` small clusters by bisecting 2-means, always splitting the one with the
    largest squared error, and rounds of k-means over all of them; Ward's criterion is applied to
    these, weighted by their counts. Below a small cluster there is no structure.

    Raises:
      UserError: not two-dimensional, empty, or values that are not finite.
    """
    points = np.asarray(features, np.float64)
    if points.ndim != 2 or not len(points):
        raise UserError(f"features have shape {points.shape}; they have to be (N, D), N at least 1")
    if not np.isfinite(points).all():
        row = int(np.flatnonzero(~np.isfinite(points).all(1))[0])
        raise UserError(f"features of row {row} are not finite: leave that record out")
    if len(points) <= max_leaves:
        leaf = np.arange(len(points))
    else:
        leaf = _refine(points, _bisect(points, max(2, max_leaves // 2)))
    sizes = np.bincount(leaf)
    means = np.zeros((len(sizes), points.shape[1]))
    np.add.at(means, leaf, points)
    return _merge(means / sizes[:, None], sizes, leaf)


def _merge(means: np.ndarray, sizes: np.ndarray, leaf: np.ndarray) -> Tree:
    k = len(sizes)
    mean, weight = means.copy(), sizes.astype(np.float64)
    square = (mean**2).sum(1)
    alive = np.ones(k, bool)
    merges: list[tuple[float, int, int]] = []
    chain: list[int] = []
    while len(merges) < k - 1:
        if not chain:
            chain.append(int(np.argmax(alive)))
        while True:
            tip = chain[-1]
            apart = np.maximum(square + square[tip] - 2 * (mean @ mean[tip]), 0)
            apart *= 2 * weight * weight[tip] / (weight + weight[tip])
            apart[~alive] = np.inf
            apart[tip] = np.inf
            near = int(np.argmin(apart))
            # On a tie the one before wins, so that the chain comes to an end.
            if len(chain) > 1 and apart[chain[-2]] <= apart[near]:
                near = chain[-2]
                break
            chain.append(near)
        del chain[-2:]
        exact = np.sqrt(2 * weight[tip] * weight[near] / (weight[tip] + weight[near]))
        merges.append((float(exact * np.linalg.norm(mean[tip] - mean[near])), tip, near))
        total = weight[tip] + weight[near]
        mean[near] = (weight[tip] * mean[tip] + weight[near] * mean[near]) / total
        square[near], weight[near], alive[tip] = (mean[near] ** 2).sum(), total, False
    # A merge is found before those that contain it, and rounding must not turn them around.
    node_of, counts = list(range(k)), [*sizes.tolist()]
    parent: list[int] = list(range(k))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    children, distance = np.zeros((k - 1, 2), np.int64), np.zeros(k - 1)
    for i, (apart_, a, b) in enumerate(sorted(merges, key=lambda merge: merge[0])):
        first, second = find(a), find(b)
        children[i] = sorted((node_of[first], node_of[second]))
        counts.append(counts[children[i, 0]] + counts[children[i, 1]])
        distance[i] = apart_
        parent[first], node_of[second] = second, k + i
    return Tree(children, distance, np.asarray(counts, np.int64), leaf)


def _bisect(points: np.ndarray, clusters: int, rounds: int = 6) -> np.ndarray:
    """(N,) labels of ``clusters`` groups, fewer where points are equal."""
    turn = itertools.count()

    def entry(members: np.ndarray) -> tuple[float, int, np.ndarray]:
        part = points[members]
        return -float(((part - part.mean(0)) ** 2).sum()), next(turn), members

    heap = [entry(np.arange(len(points)))]
    while len(heap) < clusters and heap[0][0] < 0:
        _, _, members = heapq.heappop(heap)
        part = points[members] - points[members].mean(0)
        far = part[np.argmax((part**2).sum(1))]
        side = part @ far > 0
        for _ in range(rounds):
            if side.all() or not side.any():
                break
            a, b = part[side].mean(0), part[~side].mean(0)
            again = (part - (a + b) / 2) @ (a - b) > 0
            if (again == side).all():
                break
            side = again
        if side.all() or not side.any():
            side = np.arange(len(part)) == np.argmax((part**2).sum(1))
        for half in (members[side], members[~side]):
            heapq.heappush(heap, entry(half))
    found = np.empty(len(points), np.int64)
    for i, (_, _, members) in enumerate(heap):
        found[members] = i
    return found


def _refine(points: np.ndarray, found: np.ndarray, rounds: int = 4) -> np.ndarray:
    """Labels after rounds of k-means; clusters that lose all points are gone."""
    for _ in range(rounds):
        sizes = np.bincount(found)
        means = np.zeros((len(sizes), points.shape[1]))
        np.add.at(means, found, points)
        means /= sizes[:, None]
        square = (means**2).sum(1)
        parts = [
            np.argmin(square - 2 * (points[i : i + 4096] @ means.T), 1)
            for i in range(0, len(points), 4096)
        ]
        found = np.unique(np.concatenate(parts), return_inverse=True)[1]
    return found


def worst_subgroup(tree: Tree, right: np.ndarray, least: int = 20) -> tuple[int, float]:
    """The node of at least ``least`` points with the lowest share of ``right`` (N,) bool, and that
    share; of equal ones the largest.

    Raises:
      UserError: fewer than ``least`` points, or ``right`` of another length.
    """
    if right.shape != tree.leaf.shape or len(right) < least:
        raise UserError(
            f"right has shape {right.shape} for {len(tree.leaf)} points; a subgroup has {least}"
        )
    points, start = tree.order()
    total = np.concatenate([[0], np.cumsum(right[points])])
    share = (total[start + tree.count] - total[start]) / tree.count
    share[tree.count < least] = np.inf
    best = np.lexsort((-tree.count, share))[0]
    return int(best), float(share[best])
