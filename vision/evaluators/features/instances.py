"""Retrieval of the same object, by the protocol of landmark benchmarks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from vision.blocks import ranking
from vision.blocks.ranking import Places, rank
from vision.config.ranges import NonEmpty, Positive, checked
from vision.data.source import DataError
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.image_text.embeddings import Rows, embed, finite, normalised

# Positive lists and ignored lists; all other items are negatives.
PROTOCOLS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}
_LISTS = ("easy", "hard", "junk")


@dataclasses.dataclass(frozen=True)
@checked
class InstanceRetrieval:
    """Images find the images of the same instance among ``data``, junk ignored.

    The queries say which items of the gallery show their instance: lists ``easy``, ``hard`` and
    ``junk`` of places in the gallery's source, int (B, P) filled up with -1. Yields, under
    ``easy_``, ``medium_`` and ``hard_`` (Radenovic et al., "Revisiting Oxford and Paris", 2018:
    positives are easy, both, or hard items; junk, and the kind that the protocol does not ask for,
    are taken out of the ranking), ``map`` (by trapezoids, as theirs and Philbin's, 2007),
    ``map_plain`` (mean of the precisions), ``r<k>`` (recall at ``k``), ``p<k>`` (precision at
    ``k``), and ``queries`` (that have positives; the others are left out). Protocols for which no
    query has positives are left out.

    Then ``gallery``, and, only where there are any, ``nonfinite`` (queries and items with NaN,
    infinity or without direction: they find nothing and are not found), ``unread`` (items of
    lists that could not be read: never found) and ``without_match`` (queries without any).

    Attributes:
      data: the gallery.
      queries: the queries, with the lists; None where they are images of the gallery, each of
        which is taken out of its own ranking; those without easy or hard items are left out.
      k: of ``r<k>`` and ``p<k>``.
      output: name of the features (B, D) that ``predict`` gives; compared by cosine.
      easy, hard, junk: names of the lists in the batches of queries; "" for one that is not there.
    """

    data: EvaluationData
    queries: EvaluationData | None = None
    k: NonEmpty[tuple[Positive[int], ...]] = (1, 5, 10)
    output: str = "embedding"
    easy: str = "easy"
    hard: str = "hard"
    junk: str = "junk"

    def __post_init__(self) -> None:
        if not self.easy and not self.hard:
            raise ValueError("easy and hard: at least one list of positive items is needed")

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads the gallery, and the queries, once.

        Raises:
          DataError: no records, or no query has an item to find.
          RankingError: places outside the gallery, or an item in two lists of a query.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        fields = tuple(name for name in (self.easy, self.hard, self.junk) if name)
        rows = embed(
            predict, ctx, self.data, (self.output,), fields if self.queries is None else ()
        )
        query_rows = rows
        if self.queries is not None:
            query_rows = embed(predict, ctx, self.queries, (self.output,), fields)
        gallery, was_read = self._gallery(rows)
        lists = self._lists(query_rows)
        self_items = lists["junk"]
        if self.queries is None:
            self_items = list(query_rows["_index"][:, None].astype(np.int64))
            lists = {
                kind: list(map(np.setdiff1d, items, self_items)) for kind, items in lists.items()
            }
        sizes = {kind: np.asarray([len(x) for x in lists[kind]]) for kind in _LISTS}
        matches = sizes["easy"] + sizes["hard"]
        if not matches.any():
            raise DataError(f"no query of {self._named()} has an easy or a hard item to find")
        vectors = normalised(query_rows[self.output])
        for name, (positive, ignored) in PROTOCOLS.items():
            query_indices = np.flatnonzero(sum(sizes[kind] for kind in positive))
            if not len(query_indices):
                continue
            places = rank(
                vectors[query_indices],
                gallery,
                _items(lists, positive, query_indices),
                _items(lists | {"own": self_items}, (*ignored, "own"), query_indices),
            )
            yield from self._numbers(name, places)
        yield "gallery", int(was_read.sum())
        positives = np.unique(np.concatenate([x for kind in ("easy", "hard") for x in lists[kind]]))
        nonfinite = int((was_read & ~finite(gallery)).sum())
        if self.queries is not None:
            nonfinite += int((~finite(vectors)).sum())
        for name, count in (
            ("nonfinite", nonfinite),
            ("unread", int((~was_read[positives]).sum())),
            ("without_match", 0 if self.queries is None else int((matches == 0).sum())),
        ):
            if count:
                yield name, count

    def _named(self) -> str:
        queries = self.data if self.queries is None else self.queries
        return queries.source.info.name

    def _numbers(self, name: str, places: Places) -> Iterator[tuple[str, float]]:
        yield f"{name}_map", ranking.mean(ranking.trapezoid(places))
        yield f"{name}_map_plain", ranking.mean(ranking.average_precision(places))
        for k in self.k:
            yield f"{name}_r{k}", ranking.mean(ranking.recall(places, k))
            yield f"{name}_p{k}", ranking.mean(ranking.precision(places, k))
        yield f"{name}_queries", len(places.relevant)

    def _gallery(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors (N, D) by place in the source, NaN where there is none, and (N,) bool
        whether the record was read."""
        x = rows[self.output]
        if x.ndim != 2:
            raise ValueError(f"instances need features (N, D); {self.output} is {list(x.shape)}")
        count = len(self.data.source)
        gallery, was_read = np.full((count, x.shape[1]), np.nan, np.float32), np.zeros(count, bool)
        gallery[rows["_index"]] = normalised(x)
        was_read[rows["_index"]] = True
        return gallery, was_read

    def _lists(self, query_rows: Rows) -> dict[str, list[np.ndarray]]:
        """List to the places of every query."""
        lists = {}
        count = len(self.data.source)
        for kind in _LISTS:
            name = getattr(self, kind)
            if not name:
                lists[kind] = [np.zeros(0, np.int64)] * len(query_rows["_index"])
                continue
            items = query_rows[name]
            if items.ndim != 2 or items.dtype.kind not in "iu":
                raise ValueError(
                    f"{name!r} is {items.dtype}{list(items.shape)}; a list of places in the "
                    "gallery is int (B, P), filled up with -1"
                )
            if items.size and (items.min() < -1 or items.max() >= count):
                query = int(np.flatnonzero(((items < -1) | (items >= count)).any(1))[0])
                raise ranking.RankingError(
                    f"{name!r} of query {query_rows['_index'][query]} of {self._named()} has "
                    f"places outside 0..{count - 1} of the gallery {self.data.source.info.name}"
                )
            lists[kind] = [np.unique(row[row >= 0]).astype(np.int64) for row in items]
        return lists


def _items(
    lists: Mapping[str, list[np.ndarray]], kinds: tuple[str, ...], query_indices: np.ndarray
) -> Callable[[int], np.ndarray]:
    """A function of row i of ``query_indices``: that query's items of any of the kinds."""

    def items(query: int) -> np.ndarray:
        return np.unique(np.concatenate([lists[kind][query_indices[query]] for kind in kinds]))

    return items
