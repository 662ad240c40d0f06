"""Retrieval of texts by images, of images by texts, and of images by images with their label."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from vision.blocks import ranking
from vision.blocks.nearest import nearest
from vision.blocks.ranking import Places, rank
from vision.config.ranges import NonNegative, checked
from vision.data.source import DataError
from vision.data.tokenize import Tokenizer, content
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure, Gallery, Picture
from vision.evaluators.image_text.embeddings import (
    IMAGE,
    TEXT,
    Rows,
    check_sizes,
    embed,
    finite,
    spread,
)
from vision.evaluators.thumbnail import picture

SHOWN = 5
KS = (1, 5, 10)


@dataclasses.dataclass(frozen=True)
@checked
class ImageTextRetrieval:
    """Image-to-text and text-to-image retrieval.

    Numbers begin with ``image_to_text_`` and ``text_to_image_``: ``r1``, ``r5``, ``r10`` (shares;
    an image is right with any of its captions; only for k below the size of the gallery),
    ``median_rank`` and ``mean_rank`` (from 1), ``map``, ``map50``, ``ndcg`` and ``r_precision``.
    ``mean_recall`` is the mean of the six recalls. Ties go to the earlier record. Definitions:
    ``vision.blocks.ranking``.

    Then counts: ``images``, ``texts``, and, only where there are any, ``empty_captions`` and
    ``absent_captions`` (left out), ``images_without_text`` (distractors), and
    ``nonfinite_images`` and ``nonfinite_texts`` (they find nothing, and are not found). Figures
    ``image_to_text_examples`` and ``text_to_image_examples``: some queries, each with the five
    best answers and their similarity.

    A batch has ``image`` and ``text``, int32 ids (B, T) or (B, C, T) of C captions per image, of
    which ``text_mask`` (B,) or (B, C), where there is one, says which exist. ``predict`` has to
    give ``image/embedding`` (B, D) and ``text/embedding`` (B, D) or (B, C, D), unit vectors.

    Attributes:
      data: what is read.
      tokenizer: of the captions; it says which are empty, and turns ids back to texts for the
        figures.
      examples: queries to show each way.
      image: name of the image in the records of ``data.source``, for the pictures.
    """

    data: EvaluationData
    tokenizer: Tokenizer
    examples: NonNegative[int] = 5
    image: str = "image"

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: no records, or no record has a caption.
          ValueError: ``predict`` or the batches lack what is needed, or sizes do not fit.
        """
        rows = embed(predict, ctx, self.data, (IMAGE, TEXT), ("text",), ("text_mask",))
        pairs = _Pairs.of(rows, self.tokenizer, self.data.source.info.name)
        to_text = rank(pairs.image, pairs.text, pairs.texts_of)
        to_image = rank(pairs.text, pairs.image, pairs.image_of)

        recalls = []
        sizes = {"image_to_text": len(pairs.text), "text_to_image": len(pairs.image)}
        for way, places in (("image_to_text", to_text), ("text_to_image", to_image)):
            for name, value in numbers(places, sizes[way]):
                yield f"{way}_{name}", value
                if name in ("r1", "r5", "r10"):
                    recalls.append(value)
        if len(recalls) == 2 * len(KS):
            yield "mean_recall", float(np.mean(recalls))
        yield "images", len(pairs.image)
        yield "texts", len(pairs.text)
        for name, count in pairs.counts.items():
            if count:
                yield name, count
        if self.examples:
            yield "image_to_text_examples", Gallery(tuple(self._texts_shown(pairs)), "similarity")
            yield "text_to_image_examples", Gallery(tuple(self._images_shown(pairs)), "similarity")

    def _texts_shown(self, pairs: _Pairs) -> Iterator[Picture]:
        for query, text, score in _answers(pairs.image, pairs.text, self.examples, pairs.described):
            own_texts = pairs.texts_of(query)
            answer = self._words(pairs, text)
            label = answer if text in own_texts else self._words(pairs, int(own_texts[0]))
            index = int(pairs.index[query])
            yield picture(self.data.source, index, self.image, label, answer, score)

    def _images_shown(self, pairs: _Pairs) -> Iterator[Picture]:
        for query, image, score in _answers(pairs.text, pairs.image, self.examples):
            label = self._words(pairs, query)
            captions = pairs.texts_of(image)
            answer = self._words(pairs, int(captions[0])) if len(captions) else "no caption"
            answer = label if pairs.owner[query] == image else answer
            index = int(pairs.index[image])
            yield picture(self.data.source, index, self.image, label, answer, score)

    def _words(self, pairs: _Pairs, text: int) -> str:
        return self.tokenizer.decode(pairs.ids[text][None])[0]


