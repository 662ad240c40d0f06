"""Metrics of rankings, from the positions of the relevant items alone.

A ranking orders a gallery by decreasing score, equal scores by ascending index. Equal rows of
the gallery have equal scores, wherever they stand and however queries are split into blocks. All
metrics are computed from the positions of the relevant items, so that no ranking is kept. Metrics
are one float64 per query, 0..1, NaN for a query without relevant items; ``mean`` leaves those out.

References: recall@k, precision@k, R-precision, reciprocal rank, average precision and nDCG are as
in torchmetrics; ``hit`` is R@k of the captioning literature (Karpathy and Fei-Fei, 2015) and of
open_clip and CLIP-benchmark; ``trapezoid`` is the average precision of the Oxford and Paris
landmarks (Philbin et al., 2007), where junk is left out of the ranking.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from vision.config.errors import UserError

NEVER = 2**62
"""The position of an item that is never retrieved."""

_SCORES = 2**24  # scores computed at a time: 128 MiB
_FEW = 8  # up to so many relevant items, counting is faster than sorting


class RankingError(UserError):
    """Relevant items, queries or gallery are invalid."""


@dataclasses.dataclass(frozen=True, eq=False)
class Places:
    """Positions of the relevant items of every query.

    Attributes:
      place: int64 (Q, P) positions, 0 is first; ascending, padded with ``NEVER``, which is also the
        position of an item that was not ranked.
      relevant: int64 (Q,), number of relevant items, ranked or not.
    """

    place: np.ndarray
    relevant: np.ndarray

    @property
    def first(self) -> np.ndarray:
        """(Q,) position of the best relevant item."""
        return self.place.min(1, initial=NEVER)


def rank(
    queries: np.ndarray,
    gallery: np.ndarray,
    relevant: Callable[[int], np.ndarray],
    junk: Callable[[int], np.ndarray] | None = None,
) -> Places:
    """Ranks a gallery by inner product, a block of queries at a time.

    Rows with NaN or infinity count as failures: such an item comes after all others and is never
    retrieved, such a query retrieves nothing.

    Args:
      queries: (Q, D) float.
      gallery: (N, D) float.
      relevant: query -> indices of its relevant items, without repetition.
      junk: query -> indices of items that are removed from its ranking.

    Raises:
      RankingError: shapes that do not match, finite rows with infinite products, an index out
        of range, or an item that is both relevant and junk.
    """
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise RankingError(
            f"queries {queries.shape} and gallery {gallery.shape} must be (Q, D) and (N, D)"
        )
    (queries, usable_queries), (gallery, usable) = _zeroed(queries), _zeroed(gallery)
    products = _Products(gallery)
    rows = max(1, _SCORES // max(1, len(gallery)))
    places = []
    for start in range(0, len(queries), rows):
        block = queries[start : start + rows]
        scores = products.of(block)
        if scores.size and np.abs(scores).max() > np.finfo(np.float32).max:
            raise RankingError("products are too large for float32; scale the embeddings")
        scores[:, ~usable] = -np.inf
        scores[~usable_queries[start : start + rows]] = -np.inf
        for query, (vector, row) in enumerate(zip(block, scores, strict=True), start):
            items = _indices(relevant(query), len(gallery), query)
            if junk is not None:
                junk_items = _indices(junk(query), len(gallery), query)
                if common := np.intersect1d(items, junk_items)[:1].tolist():
                    raise RankingError(f"item {common[0]} is relevant and junk for query {query}")
                row[junk_items] = -np.inf
            places.append(np.sort(_places(row, items, products, vector)))
    relevant_count = np.asarray([len(x) for x in places], np.int64)
    place = np.full((len(places), int(relevant_count.max(initial=0))), NEVER, np.int64)
    place[np.arange(place.shape[1]) < relevant_count[:, None]] = np.concatenate(
        [*places, np.zeros(0, np.int64)]
    )
    return Places(place, relevant_count)


def _zeroed(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Float32 rows (N, D), zero where not finite, and (N,) bool: the finite rows."""
    finite = np.asarray(np.isfinite(x).all(1))
    x = x.astype(np.float32, copy=False)
    return (x if finite.all() else np.where(finite[:, None], x, np.float32(0))), finite


def _indices(items: np.ndarray, count: int, query: int) -> np.ndarray:
    items = np.asarray(items, np.int64)
    if items.size and not 0 <= items.min() <= items.max() < count:
        raise RankingError(f"query {query} has items outside 0..{count - 1}")
    return items


class _Products:
    """Inner products with a gallery (N, D) float32, of which equal rows have equal ones.

    A matrix product rounds differently at different places, so that equal rows would tie or not by
    chance. Equal rows are therefore multiplied once, in float64, and products that are equal up to
    rounding are compared by ``exact``, which does not depend on the position or the block.
    """

    def __init__(self, gallery: np.ndarray) -> None:
        self.rows, self.index = distinct_rows(gallery)
        self.rows = self.rows.astype(np.float64)
        self.norm = float(np.sqrt(np.square(self.rows).sum(1).max(initial=0)))

    def of(self, queries: np.ndarray) -> np.ndarray:
        """float64 (Q, N), off by at most ``rounding`` of each query."""
        products = queries.astype(np.float64) @ self.rows.T
        return products if len(self.rows) == len(self.index) else products[:, self.index]

    def rounding(self, query: np.ndarray) -> float:
        """Bound on the error of a product with ``query`` (D,)."""
        length = float(np.linalg.norm(query.astype(np.float64)))
        return 2 * self.rows.shape[1] * np.finfo(np.float64).eps * length * self.norm

    def exact(self, query: np.ndarray, items: np.ndarray) -> np.ndarray:
        """float64 (len(items),): products of items with ``query`` (D,), summed row by row."""
        return (self.rows[self.index[items]] * query.astype(np.float64)).sum(1)


