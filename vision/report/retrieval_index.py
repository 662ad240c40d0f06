"""The gallery of the retrieval page: embedded once, then queried with sentences and pictures."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vision.blocks.nearest import nearest
from vision.blocks.ranking import rank
from vision.blocks.similarity import LateInteraction, Similarity, chunks, unchunk, unit
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.data.tokenize import Tokenizer, content, room
from vision.evaluate.evaluator import Predict, context
from vision.evaluators.image_text.embeddings import embed
from vision.parallel.mesh import BATCH_AXES
from vision.report.retrieval_pictures import Given, Prepare
from vision.report.uploads import MAX_UPLOAD_PIXELS
from vision.run.restore import Run
from vision.train.tower import forward

Features = dict[str, Any]  # arrays with one row per item, on the host

_AT_ONCE = 64  # items that late interaction compares with the query at a time
_MAX_BYTES = 2**31
_KNOWN = 8


class QueryError(DataError):
    """The query cannot be searched for; the message says why."""


@dataclasses.dataclass(frozen=True, eq=False)
class Query:
    """A sentence, a picture, or both.

    Attributes:
      image: features of one picture; None without.
      text: features of one sentence; None without.
      ids: (T,) of the sentence.
      cut: number of tokens of the sentence beyond the length of ``ids``.
      stored: the picture's place in the gallery; None for a sentence or a new picture.
    """

    image: Features | None = None
    text: Features | None = None
    ids: np.ndarray | None = None
    cut: int = 0
    stored: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Ranked:
    """The best of the gallery, best first.

    Attributes:
      items: int64 (k,).
      scores: float32 (k,), falling.
      lowest: score of the worst item of the gallery.
      known: the items that belong to the query, to their ranks from 1.
    """

    items: np.ndarray
    scores: np.ndarray
    lowest: float
    known: Mapping[int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """Images and captions, embedded by one run.

    Attributes:
      run: whose model it is.
      similarity: by which the run was trained.
      tokenizer: of captions and sentences.
      prepare: from encoded pictures and records to the model's input.
      data: where the images are.
      place: (N,) of the images in ``data.source``.
      images: features (N, ...).
      texts: features (M, ...) of the captions, those of an image in a row.
      ids: (M, T) of the captions.
      owner: (M,) their image.
      grid: rows and columns of the image's patches where the model has a word-patch view.
      left_out: images whose features are not finite, and captions that are empty or not finite.
    """

    run: Run
    similarity: Similarity
    tokenizer: Tokenizer
    prepare: Prepare
    data: EvalData
    place: np.ndarray
    images: Features
    texts: Features
    ids: np.ndarray
    owner: np.ndarray
    grid: tuple[int, int] | None
    left_out: Mapping[str, int]

    @classmethod
    def of(
        cls, run: Run, data: EvalData, tokenizer: Tokenizer, prepare: Prepare, captions: bool
    ) -> Index:
        """Reads ``data`` once; ``captions`` says whether its texts describe its images.

        Raises:
          DataError: no usable image, or more than the page holds in memory.
          ValueError: batches without ``image`` or ``text``.
        """
        objective: Any = run.experiment.objective
        reads = objective.similarity.reads
        grid = _check_size(run, data, len(data.source))
        rows = embed(
            run.predict,
            context(run.variables, run.step, run.mesh),
            data,
            reads,
            ("text",),
            ("text_mask",),
        )
        images, texts = _side(rows, "image/"), _side(rows, "text/")
        is_finite = _finite(images)
        if not is_finite.any():
            raise DataError(f"{data.source.info.name}: none of its images has finite features")
        ids = rows["text"] if rows["text"].ndim == 3 else rows["text"][:, None]
        shape = ids.shape[:2]
        if rows["text"].ndim == 2:
            texts = {name: x[:, None] for name, x in texts.items()}
        present = np.broadcast_to(is_finite[:, None] & captions, shape)
        present = present & np.reshape(rows.get("text_mask", np.ones(shape)), shape).astype(bool)
        finite = _finite({name: x.reshape(-1, *x.shape[2:]) for name, x in texts.items()})
        filled = np.array(
            [bool(content(tokenizer, row)) for row in ids.reshape(-1, ids.shape[2]).tolist()]
        )
        used = present & (filled & finite).reshape(shape)
        left_out = {"images": int((~is_finite).sum()), "captions": int((present & ~used).sum())}
        return cls(
            run=run,
            similarity=objective.similarity,
            tokenizer=tokenizer,
            prepare=prepare,
            data=data,
            place=rows["_index"][is_finite],
            images={name: x[is_finite] for name, x in images.items()},
            texts={name: x[used] for name, x in texts.items()},
            ids=ids[used],
            owner=(np.cumsum(is_finite) - 1)[np.nonzero(used)[0]],
            grid=grid if isinstance(objective.similarity, LateInteraction) else None,
            left_out=left_out,
        )

    def __len__(self) -> int:
        return len(self.place)

    @functools.cached_property
    def captions(self) -> list[str]:
        """As the tokenizer gives them back."""
        return self.tokenizer.decode(self.ids) if len(self.ids) else []

    def captions_of(self, image: int) -> range:
        first, last = np.searchsorted(self.owner, [image, image + 1]).tolist()
        return range(first, last)

    def key(self, image: int) -> str:
        return self.data.source.key(int(self.place[image]))

    def picture(self, image: int) -> bytes:
        """What the model sees of an image, as PNG."""
        index = int(self.place[image])
        return self.prepare.seen(self.data.source[index], index)

    def ask(self, text: str = "", image: int | None = None, encoded: bytes = b"") -> Query:
        """Embeds a query.

        Args:
          text: a sentence; empty for none.
          image: of the gallery.
          encoded: a picture's file, in place of ``image``.

        Raises:
          QueryError: a sentence without a token, or features that are not finite.
          DecodeError: ``encoded`` is no image that can be read cleanly.
        """
        query = Query()
        if text:
            ids = self.tokenizer.encode([text])[0]
            if not content(self.tokenizer, ids.tolist()):
                raise QueryError("nothing in this sentence is a token of the model's vocabulary")
            cut = max(0, len(self.tokenizer.split(text)) - room(self.tokenizer))
            features = self._embed(Arrays({"text": ids[None]}, "sentence"), (), "text/")
            query = dataclasses.replace(query, text=features, ids=ids, cut=cut)
        if encoded:
            record = self.prepare.record(encoded, MAX_UPLOAD_PIXELS)
            features = self._embed(Given((record,)), self.data.ops, "image/")
            query = dataclasses.replace(query, image=features)
        elif image is not None:
            features = {name: x[image : image + 1] for name, x in self.images.items()}
            query = dataclasses.replace(query, image=features, stored=image)
        if query.image is None and query.text is None:
            raise QueryError("nothing to search for: give a sentence, a picture, or both")
        return query

    def rank_images(self, query: Query, k: int) -> Ranked:
        """By a sentence, a picture, or the mean of both scores; the query itself is left out."""
        known: Sequence[int] = ()
        if query.ids is not None and query.image is None:
            equal = np.asarray([np.array_equal(row, query.ids) for row in self.ids], bool)
            known = np.unique(self.owner[equal])[:_KNOWN].tolist()
        sides = [side for side in (query.image, query.text) if side is not None]
        if self._plain:
            query_vector = np.mean([side["embedding"] for side in sides], 0)
            return _ranked(query_vector, self.images["embedding"], k, known, query.stored)
        scores = [_to_image(self.similarity, self.images, side) for side in sides]
        return _ranked(*_listed(np.mean(scores, 0)), k, known, query.stored)

    def rank_captions(self, query: Query, k: int) -> Ranked | None:
        """By a picture; None where there are no captions, or the query has none."""
        if query.image is None or not len(self.ids):
            return None
        known = [] if query.stored is None else list(self.captions_of(query.stored))[:_KNOWN]
        if self._plain:
            return _ranked(query.image["embedding"], self.texts["embedding"], k, known)
        return _ranked(*_listed(_to_text(self.similarity, query.image, self.texts)), k, known)

    def words(self, ids: np.ndarray, features: Features) -> list[str]:
        """The tokens that count of one text, its ``features`` of one row."""
        return [self._word(int(i)) for i in ids[_mask(features)]]

    def match(self, images: Features, text: Features) -> np.ndarray:
        """Cosines (n, words, patches) of n images with the tokens of one text that count.

        Needs ``grid``. Tokens in front of the patches, such as a class token, are left out.
        """
        assert self.grid is not None
        tokens = text["tokens"][0][_mask(text)]
        patches = images["tokens"][:, -math.prod(self.grid) :]
        return np.einsum("ipd,td->itp", patches, tokens)

    @property
    def _plain(self) -> bool:
        """Whether scores are inner products of one vector each."""
        sides = (self.images, self.texts)
        return all(set(side) == {"embedding"} and side["embedding"].ndim == 2 for side in sides)

    def _embed(self, source: Any, ops: tuple[Any, ...], side: str) -> Features:
        rows = math.prod(self.run.mesh.shape[axis] for axis in BATCH_AXES)
        data = EvalData(source, batch_size=rows, ops=ops, threads=0)
        objective: Any = self.run.experiment.objective
        names = tuple(name for name in objective.similarity.reads if name.startswith(side))
        predict = _one_side(self.run.predict, side.rstrip("/"))
        run = self.run
        ctx = context(run.variables, run.step, run.mesh)
        features = _side(embed(predict, ctx, data, names), side)
        if not _finite(features).all():
            raise QueryError("the model gives NaN or infinity for this query")
        return features

    def _word(self, token: int) -> str:
        if token == self.tokenizer.bos_id:
            return "[start]"
        if token == self.tokenizer.eos_id:
            return "[end]"
        return self.tokenizer.join([token]).strip() or "[space]"


@functools.lru_cache(maxsize=4)
def _one_side(predict_both: Predict, side: str) -> Predict:
    """``predict_both`` of one side of the batch: one object, so that its program is cached."""

    def predict(variables: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return predict_both(variables, {k: x for k, x in batch.items() if k in (side, "_mask")})

    return predict


def _check_size(run: Run, data: EvalData, count: int) -> tuple[int, int] | None:
    """The grid of the image's patches, where it has one, after checking what all would weigh."""
    objective: Any = run.experiment.objective
    loader = data.loader()
    try:
        batch = next(iter(loader))
    finally:
        loader.close()
    if missing := [name for name in ("image", "text") if name not in batch]:
        raise ValueError(
            f"a batch of {data.source.info.name} has no {missing[0]!r}; it has "
            f"{', '.join(sorted(batch))}"
        )
    shapes = {name: jax.eval_shape(lambda x=batch[name]: x) for name in ("image", "text")}
    params, state = run.variables.params["model"], run.variables.model_state["model"]
    out: Any = jax.eval_shape(
        lambda x: forward(objective.model, params, state, x, train=False)[1], shapes
    )
    row = sum(math.prod(out[name].shape[1:]) for name in objective.similarity.reads if name in out)
    if 4 * row * count > _MAX_BYTES:
        raise DataError(
            f"features of {count} images take {4 * row * count / 2**30:.1f} GiB, and the page "
            f"holds {_MAX_BYTES / 2**30:.0f} GiB: give --limit={_MAX_BYTES // (4 * row)} or less"
        )
    spatial, tokens = out.get("image/map"), out.get("image/tokens")
    if spatial is None or tokens is None or tokens.shape[1] < math.prod(spatial.shape[1:3]):
        return None
    return int(spatial.shape[1]), int(spatial.shape[2])