@dataclasses.dataclass(frozen=True, eq=False)
class _Pairs:
    """Images (N, D) and the captions that count, texts (M, D), those of an image in a row."""

    image: np.ndarray
    text: np.ndarray
    ids: np.ndarray  # (M, T)
    owner: np.ndarray  # (M,) the image
    start: np.ndarray  # (N + 1,) the first text of an image
    index: np.ndarray  # (N,) in the source
    counts: dict[str, int]

    @classmethod
    def of(cls, rows: Rows, tokenizer: Tokenizer, name: str) -> _Pairs:
        image, text, ids = rows[IMAGE], rows[TEXT], rows["text"]
        if ids.ndim not in (2, 3) or text.shape[:-1] != ids.shape[:-1]:
            raise ValueError(
                f"batches of {name} have text {ids.shape}, and predict gives {TEXT} {text.shape}; "
                "they must be (B, T) and (B, D), or (B, C, T) and (B, C, D)"
            )
        check_sizes(image, text)
        if ids.ndim == 2:
            ids, text = ids[:, None], text[:, None]
        shape = ids.shape[:2]
        present = np.reshape(rows.get("text_mask", np.ones(shape, bool)), shape).astype(bool)
        filled = present & ~_empty(ids, tokenizer)
        if not filled.any():
            raise DataError(f"{name}: none of the {len(image)} records has a caption")
        owner = np.nonzero(filled)[0]
        start = np.searchsorted(owner, np.arange(len(image) + 1))
        counts = {
            "absent_captions": int((~present).sum()),
            "empty_captions": int((present & ~filled).sum()),
            "images_without_text": int((~filled.any(1)).sum()),
            "nonfinite_images": int((~finite(image)).sum()),
            "nonfinite_texts": int((~finite(text[filled])).sum()),
        }
        return cls(image, text[filled], ids[filled], owner, start, rows["_index"], counts)

    @property
    def described(self) -> np.ndarray:
        return np.diff(self.start) > 0

    def texts_of(self, image: int) -> np.ndarray:
        return np.arange(self.start[image], self.start[image + 1])

    def image_of(self, text: int) -> np.ndarray:
        return self.owner[text : text + 1]


