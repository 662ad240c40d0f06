"""Boxes as tokens: the language of a captioner's detections, its parser and its rewards.

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
    """The language of answers; as an op it writes the target answer of an example.

    The op takes ``label`` int, ``boxes`` (M, 4) y0, x0, y1, x1 in pixels and ``valid`` bool (M,);
    adds ``text`` int32 (length,), the boxes in order with confidence 1; and turns ``boxes`` into
    shares of the image's sides, float32 (max_boxes, 4). Boxes beyond ``max_boxes`` are left out.

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
        present = np.arange(self.max_boxes) < len(kept)
        text = self.write(int(example["label"]), shares[present])
        return {**example, "text": text, "boxes": shares, "valid": present}

    def write(self, label: int, boxes: np.ndarray, confidence: float = 1.0) -> np.ndarray:
        """Token ids int32 (length,) of a class and boxes (M, 4) in shares of the sides."""
        row = [BOS, THINK, self._first_class + label, END_THINK, ANSWER]
        sure = self._sure + round(confidence * (self.confidences - 1))
        for box in boxes.tolist():
            row += [self._zero + round(x * (self.bins - 1)) for x in box] + [sure]
        row += [END_ANSWER, EOS]
        return np.asarray(row + [PAD] * (self.length - len(row)), np.int32)

    def read(self, ids: jax.Array) -> dict[str, jax.Array]:
        """Parses rows (B, length) of ids; traceable.

        Returns:
          ``label`` int (B,), -1 for none; ``boxes`` (B, M, 4), ``confidence`` (B, M) and ``there``
          bool (B, M), the valid boxes without repetitions; ``well_formed`` bool (B,).
        """
        label = ids[:, 2] - self._first_class
        label_valid = (label >= 0) & (label < self.classes)
        head = jnp.asarray([BOS, THINK, END_THINK, ANSWER])
        head_valid = jnp.all(ids[:, jnp.asarray([0, 1, 3, 4])] == head, -1)
        body = ids[:, _HEAD : _HEAD + _BOX * self.max_boxes]
        body = body.reshape(len(ids), self.max_boxes, _BOX)
        coordinates, confidence = body[..., :4] - self._zero, body[..., 4] - self._sure
        box_valid = jnp.all((coordinates >= 0) & (coordinates < self.bins), -1)
        box_valid &= (confidence >= 0) & (confidence < self.confidences)
        valid = jnp.cumprod(box_valid, 1).astype(bool)
        ends = _HEAD + _BOX * valid.sum(1)[:, None] + jnp.arange(2)
        end_valid = jnp.take_along_axis(ids, ends, 1) == jnp.asarray([END_ANSWER, EOS])
        same = jnp.all(coordinates[:, :, None] == coordinates[:, None], -1) & valid[:, None]
        repeated = jnp.any(jnp.tril(same, -1), -1)
        return {
            "label": jnp.where(label_valid, label, -1),
            "boxes": coordinates / (self.bins - 1),
            "confidence": confidence / (self.confidences - 1),
            "there": valid & ~repeated & (ids[:, 4] == ANSWER)[:, None],
            "well_formed": head_valid & label_valid & jnp.all(end_valid, -1),
        }

    def rewards(
        self, ids: jax.Array, label: jax.Array, boxes: jax.Array, valid: jax.Array
    ) -> dict[str, jax.Array]:
        """Rewards (B,) of rows, 0..1 each; traceable.

        In order of descending confidence every predicted box is matched to the unmatched true box
        of largest overlap, if that is more than half.

        Args:
          ids: (B, length).
          label: int (B,).
          boxes: (B, L, 4) true boxes in shares of the sides.
          valid: bool (B, L).

        Returns:
          ``format``; ``class``; ``iou``: overlap of the matches over the larger number of boxes,
          true or predicted; ``confidence``: mean of c of matched and 1 - c of other predictions, 0
          without any; ``overlap``: best overlap of any prediction with the first true box, for
          evaluation only.
        """
        parsed = self.read(ids)
        overlaps = iou(parsed["boxes"], boxes)
        overlaps = jnp.where(parsed["there"][..., None] & valid[:, None], overlaps, 0.0)
        order = jnp.argsort(
            jnp.where(parsed["there"], -parsed["confidence"], jnp.inf), 1, stable=True
        )
        rows = jnp.arange(len(ids))
        unmatched = valid
        matched = jnp.zeros(parsed["there"].shape, bool)
        total = jnp.zeros(len(ids))
        for rank in range(self.max_boxes):
            predicted = order[:, rank]
            candidates = jnp.where(unmatched, overlaps[rows, predicted], 0.0)
            best, argmax = candidates.max(1), candidates.argmax(1)
            is_match = best > 0.5
            total += jnp.where(is_match, best, 0.0)
            unmatched &= ~(is_match[:, None] & (jnp.arange(unmatched.shape[1]) == argmax[:, None]))
            matched = matched.at[rows, predicted].set(is_match)
        count = parsed["there"].sum(1)
        agreement = jnp.where(matched, parsed["confidence"], 1 - parsed["confidence"])
        return {
            "format": parsed["well_formed"].astype(jnp.float32),
            "class": (parsed["label"] == label).astype(jnp.float32),
            "iou": total / jnp.maximum(jnp.maximum(count, valid.sum(1)), 1),
            "confidence": jnp.sum(agreement * parsed["there"], 1) / jnp.maximum(count, 1),
            "overlap": overlaps[..., 0].max(1),
        }


def iou(first: jax.Array, second: jax.Array) -> jax.Array:
    """Overlap (B, M, L) of boxes (B, M, 4) and (B, L, 4): intersection over union.

    Boxes whose ends are the wrong way round have no area.
    """
    first, second = first[:, :, None], second[:, None]
    extent = jnp.minimum(first[..., 2:], second[..., 2:]) - jnp.maximum(
        first[..., :2], second[..., :2]
    )
    intersection = jnp.prod(jnp.maximum(extent, 0), -1)
    areas = [jnp.prod(jnp.maximum(x[..., 2:] - x[..., :2], 0), -1) for x in (first, second)]
    return intersection / jnp.maximum(areas[0] + areas[1] - intersection, 1e-12)
