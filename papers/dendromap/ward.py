"""Ward's hierarchy of points, for thousands exactly and for many more by way of small clusters."""

from __future__ import annotations

import heapq
import itertools

import numpy as np

from papers.dendromap.method import Tree
from vision.config.errors import UserError


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
    counter = itertools.count()

    def entry(members: np.ndarray) -> tuple[float, int, np.ndarray]:
        part = points[members]
        return -float(((part - part.mean(0)) ** 2).sum()), next(counter), members

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
    labels = np.empty(len(points), np.int64)
    for i, (_, _, members) in enumerate(heap):
        labels[members] = i
    return labels


def _refine(points: np.ndarray, labels: np.ndarray, rounds: int = 4) -> np.ndarray:
    """Labels after rounds of k-means; clusters that lose all points are gone."""
    for _ in range(rounds):
        sizes = np.bincount(labels)
        means = np.zeros((len(sizes), points.shape[1]))
        np.add.at(means, labels, points)
        means /= sizes[:, None]
        square = (means**2).sum(1)
        parts = [
            np.argmin(square - 2 * (points[i : i + 4096] @ means.T), 1)
            for i in range(0, len(points), 4096)
        ]
        labels = np.unique(np.concatenate(parts), return_inverse=True)[1]
    return labels