def _empty(ids: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """(N, C) bool of ids (N, C, T): captions without a token beside bos, eos and padding."""
    special = [x for x in (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) if x is not None]
    empty = np.asarray(np.isin(ids, special).all(-1))
    # A special id may also stand for something: CLIP's padding is the exclamation mark.
    for position in np.argwhere(empty):
        empty[tuple(position)] = not content(tokenizer, ids[tuple(position)].tolist())
    return empty


@dataclasses.dataclass(frozen=True)
@checked
class ImageRetrieval:
    """Image-to-image retrieval, where images with the query's label are relevant.

    Yields ``r1``, ``r5``, ``r10``, ``median_rank``, ``mean_rank``, ``map``, ``map50``, ``ndcg``,
    ``r_precision`` as ``ImageTextRetrieval`` does, ``map_trapezoid`` (the mAP of Oxford and
    Paris), ``queries`` (with something to find, over which all of these are), ``gallery``, and,
    only where there are any, ``queries_without_match``, ``unlabelled`` (label -1: neither queries
    nor items) and ``nonfinite`` (embeddings with NaN or infinity: they find nothing and are not
    found). The figure ``nearest`` shows some queries' labels with the five best answers and their
    similarity.

    Junk is taken out of a ranking: the query itself, where queries are the gallery, and images
    that agree with it in label and in ``junk_if_same`` (the camera of person re-identification).

    Attributes:
      data: the gallery; batches need ``label``, int (B,).
      queries: the queries; None makes every image of the gallery a query for the others.
      label: name of the labels in a batch.
      junk_if_same: name of an int (B,) entry of a batch; empty for none.
      embedding: name of the unit vectors (B, D) that ``predict`` gives.
      examples: queries to show.
      image: name of the image in the records of the gallery, for the pictures.
    """

    data: EvaluationData
    queries: EvaluationData | None = None
    label: str = "label"
    junk_if_same: str = ""
    embedding: str = "embedding"
    examples: NonNegative[int] = 5
    image: str = "image"

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads the gallery, and the queries, once.

        Raises:
          DataError: no records, or none with a label.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        gallery, unlabelled = self._labelled(predict, ctx, self.data)
        queries, queries_unlabelled = gallery, 0
        if self.queries is not None:
            queries, queries_unlabelled = self._labelled(predict, ctx, self.queries)
        relevant, junk = self._sets(queries, gallery)
        places = rank(queries[self.embedding], gallery[self.embedding], relevant, junk)
        yield from numbers(places, len(gallery[self.label]))
        yield "map_trapezoid", ranking.mean(ranking.trapezoid(places))
        yield "queries", int((places.relevant > 0).sum())
        yield "gallery", len(gallery[self.label])
        sides = (gallery,) if self.queries is None else (gallery, queries)
        for name, count in (
            ("queries_without_match", int((places.relevant == 0).sum())),
            ("unlabelled", unlabelled + queries_unlabelled),
            ("nonfinite", sum(int((~finite(side[self.embedding])).sum()) for side in sides)),
        ):
            if count:
                yield name, count
        if self.examples:
            yield "nearest", Gallery(tuple(self._shown(queries, gallery)), "similarity")

    def _labelled(
        self, predict: Predict, ctx: EvalContext, data: EvaluationData
    ) -> tuple[Rows, int]:
        fields = (self.label, *([self.junk_if_same] if self.junk_if_same else []))
        rows = embed(predict, ctx, data, (self.embedding,), fields)
        for name in fields:
            if rows[name].ndim != 1 or rows[name].dtype.kind not in "iu":
                raise ValueError(
                    f"{name!r} is {rows[name].dtype}{list(rows[name].shape)}, not int (B,)"
                )
        labelled = rows[self.label] != -1
        if not labelled.any():
            raise DataError(f"{data.source.info.name}: no record has a label, all are -1")
        return {name: x[labelled] for name, x in rows.items()}, int((~labelled).sum())

    def _sets(
        self, queries: Rows, gallery: Rows
    ) -> tuple[Callable[[int], np.ndarray], Callable[[int], np.ndarray]]:
        """Query to its relevant items, and to its junk."""
        labels = gallery[self.label]
        order = np.argsort(labels, kind="stable")
        first = np.searchsorted(labels[order], queries[self.label], "left")
        last = np.searchsorted(labels[order], queries[self.label], "right")

        def split(query: int) -> tuple[np.ndarray, np.ndarray]:
            items = order[first[query] : last[query]]
            junk = np.zeros(len(items), bool) if queries is not gallery else items == query
            if name := self.junk_if_same:
                junk |= gallery[name][items] == queries[name][query]
            return items[~junk], items[junk]

        return lambda query: split(query)[0], lambda query: split(query)[1]

    def _shown(self, queries: Rows, gallery: Rows) -> Iterator[Picture]:
        source = self.data.source
        names = source.info.class_names
        itself = queries is gallery
        for query, item, score in _answers(
            queries[self.embedding], gallery[self.embedding], self.examples, exclude_self=itself
        ):
            labels = (int(queries[self.label][query]), int(gallery[self.label][item]))
            labels = [names[i] if 0 <= i < len(names) else str(i) for i in labels]
            index = int(gallery["_index"][item])
            yield picture(source, index, self.image, labels[0], labels[1], score)


def numbers(places: Places, size: int) -> Iterator[tuple[str, float]]:
    """Name and value of every ranking metric; ``size`` is the gallery's."""
    for k in KS:
        if k < size:
            yield f"r{k}", ranking.mean(ranking.hit(places, k))
    yield "median_rank", ranking.median_rank(places, size)
    yield "mean_rank", ranking.mean_rank(places, size)
    yield "map", ranking.mean(ranking.average_precision(places))
    yield "map50", ranking.mean(ranking.average_precision(places, 50))
    yield "ndcg", ranking.mean(ranking.ndcg(places))
    yield "r_precision", ranking.mean(ranking.r_precision(places))


def _answers(
    queries: np.ndarray,
    gallery: np.ndarray,
    count: int,
    allowed: np.ndarray | None = None,
    exclude_self: bool = False,
) -> Iterator[tuple[int, int, float]]:
    """Some queries with their best answers: query, item and score, best first.

    ``allowed`` (Q,) bool: queries that may be chosen; ``exclude_self``: item q is no answer to
    query q.
    """
    possible = finite(queries) if allowed is None else finite(queries) & allowed
    usable = np.flatnonzero(finite(gallery))
    candidates = np.flatnonzero(possible)
    if not len(usable) or not len(candidates):
        return
    chosen = candidates[spread(count, len(candidates))]
    ranked = gallery if len(usable) == len(gallery) else gallery[usable]
    scores, neighbours = nearest(queries[chosen], ranked, min(SHOWN + exclude_self, len(usable)))
    for query, row, places in zip(chosen.tolist(), scores.tolist(), neighbours, strict=True):
        answers = zip(usable[places].tolist(), row, strict=True)
        ranked_items = [
            (item, score) for item, score in answers if not exclude_self or item != query
        ]
        for item, score in ranked_items[:SHOWN]:
            yield query, item, score
