"""Consistency of a classifier's predictions under translation of the image by pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from vision.config.ranges import NonEmpty, Positive, Unique, checked
from vision.data.ops.geometry import CenterCrop
from vision.data.ops.shift import Shift
from vision.data.pipeline import EvalData
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.robustness.perturbed import answers, with_op


@dataclasses.dataclass(frozen=True)
@checked
class Translation:
    """Predictions for the eight neighbours of the cropped window, compared with the window's own.

    The window that ``CenterCrop`` among ``data.ops`` cuts out is moved within the larger picture,
    so that new pixels enter, as when a camera moves. Yields ``top1`` in the middle; for every
    distance d ``consistency_<d>``, the share of the answers at (0, +-d), (+-d, 0) and (+-d, +-d)
    that are the one in the middle, and ``steady_<d>``, the share of records where all eight are;
    ``consistency`` and ``steady`` of all distances together; ``worst_top1``, of records that are
    correct everywhere; ``examples`` (all records: consistency needs no labels), and,
    only where there are any, ``unlabelled`` and ``nonfinite`` (answers with NaN or infinity among
    their logits; NaN is another answer every time). The figure ``consistency_by_distance`` shows
    both shares.
    Shifman and Weiss, Lost in Translation: Modern Neural Networks Still Struggle With Small
    Realistic Image Transformations, 2024.

    Attributes:
      data: what is measured; images must be larger than the window by the largest distance on
        every side.
      distances_px: whole numbers, 1 or more.
      cyclic: shift cyclically, with any ops: pixels that leave on one side enter on the other,
        which no camera does.
      logits: name of the logits (B, K) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
    """

    data: EvalData
    distances_px: Unique[NonEmpty[tuple[Positive[int], ...]]] = (1,)
    cyclic: bool = False
    logits: str = "logits"
    label: str = "label"

    trained_classes: ClassVar[TrainedClasses] = {"data": ("label",)}

    def __post_init__(self) -> None:
        if not self.cyclic and len(self._crops) != 1:
            ops = ", ".join(type(op).__name__ for op in self.data.ops) or "none"
            raise ValueError(
                f"data.ops ({ops}) must have one CenterCrop, whose window is moved, and a larger "
                "picture before it; or set cyclic=True"
            )

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once, and eight times for every distance.

        Raises:
          DataError: no labelled records, or a window that reaches over the edge of its picture.
          MetricError: labels that are no class.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        still = answers(predict, ctx, self.data, self.logits, self.label)
        yield "top1", still.accuracy
        nonfinite, always_right = still.nonfinite, still.right
        distances, rows = sorted(self.distances_px), []
        for distance in distances:
            unchanged = []
            for down, right in neighbours(distance):
                moved = answers(predict, ctx, self._moved(down, right), self.logits, self.label)
                if not np.array_equal(moved.index, still.index):
                    differing = np.setxor1d(moved.index, still.index)
                    raise ValueError(
                        f"{self.data.source.info.name}: {len(differing)} records, the first is "
                        f"{differing[0]}, cannot be read when moved by ({down}, {right}): their "
                        "images are too small"
                    )
                unchanged.append((moved.predicted == still.predicted) & (moved.predicted >= 0))
                nonfinite += moved.nonfinite
                always_right = always_right & moved.right
            rows.append(np.stack(unchanged))
            yield f"consistency_{distance}", float(rows[-1].mean())
            yield f"steady_{distance}", float(rows[-1].all(0).mean())
        all_rows = np.concatenate(rows)
        yield "consistency", float(all_rows.mean())
        yield "steady", float(all_rows.all(0).mean())
        yield "worst_top1", float(always_right.mean())
        yield "examples", len(still.index)
        if unlabelled := int((~still.labelled).sum()):
            yield "unlabelled", unlabelled
        if nonfinite:
            yield "nonfinite", nonfinite
        x = np.asarray(distances, np.float64)
        lines = (
            Line("same answer", x, np.asarray([row.mean() for row in rows])),
            Line("same answer at all eight", x, np.asarray([row.all(0).mean() for row in rows])),
        )
        yield "consistency_by_distance", Curve(lines, "pixels", "share")

    @property
    def _crops(self) -> list[int]:
        return [at for at, op in enumerate(self.data.ops) if isinstance(op, CenterCrop)]

    def _moved(self, down: int, right: int) -> EvalData:
        if self.cyclic:
            return with_op(self.data, Shift(down, right), len(self.data.ops))
        [position] = self._crops
        crop = self.data.ops[position]
        assert isinstance(crop, CenterCrop)
        size = (crop.size, crop.size) if isinstance(crop.size, int) else crop.size
        without_crop = dataclasses.replace(
            self.data, ops=(*self.data.ops[:position], *self.data.ops[position + 1 :])
        )
        return with_op(without_crop, Shift(down, right, size, crop.key), position)


def neighbours(distance: int) -> list[tuple[int, int]]:
    """The eight moves (down, right) whose larger part is ``distance``, in multiples of it."""
    steps = (-distance, 0, distance)
    return [(down, right) for down in steps for right in steps if (down, right) != (0, 0)]