def _side(rows: Mapping[str, np.ndarray], prefix: str) -> Features:
    features: Any = {k.removeprefix(prefix): x for k, x in rows.items() if k.startswith(prefix)}
    if "tokens" in features:
        features["tokens"] = np.asarray(unit(features["tokens"]))
    return features


def _finite(side: Mapping[str, Any]) -> np.ndarray:
    return np.logical_and.reduce([np.isfinite(x).reshape(len(x), -1).all(1) for x in side.values()])


def _mask(text: Features) -> np.ndarray:
    return np.asarray(text["mask"][0]).astype(bool)


@functools.partial(jax.jit, static_argnums=0)
def _to_image(similarity: Similarity, images: Features, text: Features) -> jax.Array:
    """Scores (N,) of images. A picture in place of the text is all its patches as words."""
    parts = jax.lax.map(lambda some: similarity(some, text)[1][:, 0], chunks(images, _AT_ONCE))
    return unchunk(parts, len(jax.tree.leaves(images)[0]))


@functools.partial(jax.jit, static_argnums=0)
def _to_text(similarity: Similarity, image: Features, texts: Features) -> jax.Array:
    parts = jax.lax.map(lambda some: similarity(image, some)[0][0], chunks(texts, _AT_ONCE))
    return unchunk(parts, len(jax.tree.leaves(texts)[0]))


def _listed(scores: Any) -> tuple[np.ndarray, np.ndarray]:
    """Finished scores as a query and a gallery of one number each, which are ranked like any."""
    return np.ones((1, 1), np.float32), np.asarray(scores, np.float32)[:, None]


def _ranked(
    query_vector: np.ndarray,
    gallery: np.ndarray,
    k: int,
    known: Sequence[int],
    without: int | None = None,
) -> Ranked:
    count = len(gallery)
    scores, items = nearest(query_vector, gallery, min(k + (without is not None), count))
    not_query = items[0] != (-1 if without is None else without)
    lowest = -float(nearest(-query_vector, gallery, 1)[0][0, 0])
    ranks: dict[int, int] = {}
    if known:
        queries = np.repeat(query_vector, len(known), 0)
        places = rank(queries, gallery, lambda q: np.asarray([known[q]])).first
        # Near ties may differ between float32 and float64 products: the displayed order counts.
        ranked_items = items[0].tolist()
        for item, place in zip(known, places, strict=True):
            ranks[item] = 1 + (ranked_items.index(item) if item in ranked_items else int(place))
    return Ranked(items[0][not_query][:k], scores[0][not_query][:k], lowest, ranks)
