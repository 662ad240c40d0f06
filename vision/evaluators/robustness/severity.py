"""Robustness to continuous nuisance shifts: accuracy along trajectories, and failure points."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, ClassVar

import numpy as np

from vision.config.ranges import (
    Finite,
    MinLen,
    NonEmpty,
    NonNegative,
    Rule,
    Unique,
    checked,
    one_of,
)
from vision.data.ops.sliders import SLIDERS, Slider
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.robustness.perturbed import answers, last_uint8, with_op
from vision.metrics.severity import Failures, failure_points

Scales = Annotated[
    tuple[NonNegative[Finite], ...],
    MinLen(2),
    Rule("rising", lambda scales: list(scales) == sorted(set(scales))),
]


@dataclasses.dataclass(frozen=True)
@checked
class Severity:
    """Top-1 along trajectories: the same record at every scale of a slider.

    Yields ``top1_<slider>_<scale>``; ``drop_<slider>``, the accuracy at the smallest scale less
    the mean of the others; ``failure_<slider>``, the mean scale of the first wrong answer,
    where a trajectory that never fails counts as the scale after the last; and
    ``failures_<slider>_<scale>`` and ``failures_<slider>_never``, how many trajectories fail first
    there: they add up to ``examples``. Then the means over sliders ``top1``, ``drop`` and
    ``failure``, ``examples`` (labelled records), and, only where there are any, ``unlabelled`` and
    ``nonfinite`` (NaN or infinity among the logits of a picture; NaN is wrong). The figures
    ``top1_by_scale`` and ``failures_by_scale`` show a line for every slider.

    Scale 0 is the data itself; names have scales as ``0.5`` and ``1``. Duenkel et al., CNS-Bench:
    Benchmarking Image Classifier Robustness Under Continuous Nuisance Shifts, 2025.

    Attributes:
      data: what the sliders change; batches need labels.
      sliders: names from ``vision.data.ops.sliders``.
      scales: rising, 0 or more.
      logits: name of the logits (B, K) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
    """

    data: EvalData
    sliders: Unique[NonEmpty[tuple[Annotated[str, one_of(SLIDERS)], ...]]] = tuple(SLIDERS)
    scales: Scales = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
    logits: str = "logits"
    label: str = "label"

    trained_classes: ClassVar[TrainedClasses] = {"data": ("label",)}

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once, and once for every slider and scale above 0.

        Raises:
          DataError: no labelled records.
          MetricError: labels that are no class.
          ValueError: ``predict`` or the batches lack what is needed, or no place for the op.
        """
        place, scales = last_uint8(self.data), np.asarray(self.scales)
        base = answers(predict, ctx, self.data, self.logits, self.label)
        nonfinite = base.nonfinite
        top1: dict[str, np.ndarray] = {}
        failures: dict[str, Failures] = {}
        for name in self.sliders:
            correct = []
            for scale in self.scales:
                predictions = base
                if scale:
                    moved = with_op(self.data, Slider(name, scale), place)
                    predictions = answers(predict, ctx, moved, self.logits, self.label)
                    nonfinite += predictions.nonfinite
                if not np.array_equal(predictions.index, base.index):
                    raise DataError(
                        f"{self.data.source.info.name}: other records can be read under {name} at "
                        f"{scale:g} than without it, so there are no trajectories"
                    )
                correct.append(predictions.right)
                yield f"top1_{name}_{scale:g}", predictions.accuracy
            top1[name] = np.mean(correct, 1)
            failures[name] = failure_points(
                np.stack(correct, 1), scales, float(2 * scales[-1] - scales[-2])
            )
            yield f"drop_{name}", _drop(top1[name])
            yield f"failure_{name}", failures[name].mean
            for scale, count in zip(self.scales, failures[name].count, strict=False):
                yield f"failures_{name}_{scale:g}", int(count)
            yield f"failures_{name}_never", int(failures[name].count[-1])
        yield "top1", float(np.mean([*top1.values()]))
        yield "drop", float(np.mean([_drop(curve) for curve in top1.values()]))
        yield "failure", float(np.mean([curve.mean for curve in failures.values()]))
        yield "examples", len(base.right)
        if unlabelled := int((~base.labelled).sum()):
            yield "unlabelled", unlabelled
        if nonfinite:
            yield "nonfinite", nonfinite
        lines = tuple(Line(name, scales, curve) for name, curve in top1.items())
        yield "top1_by_scale", Curve(lines, "scale", "top-1")
        lines = tuple(
            Line(name, scales, curve.count[:-1].astype(np.float64))
            for name, curve in failures.items()
        )
        yield "failures_by_scale", Curve(lines, "scale", "first wrong answers")


def _drop(top1: np.ndarray) -> float:
    return float(top1[0] - top1[1:].mean())
