"""Ordinal classification and regression: distances of predictions from the targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np

from vision.config.ranges import checked
from vision.data.source import DataError
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.image_text.embeddings import embed
from vision.metrics import ordinal as metrics
from vision.metrics.arrays import predictions
from vision.metrics.quality import fit_logistic, pearson


@dataclasses.dataclass(frozen=True)
class Ordinal:
    """Classes 0..K-1 in order, such as grades of damage.

    Yields ``top1``, ``mae`` (in classes), ``within_1`` (share at most one class away), ``kappa``
    (quadratic), ``srcc`` and ``krcc`` (of the most likely class and the label), ``examples``, and,
    only where there are any, ``unlabelled`` and ``nan_examples`` (scores without a finite maximum:
    wrong in ``top1``, left out of the others). See ``vision.metrics.ordinal``.

    Attributes:
      data: what is measured.
      logits: name of the logits (B, K) that ``predict`` gives, in the order of the classes.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
    """

    data: EvaluationData
    logits: str = "logits"
    label: str = "label"

    trained_classes: ClassVar[TrainedClasses] = {"data": ("label",)}

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: no labels.
          MetricError: labels that are no class.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        rows = embed(predict, ctx, self.data, (self.logits,), (self.label,))
        labels, best = rows[self.label], predictions(rows[self.logits])
        accuracy = metrics.ordinal_accuracy(best, labels, rows[self.logits].shape[1])
        labelled = labels >= 0
        if not labelled.any():
            raise DataError(f"{self.data.source.info.name}: no record has a {self.label!r}")
        yield "top1", float((best == labels)[labelled].mean())
        yield "mae", accuracy.mean_absolute_error
        yield "within_1", accuracy.off_by_one
        yield "kappa", accuracy.kappa
        yield "srcc", accuracy.spearman
        yield "krcc", accuracy.kendall
        yield "examples", int(labelled.sum())
        if unlabelled := int((~labelled).sum()):
            yield "unlabelled", unlabelled
        if undefined := int((labelled & (best < 0)).sum()):
            yield "nan_examples", undefined


@dataclasses.dataclass(frozen=True)
@checked
class Regression:
    """A number per image, such as a mean opinion score.

    Yields ``mae``, ``rmse`` (in the targets' unit), ``r2``, ``plcc`` (Pearson), ``srcc``
    (Spearman), ``krcc`` (Kendall's tau-b), ``examples``, and, only where there are any,
    ``unlabelled`` (a target that is not known) and ``nonfinite`` (no finite prediction for a
    target: left out of everything). With ``mapping="logistic"`` also ``mapped_rmse`` and
    ``mapped_plcc``, after the least-squares logistic of four parameters, fitted on these very
    examples as is the custom in image quality. Then the figure ``errors``: the share of examples
    within an error.

    Attributes:
      data: what is measured.
      prediction: name of a real (B,) or (B, 1) entry that ``predict`` gives.
      target: name of a real (B,) entry of the batches; what is NaN is not known, nor what
        ``<target>_known`` bool (B,), where the batches have it, says (``Number(optional=True)``).
      mapping: ``logistic`` for the two mapped numbers too; ``none`` without.
    """

    data: EvaluationData
    prediction: str = "logits"
    target: str = "target"
    mapping: Literal["none", "logistic"] = "none"

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: no target with a finite prediction, or an infinite target.
          MetricError: a logistic map of too few examples or of one prediction for all.
          ValueError: ``predict`` or the batches lack what is needed, or give other shapes.
        """
        known_name = f"{self.target}_known"
        rows = embed(predict, ctx, self.data, (self.prediction,), (self.target,), (known_name,))
        name, y = self.data.source.info.name, rows[self.target]
        p = rows[self.prediction]
        if p.ndim == 2 and p.shape[1] == 1:
            p = p[:, 0]
        if p.ndim != 1 or y.ndim != 1 or y.dtype.kind != "f":
            raise ValueError(
                "Regression needs one number per image, real (integers are classes): "
                f"{self.prediction} is {list(p.shape)} and {self.target} {y.dtype}{list(y.shape)} "
                f"for {name}"
            )
        p, y = p.astype(np.float64), y.astype(np.float64)
        if known_name in rows:
            y = np.where(rows[known_name], y, np.nan)
        if infinite := int(np.isinf(y).sum()):
            raise DataError(f"{name}: {infinite} of {len(y)} are infinite in {self.target!r}")
        known, finite = ~np.isnan(y), np.isfinite(p)
        if not (known & finite).any():
            raise DataError(
                f"{name}: no record with a {self.target!r} and a finite {self.prediction}; "
                f"{known.sum()} of {len(y)} have a target"
            )
        p, y = p[known & finite], y[known & finite]
        errors = metrics.regression(p, y)
        yield "mae", errors.mean_absolute_error
        yield "rmse", errors.root_mean_square_error
        yield "r2", errors.r2
        yield "plcc", pearson(p, y)
        yield "srcc", metrics.spearman(p, y)
        yield "krcc", metrics.kendall(p, y)
        if self.mapping == "logistic":
            mapped = fit_logistic(p, y)(p)
            yield "mapped_rmse", metrics.regression(mapped, y).root_mean_square_error
            yield "mapped_plcc", pearson(mapped, y)
        yield "examples", len(y)
        if unlabelled := int((~known).sum()):
            yield "unlabelled", unlabelled
        if nonfinite := int((known & ~finite).sum()):
            yield "nonfinite", nonfinite
        shares = np.linspace(0, 1, 101)
        line = Line("examples", np.quantile(np.abs(p - y), shares), shares)
        yield "errors", Curve((line,), "absolute error", "share of examples within")
