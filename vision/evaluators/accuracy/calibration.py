"""Calibration of a classifier's probabilities, before and after temperature scaling."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from vision.config.ranges import Positive, checked
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.image_text.embeddings import embed
from vision.metrics import calibration as metrics
from vision.metrics.temperature import fit_temperature


@dataclasses.dataclass(frozen=True)
@checked
class Calibration:
    """Calibration errors and proper scores of a classifier on ``data``.

    Yields ``nll`` (nats), ``brier`` (0..2), ``ece``, ``ece_equal_mass``, ``max_calibration_error``,
    ``static_calibration_error`` and ``adaptive_calibration_error`` (all 0..1), ``examples``, and,
    only where there are any, ``unlabelled``. With ``fit_on`` a temperature is fitted on those
    records, never on ``data``, and the same follow with the prefix ``scaled_``, and
    ``temperature``. Then the figures ``reliability`` and ``scaled_reliability``. NaN among the
    scores of a labelled record makes the numbers NaN. See ``vision.metrics.calibration``.

    Attributes:
      data: what is measured; batches need ``image`` and labels.
      fit_on: what the temperature is fitted on, such as the validation split; None for none.
      logits: name of the logits (B, K) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
      bins: of all errors and of the diagrams.
    """

    data: EvaluationData
    fit_on: EvaluationData | None = None
    logits: str = "logits"
    label: str = "label"
    bins: Positive[int] = 15

    trained_classes: ClassVar[TrainedClasses] = {"data": ("label",), "fit_on": ("label",)}

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once, and ``fit_on``.

        Raises:
          MetricError: labels that are no class, or a temperature that has nothing to be fitted on.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        logits, labels = self._read(predict, ctx, self.data)
        yield from self._numbers("", logits, labels)
        yield "examples", int((labels >= 0).sum())
        if unlabelled := int((labels < 0).sum()):
            yield "unlabelled", unlabelled
        scaled = None
        if self.fit_on is not None:
            temperature = fit_temperature(*self._read(predict, ctx, self.fit_on)).value
            scaled = (logits / np.float32(temperature)).astype(np.float32)
            yield "temperature", temperature
            yield from self._numbers("scaled_", scaled, labels)
        yield "reliability", metrics.reliability(logits, labels, self.bins)
        if scaled is not None:
            yield "scaled_reliability", metrics.reliability(scaled, labels, self.bins)

    def _read(
        self, predict: Predict, ctx: EvalContext, data: EvaluationData
    ) -> tuple[np.ndarray, np.ndarray]:
        rows = embed(predict, ctx, data, (self.logits,), (self.label,))
        return rows[self.logits], rows[self.label]

    def _numbers(
        self, prefix: str, logits: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[str, float]]:
        bins = self.bins
        yield f"{prefix}nll", metrics.negative_log_likelihood(logits, labels)
        yield f"{prefix}brier", metrics.brier_score(logits, labels)
        yield f"{prefix}ece", metrics.expected_calibration_error(logits, labels, bins)
        yield (
            f"{prefix}ece_equal_mass",
            metrics.expected_calibration_error(logits, labels, bins, "mass"),
        )
        for name, error_of in (
            ("max", metrics.maximum_calibration_error),
            ("static", metrics.static_calibration_error),
            ("adaptive", metrics.adaptive_calibration_error),
        ):
            yield f"{prefix}{name}_calibration_error", error_of(logits, labels, bins)
