"""Composed retrieval: an image query changed by added and removed words."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import jax
import numpy as np

from vision.blocks.ranking import rank
from vision.config.ranges import Finite, Positive, checked
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.image_text.embeddings import (
    IMAGE,
    TEXT,
    check_sizes,
    embed,
    finite,
    normalised,
)
from vision.evaluators.image_text.retrieval import numbers
from vision.train.objective import Batch, Variables

_MINUS = "text_minus/embedding"


@dataclasses.dataclass(frozen=True)
@checked
class ComposedRetrieval:
    """Images are searched by ``normalise(image + weight (text - text_minus))`` (ALIGN, 2021).

    Yields of that query, of the image alone (``image_only_``) and of the words alone
    (``words_only_``): ``r1``, ``r5``, ``r10``, ``median_rank``, ``mean_rank``, ``map``,
    ``map50``, ``ndcg`` and ``r_precision``, see ``ImageTextRetrieval``; then ``queries``,
    ``gallery``, and, only where there are any, ``queries_without_match`` and ``nonfinite``
    (queries and items: they find nothing and are not found).

    ``predict`` has to give ``image/embedding`` and ``text/embedding``, both (B, D), unit vectors,
    and the latter of batches with only ``text`` too.

    Attributes:
      queries: batches need ``image``, ``text`` (B, T) and ``target``, and may have
        ``text_minus`` (B, T), the words to take away.
      gallery: the items; batches need ``image`` and ``label``.
      target: name of an int (B,) entry of the queries: the label that is right.
      label: name of an int (B,) entry of the gallery.
      exclude: name of an int (B,) entry of the queries: the label of items to leave out of the
        ranking, which is that of the query's own image; empty leaves out none.
      weight: of the words, positive.
    """

    queries: EvaluationData
    gallery: EvaluationData
    target: str = "target"
    label: str = "label"
    exclude: str = ""
    weight: Positive[Finite] = 1.0

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads queries and gallery once.

        Raises:
          DataError: no records.
          ValueError: ``predict`` or the batches lack what is needed, or sizes do not fit.
        """
        fields = (self.target, *([self.exclude] if self.exclude else []))
        queries = embed(_with_minus(predict), ctx, self.queries, (IMAGE, TEXT, _MINUS), fields)
        items = embed(predict, ctx, self.gallery, (IMAGE,), (self.label,))
        image, gallery = queries[IMAGE], items[IMAGE]
        check_sizes(image, queries[TEXT])
        if queries[TEXT].shape != image.shape or gallery.shape[1:] != image.shape[1:]:
            raise ValueError(
                f"queries have {IMAGE} {image.shape} and {TEXT} {queries[TEXT].shape}, the gallery "
                f"{IMAGE} {gallery.shape}: one text per image, and one size"
            )
        text_change = normalised(queries[TEXT] - queries[_MINUS])
        query = normalised(image + self.weight * (queries[TEXT] - queries[_MINUS]))
        labels = items[self.label]

        def junk(i: int) -> np.ndarray:
            return np.flatnonzero(labels == queries[self.exclude][i])

        for prefix, rows in (("", query), ("image_only_", image), ("words_only_", text_change)):
            places = rank(
                rows,
                gallery,
                lambda i: np.flatnonzero(labels == queries[self.target][i]),
                junk if self.exclude else None,
            )
            for name, value in numbers(places, len(gallery)):
                yield prefix + name, value
            if not prefix:
                without_match = int((places.relevant == 0).sum())
        yield "queries", len(query)
        yield "gallery", len(gallery)
        for name, count in (
            ("queries_without_match", without_match),
            ("nonfinite", int((~finite(query)).sum()) + int((~finite(gallery)).sum())),
        ):
            if count:
                yield name, count


@functools.lru_cache(maxsize=32)
def _with_minus(predict: Predict) -> Predict:
    """``predict`` that also embeds ``text_minus``: zeros where a batch has none."""

    def with_minus(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        outputs = dict(predict(variables, batch))
        if "text_minus" in batch:
            minus = {"text": batch["text_minus"], "_mask": batch["_mask"]}
            outputs[_MINUS] = predict(variables, minus)[TEXT]
        elif TEXT in outputs:
            outputs[_MINUS] = jax.numpy.zeros_like(outputs[TEXT])
        return outputs

    return with_minus
