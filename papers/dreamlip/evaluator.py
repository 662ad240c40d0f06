"""Segmentation without a head: patches compared with the texts of the classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np

from vision.config.ranges import MinLen, NonNegative, checked
from vision.data.source import DataError
from vision.data.tokenize import Tokenizer
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.image_text.embeddings import embed, normalised
from vision.evaluators.image_text.zero_shot import text_bank

PATCHES = "image/tokens"


@dataclasses.dataclass(frozen=True)
@checked
class PatchSegmentation:
    """Zero-shot segmentation: pixels get the class whose text is most similar to their patch.

    Yields ``miou`` (mean over classes that occur of intersection over union, of all pixels of all
    images), ``pixels`` (pixel accuracy) and ``iou/NAME``.

    ``predict`` has to give ``image/tokens`` (B, P, D), of square grids of patches, and
    ``text/embedding`` of texts.

    Attributes:
      data: what is read; batches have ``image``, and ``segmentation`` int (B, H, W): the true
        classes, -1 for pixels to ignore.
      tokenizer: of the texts.
      texts: one text per class, in label order, such as "a red thing".
      prefix: tokens of the image tower before its patches: 1 for a class token.
    """

    data: EvaluationData
    tokenizer: Tokenizer
    texts: Annotated[tuple[str, ...], MinLen(2)]
    prefix: NonNegative[int] = 0

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: no records, or labels that are no class.
          ValueError: ``predict`` or the batches lack what is needed, or sizes do not fit.
        """
        rows = embed(predict, ctx, self.data, (PATCHES,), ("segmentation",))
        text_embeddings = text_bank(
            predict, ctx, self.tokenizer, ("{}",), self.texts, len(self.texts)
        )
        true = rows["segmentation"]
        if true.ndim != 3 or true.dtype.kind not in "iu":
            raise ValueError(f"'segmentation' is {true.dtype}{list(true.shape)}, not int (B, H, W)")
        predicted = segment(
            rows[PATCHES][:, self.prefix :], text_embeddings, (true.shape[1], true.shape[2])
        )
        ious = intersection_over_union(predicted, true, self.texts)
        yield "miou", float(np.nanmean(ious))
        yield "pixels", float(np.mean((predicted == true)[true >= 0]))
        for name, value in zip(self.texts, ious.tolist(), strict=True):
            if not np.isnan(value):
                yield f"iou/{name}", value


def segment(patches: np.ndarray, bank: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The class of every pixel, int64 (N, H, W).

    Args:
      patches: (N, P, D) of any length, row by row of a square grid.
      bank: unit vectors (K, D) of the classes.
      size: H and W, multiples of the grid's side.

    Raises:
      ValueError: no square grid, or one that does not divide the size.
    """
    count = patches.shape[1]
    side = round(count**0.5)
    if side * side != count or any(length % side for length in size):
        raise ValueError(
            f"{count} patches are no square grid over {size[0]} x {size[1]} pixels; set prefix "
            "where the tower has tokens before its patches"
        )
    best = np.argmax(normalised(patches) @ bank.T, -1).reshape(-1, side, side)
    return best.repeat(size[0] // side, 1).repeat(size[1] // side, 2)


def intersection_over_union(
    predicted: np.ndarray, true: np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """IoU of every class, float64 (K,), NaN for classes that are neither predicted nor true.

    Args:
      predicted: classes (N, H, W), 0..K - 1.
      true: the same, with -1 for pixels that do not count.
      names: of the K classes.

    Raises:
      DataError: a label that is no class.
    """
    if bad := int((true < -1).sum() + (true >= len(names)).sum()):
        raise DataError(f"{bad} pixels have labels outside -1..{len(names) - 1}")
    valid = true >= 0
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (true[valid], predicted[valid]), 1)
    intersection = np.diagonal(counts)
    union = counts.sum(0) + counts.sum(1) - intersection
    return np.divide(intersection, union, out=np.full(len(names), np.nan), where=union > 0)
