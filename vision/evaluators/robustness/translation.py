"""How often a classifier's answer changes when the picture moves by a pixel."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from vision.data.ops.geometry import CenterCrop
from vision.data.ops.shift import Shift
from vision.data.pipeline import EvalData
from vision.evaluate.evaluator import EvalContext, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.robustness.perturbed import answers, with_op


@dataclasses.dataclass(frozen=True)
class Translation:
    """The answers of a classifier at the eight neighbours of the window that it looks at.

    The window that ``CenterCrop`` among ``data.ops`` cuts out is moved within the larger picture,
    so that new pixels enter, as when a camera moves. Yields ``top1`` in the middle; for every
    distance d ``consistency_<d>``, the share of the answers at (0, +-d), (+-d, 0) and (+-d, +-d)
    that are the one in the middle, and ``steady_<d>``, the share of records where all eight are;
    ``consistency`` and ``steady`` of all distances together; ``worst_top1``, of records that are
    right everywhere; ``examples`` (all records: no label is needed to change an answer), and,
    only where there are any, ``unlabelled`` and ``nonfinite`` (answers with NaN or infinity among
    their logits; NaN is another answer every time). The figure ``consistency_by_distance`` shows
    both shares.
    Shifman and Weiss, Lost in Translation: Modern Neural Networks Still Struggle With Small
    Realistic Image Transformations, 2024.

    Attributes:
      data: what is looked at; pictures must be larger than the window by the largest distance on
        every side.
      distances_px: whole numbers, 1 or more.
      cyclic: what leaves the window on one side comes in on the other, with any ops; no picture of
        a camera moves like that.
      logits: name of the logits (B, K) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
    """

    data: EvalData
    distances_px: tuple[int, ...] = (1,)
    cyclic: bool = False
    logits: str = "logits"
    label: str = "label"

    def __post_init__(self) -> None:
        distances = self.distances_px
        if not distances or min(distances) < 1 or len(set(distances)) < len(distances):
            raise ValueError(f"distances_px={distances}: numbers of 1 or more, each once")
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
          MeasureError: labels that are no class.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        still = answers(predict, ctx, self.data, self.logits, self.label)
        yield "top1", still.accuracy
        nonfinite, always_right = still.nonfinite, still.right
        distances, rows = sorted(self.distances_px), []
        for distance in distances:
            same = []
            for down, right in neighbours(distance):
                moved = answers(predict, ctx, self._moved(down, right), self.logits, self.label)
                if not np.array_equal(moved.index, still.index):
                    at = np.setxor1d(moved.index, still.index)
                    raise ValueError(
                        f"{self.data.source.info.name}: {len(at)} records, {at[0]} first, cannot "
                        f"be read when moved by ({down}, {right}): their pictures are too small"
                    )
                same.append((moved.predicted == still.predicted) & (moved.predicted >= 0))
                nonfinite += moved.nonfinite
                always_right = always_right & moved.right
            rows.append(np.stack(same))
            yield f"consistency_{distance}", float(rows[-1].mean())
            yield f"steady_{distance}", float(rows[-1].all(0).mean())
        every = np.concatenate(rows)
        yield "consistency", float(every.mean())
        yield "steady", float(every.all(0).mean())
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
        [at] = self._crops
        crop = self.data.ops[at]
        assert isinstance(crop, CenterCrop)
        size = (crop.size, crop.size) if isinstance(crop.size, int) else crop.size
        rest = dataclasses.replace(self.data, ops=(*self.data.ops[:at], *self.data.ops[at + 1 :]))
        return with_op(rest, Shift(down, right, size, crop.key), at)


def neighbours(distance: int) -> list[tuple[int, int]]:
    """The eight moves (down, right) whose larger part is ``distance``, in multiples of it."""
    steps = (-distance, 0, distance)
    return [(down, right) for down in steps for right in steps if (down, right) != (0, 0)]
