"""Shared by evaluators of perturbed images: the data with one more op, and predictions."""

from __future__ import annotations

import dataclasses

import numpy as np

from vision.data.ops.base import Op
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.evaluate.evaluator import EvalContext, Predict
from vision.evaluators.image_text.embeddings import embed
from vision.metrics.arrays import class_indices, predictions


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """A classifier's predictions for the records of data, in their order.

    Attributes:
      index: int32 (N,), of each record in its source; unreadable records are left out.
      labels: int64 (N,), -1 for none.
      predicted: int64 (N,), -1 where the logits hold NaN.
      nonfinite: records with NaN or infinity among their logits.
    """

    index: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    nonfinite: int

    @property
    def labelled(self) -> np.ndarray:
        """Bool (N,)."""
        return self.labels >= 0

    @property
    def right(self) -> np.ndarray:
        """Bool (M,), of the labelled records: NaN is wrong."""
        return (self.predicted == self.labels)[self.labelled]

    @property
    def accuracy(self) -> float:
        """Top-1 of the labelled records."""
        return float(self.right.mean())


def answers(
    predict: Predict,
    ctx: EvalContext,
    data: EvalData,
    logits: str,
    label: str,
    classes: tuple[int, ...] = (),
    select: bool = False,
) -> Predictions:
    """Predictions for ``data``, which is read once or taken from ``ctx.store``.

    Args:
      logits: name of the logits (B, K) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
      classes: only these columns of the logits are compared, and label j means the class
        ``classes[j]``; empty for all.
      select: labels are numbers of the model's classes, and those outside ``classes`` count as
        unlabelled.

    Raises:
      DataError: no labelled records.
      MetricError: labels that are no class.
      ValueError: ``predict`` or the batches lack what is needed, or a class that is no column.
    """
    rows = embed(predict, ctx, data, (logits,), (label,))
    scores, name = rows[logits], data.source.info.name
    if classes and not 0 <= min(classes) <= max(classes) < scores.shape[1]:
        raise ValueError(
            f"classes of {name}: {min(classes)}..{max(classes)}, but the logits have columns "
            f"0..{scores.shape[1] - 1}"
        )
    num_classes = scores.shape[1]
    scores = scores[:, list(classes)] if classes else scores
    labels = class_indices(
        f"labels of {name}", rows[label], None, num_classes if select else scores.shape[1]
    )
    if select:
        position = np.full(num_classes + 1, -1)  # the last is that of no label
        position[list(classes)] = np.arange(len(classes))
        labels = position[labels]
    if not (labels >= 0).any():
        raise DataError(f"{name}: no labelled records")
    nonfinite = int((~np.isfinite(scores)).any(1).sum())
    return Predictions(rows["_index"], labels, predictions(scores), nonfinite)


def with_op(data: EvalData, op: Op, place: int) -> EvalData:
    """``data`` with ``op`` inserted at index ``place`` of its ops."""
    return dataclasses.replace(data, ops=(*data.ops[:place], op, *data.ops[place:]))


def last_uint8(data: EvalData) -> int:
    """The last index in ``data.ops`` at which the image is uint8, for an op on pixels.

    There the image is decoded, resized and cropped, and not yet normalised. One record is read to
    find it.

    Raises:
      DataError: no record can be read.
      ValueError: the image is uint8 [H, W, 1 or 3] at no place.
    """
    stages = _stages(data)
    places = [place for place, (uint8, _) in enumerate(stages) if uint8]
    if not places:
        ops = [f"{place}: {what}" for place, (_, what) in enumerate(stages)]
        raise ValueError(
            f"{data.source.info.name}: the image is uint8 [H, W, 1 or 3] at no place in data.ops "
            f"({'; '.join(ops)}); decode it, and normalise it last"
        )
    return places[-1]


def _stages(data: EvalData) -> list[tuple[bool, str]]:
    """Before each op and after all: whether the image is uint8 of 1 or 3 channels, in words."""
    for index in range(len(data.source)):
        rng = np.random.Generator(np.random.Philox(key=[0, index]))
        try:
            example = data.source[index]
            stages = [_stage(example.get("image"), "as read")]
            for op in data.ops:
                example = op(example, rng)
                stages.append(_stage(example.get("image"), f"after {type(op).__name__}"))
        except DataError:
            continue
        return stages
    raise DataError(f"{data.source.info.name}: no record can be read")


def _stage(image: object, when: str) -> tuple[bool, str]:
    if not isinstance(image, np.ndarray):
        return False, f"{type(image).__name__} {when}"
    fits = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] in (1, 3)
    return fits, f"{image.dtype}{list(image.shape)} {when}"
