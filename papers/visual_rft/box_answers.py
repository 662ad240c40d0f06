"""Boxes as text: what a captioner says of objects, and how right it is, both checked by rule.

An answer is a row of ids::

    <bos> <think> class </think> <answer> y0 x0 y1 x1 c  y0 x0 y1 x1 c ... </answer> <eos> pad ...

with a class of the image, and for every box four coordinates and a confidence, each one token.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vision.config.ranges import Ge, Positive, checked

PAD, BOS, EOS, THINK, END_THINK, ANSWER, END_ANSWER = range(7)
_HEAD, _BOX = 5, 5  # tokens before the first box, and of a box


@dataclasses.dataclass(frozen=True)
@checked
class BoxAnswers:
    """The language, and as an op what writes the right answer of an example.

    The op takes ``label`` int, ``boxes`` (M, 4) y0, x0, y1, x1 in pixels and ``valid`` bool (M,);
    adds ``text`` int32 (length,), boxes in their order and sure; and makes ``boxes`` shares of the
    image's sides, float32 (max_boxes, 4). What has no room is left out of the text and the boxes.

    Attributes:
      classes: number of classes.
      bins: values of a coordinate, from 0 to 1 of the side.
      confidences: values of a confidence, from 0 to 1.
      max_boxes: most boxes of an answer.
    """

    classes: Positive[int]
    bins: Annotated[int, Ge(2)] = 16
    confidences: Annotated[int, Ge(2)] = 4
    max_boxes: Positive[int] = 1

    @property
    def length(self) -> int:
        """Tokens of a row."""
        return _HEAD + _BOX * self.max_boxes + 2

    @property
    def vocab_size(self) -> int:
        return self._sure + self.confidences

    @property
    def _first_class(self) -> int:
        return END_ANSWER + 1

    @property
    def _zero(self) -> int:
        """The token of coordinate 0."""
        return self._first_class + self.classes

    @property
    def _sure(self) -> int:
        """The token of confidence 0."""
        return self._zero + self.bins

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        if missing := [name for name in ("image", "label", "boxes") if name not in example]:
            raise ValueError(f"BoxAnswers: no feature {missing[0]!r} among {', '.join(example)}")
        boxes = np.asarray(example["boxes"], np.float32)
        valid = np.asarray(example.get("valid", np.ones(len(boxes), bool)), bool)
        kept = boxes[valid][: self.max_boxes]
        height, width = np.asarray(example["image"]).shape[:2]
        shares = np.zeros((self.max_boxes, 4), np.float32)
        shares[: len(kept)] = kept / np.array([height, width, height, width], np.float32)
        there = np.arange(self.max_boxes) < len(kept)
        text = self.write(int(example["label"]), shares[there])
        return {**example, "text": text, "boxes": shares, "valid": there}

    def write(self, label: int, boxes: np.ndarray, confidence: float = 1.0) -> np.ndarray:
        """The row of a class and boxes (M, 4) in shares of the sides."""
        row = [BOS, THINK, self._first_class + label, END_THINK, ANSWER]
        sure = self._sure + round(confidence * (self.confidences - 1))
        for box in boxes.tolist():
            row += [self._zero + round(x * (self.bins - 1)) for x in box] + [sure]
        row += [END_ANSWER, EOS]
        return np.asarray(row + [PAD] * (self.length - len(row)), np.int32)

    def read(self, ids: jax.Array) -> dict[str, jax.Array]:
        """What rows (B, length) say; traceable.

        Returns:
          ``label`` int (B,), -1 for none; ``boxes`` (B, M, 4), ``confidence`` (B, M) and ``there``
          bool (B, M), without repetitions; ``well_formed`` bool (B,).
        """
        klass = ids[:, 2] - self._first_class
        thought = (klass >= 0) & (klass < self.classes)
        head = jnp.asarray([BOS, THINK, END_THINK, ANSWER])
        opened = jnp.all(ids[:, jnp.asarray([0, 1, 3, 4])] == head, -1)
        body = ids[:, _HEAD : _HEAD + _BOX * self.max_boxes]
        body = body.reshape(len(ids), self.max_boxes, _BOX)
        place, sure = body[..., :4] - self._zero, body[..., 4] - self._sure
        good = jnp.all((place >= 0) & (place < self.bins), -1)
        good &= (sure >= 0) & (sure < self.confidences)
        there = jnp.cumprod(good, 1).astype(bool)
        ends = _HEAD + _BOX * there.sum(1)[:, None] + jnp.arange(2)
        closed = jnp.take_along_axis(ids, ends, 1) == jnp.asarray([END_ANSWER, EOS])
        same = jnp.all(place[:, :, None] == place[:, None], -1) & there[:, None]
        repeated = jnp.any(jnp.tril(same, -1), -1)
        return {
            "label": jnp.where(thought, klass, -1),
            "boxes": place / (self.bins - 1),
            "confidence": sure / (self.confidences - 1),
            "there": there & ~repeated & (ids[:, 4] == ANSWER)[:, None],
            "well_formed": opened & thought & jnp.all(closed, -1),
        }

    def rewards(
        self, ids: jax.Array, label: jax.Array, boxes: jax.Array, valid: jax.Array
    ) -> dict[str, jax.Array]:
        """Rewards (B,) of rows, 0..1 each; traceable.

        In descending confidence every predicted box takes the true one that it overlaps most, if
        by more than half and nobody took it before.

        Args:
          ids: (B, length).
          label: int (B,).
          boxes: (B, L, 4) true boxes in shares of the sides.
          valid: bool (B, L).

        Returns:
          ``format``; ``class``; ``iou``: overlap of the matches over the larger number of boxes,
          true or predicted; ``confidence``: mean of c of matched and 1 - c of other predictions, 0
          without any; ``overlap``: best overlap of any prediction with the first true box, for
          measuring only.
        """
        said = self.read(ids)
        overlaps = iou(said["boxes"], boxes)
        overlaps = jnp.where(said["there"][..., None] & valid[:, None], overlaps, 0.0)
        order = jnp.argsort(jnp.where(said["there"], -said["confidence"], jnp.inf), 1, stable=True)
        rows = jnp.arange(len(ids))
        free = valid
        matched = jnp.zeros(said["there"].shape, bool)
        total = jnp.zeros(len(ids))
        for rank in range(self.max_boxes):
            mine = order[:, rank]
            found = jnp.where(free, overlaps[rows, mine], 0.0)
            best, place = found.max(1), found.argmax(1)
            takes = best > 0.5
            total += jnp.where(takes, best, 0.0)
            free &= ~(takes[:, None] & (jnp.arange(free.shape[1]) == place[:, None]))
            matched = matched.at[rows, mine].set(takes)
        count = said["there"].sum(1)
        agreed = jnp.where(matched, said["confidence"], 1 - said["confidence"])
        return {
            "format": said["well_formed"].astype(jnp.float32),
            "class": (said["label"] == label).astype(jnp.float32),
            "iou": total / jnp.maximum(jnp.maximum(count, valid.sum(1)), 1),
            "confidence": jnp.sum(agreed * said["there"], 1) / jnp.maximum(count, 1),
            "overlap": overlaps[..., 0].max(1),
        }


def iou(one: jax.Array, two: jax.Array) -> jax.Array:
    """Overlap (B, M, L) of boxes (B, M, 4) and (B, L, 4): intersection over union.

    Boxes whose ends are the wrong way round have no area.
    """
    one, two = one[:, :, None], two[:, None]
    shared = jnp.minimum(one[..., 2:], two[..., 2:]) - jnp.maximum(one[..., :2], two[..., :2])
    inside = jnp.prod(jnp.maximum(shared, 0), -1)
    areas = [jnp.prod(jnp.maximum(x[..., 2:] - x[..., :2], 0), -1) for x in (one, two)]
    return inside / jnp.maximum(areas[0] + areas[1] - inside, 1e-12)