def distinct_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows (U, D) of ``x`` (N, D) float, and int64 (N,): which of them each row is.

    0 and -0 are equal. Distinct rows are in the order of their first occurrence.
    """
    x = np.ascontiguousarray(x) + x.dtype.type(0)  # -0 + 0 is 0
    keys = x.view(np.dtype((np.void, x.dtype.itemsize * x.shape[1]))).ravel()
    _, first, index = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) == len(x):
        return x, np.arange(len(x))
    order = np.argsort(first)
    rank = np.empty(len(first), np.int64)
    rank[order] = np.arange(len(first))
    return x[first[order]], rank[index]


def _places(
    scores: np.ndarray, items: np.ndarray, products: _Products, query: np.ndarray
) -> np.ndarray:
    """How many scores are greater than, or equal and before, each item's."""
    item_scores = scores[items]
    places = np.full(len(items), NEVER, np.int64)
    found = np.flatnonzero(~np.isneginf(item_scores))
    margin = 2 * products.rounding(query)
    values, value_index = np.unique(item_scores[found], return_inverse=True)
    if len(values) <= _FEW:
        greater = np.asarray([np.count_nonzero(scores > x + margin) for x in values], np.int64)
        near = np.asarray([np.count_nonzero(scores >= x - margin) for x in values], np.int64)
    else:
        ordered = np.sort(scores)
        greater = len(scores) - np.searchsorted(ordered, values + margin, "right")
        near = len(scores) - np.searchsorted(ordered, values - margin, "left")
    places[found] = greater[value_index]
    for i in np.flatnonzero(near - greater > 1).tolist():
        close = np.flatnonzero(np.abs(scores - values[i]) <= margin)
        order = close[np.lexsort((close, -products.exact(query, close)))]
        position = np.empty(len(close), np.int64)
        position[np.searchsorted(close, order)] = np.arange(len(close))
        mine = found[value_index == i]
        places[mine] += position[np.searchsorted(close, items[mine])]
    return places


def hit(places: Places, k: int) -> np.ndarray:
    """Whether any relevant item is among the first ``k``."""
    return _defined(places, places.first < k)


def recall(places: Places, k: int) -> np.ndarray:
    """Share of the relevant items that are among the first ``k``."""
    return _ratio((places.place < k).sum(1), places.relevant)


def precision(places: Places, k: int) -> np.ndarray:
    """Share of the first ``k`` that are relevant."""
    return _defined(places, (places.place < k).sum(1) / k)


def r_precision(places: Places) -> np.ndarray:
    """Precision among the first R, where R is the number of relevant items."""
    return _ratio((places.place < places.relevant[:, None]).sum(1), places.relevant)


def reciprocal_rank(places: Places) -> np.ndarray:
    """One over the rank, counted from 1, of the best relevant item; 0 if none is retrieved."""
    return _defined(places, np.where(places.first < NEVER, 1 / (places.first + 1.0), 0))


def average_precision(places: Places, k: int | None = None) -> np.ndarray:
    """Mean of the precisions at the relevant items; those not retrieved contribute 0.

    With ``k``, only items among the first ``k`` count, and the sum is divided by the largest
    possible number of relevant ones, ``min(R, k)`` (INQUIRE's AP@50).
    """
    counted = places.place < (NEVER if k is None else k)
    nth = np.arange(1, places.place.shape[1] + 1)
    total = np.where(counted, nth / (places.place + 1.0), 0).sum(1)
    return _ratio(total, places.relevant if k is None else np.minimum(places.relevant, k))


def trapezoid(places: Places) -> np.ndarray:
    """Area under the precision-recall curve by the trapezoidal rule."""
    nth = np.arange(places.place.shape[1])
    place = places.place.astype(np.float64)
    previous_precision = np.where(place == 0, 1.0, nth / np.maximum(place, 1))
    area = np.where(
        places.place < NEVER, (previous_precision + (nth + 1) / (place + 1)) / 2, 0
    ).sum(1)
    return _ratio(area, places.relevant)


def ndcg(places: Places, k: int | None = None) -> np.ndarray:
    """Discounted gain, ``1 / log2(rank + 1)`` per relevant item, over the best possible one."""
    limit = NEVER if k is None else k
    gain = np.where(places.place < limit, 1 / np.log2(places.place + 2.0), 0).sum(1)
    discounts = 1 / np.log2(np.arange(places.place.shape[1]) + 2.0)
    best = np.concatenate([[0.0], np.cumsum(discounts)])
    return _ratio(gain, best[np.minimum(places.relevant, limit)])


def median_rank(places: Places, size: int) -> float:
    """Median rank of the best relevant item, from 1, rounded down as in the literature.

    ``size`` is the rank assigned to queries whose items are not retrieved: the gallery's size.
    """
    ranks = _ranks(places, size)
    return float(np.floor(np.median(ranks))) if ranks.size else np.nan


def mean_rank(places: Places, size: int) -> float:
    """Mean rank of the best relevant item, from 1; ``size`` as in ``median_rank``."""
    ranks = _ranks(places, size)
    return float(ranks.mean()) if ranks.size else np.nan


def mean(values: np.ndarray) -> float:
    """Mean over the queries that have relevant items; NaN without any."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else np.nan


def _ranks(places: Places, size: int) -> np.ndarray:
    return np.minimum(places.first[places.relevant > 0] + 1, size)


def _defined(places: Places, values: np.ndarray) -> np.ndarray:
    return np.where(places.relevant > 0, values, np.nan)


def _ratio(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    return np.divide(part, total, out=np.full(len(total), np.nan), where=total > 0)
