"""Robustness to natural distribution shifts, and effective robustness."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from vision.config.ranges import MinLen, NonEmpty, Unique, checked
from vision.data import files
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.robustness.perturbed import Predictions, answers
from vision.metrics.groups import wilson_interval
from vision.metrics.robustness import RobustnessLine, fit_robustness_line

Columns = Mapping[str, Sequence[float]]


Classes = Unique[Annotated[tuple[int, ...], MinLen(2)]]


@dataclasses.dataclass(frozen=True)
@checked
class NaturalShift:
    """Top-1 on a standard test set and on naturally shifted ones.

    A shift is a data set: another collection of the same classes, scenes with swapped backgrounds,
    one hospital. Yields ``standard``; for every shift ``<shift>`` with ``_low`` and ``_high`` (95 %
    Wilson interval), ``_gap`` (standard less shifted), ``_examples`` and, where its classes are
    some of the model's, ``_standard``: top-1 of the standard records of these classes, with the
    logits of these only; with a line for it ``_expected`` (of reference models with this standard
    accuracy), ``_effective_robustness`` (accuracy above that), ``_slope``, ``_intercept`` and, of
    lines that are fitted here, ``_r2`` and ``_models``. Expected is NaN of a standard accuracy of
    0 or 1, which has no logit. Then ``mean`` over shifts, ``worst``, ``mean_effective_robustness``
    over shifts with a line, ``examples`` of the standard data, and, only where there are any,
    ``unlabelled`` and ``nonfinite`` (NaN or infinity among the logits, in any of the data; NaN is
    wrong). The figure ``shifts`` shows shifted against standard: lines, and the model's distance
    from each.

    Taori et al., Measuring Robustness to Natural Distribution Shifts in Image Classification, 2020.

    Attributes:
      standard: the standard test set.
      shifted: name to data.
      references: accuracies (0..1) of reference models, those trained on the standard data alone:
        column ``standard`` and a column for each shift that has a line, one entry per model. Or a
        file of such columns: a ``.csv`` with a header, or a ``.json`` list of objects; other
        columns are ignored, and a model that lacks an accuracy is left out of that line. A shift
        with ``classes`` is compared with its own column ``<shift>_standard`` where there is one.
      lines: shift to (slope, intercept) of a line between logits that was fitted elsewhere.
      classes: shift to the model's classes that it has, in the order of its labels, as in
        ImageNet-R and ImageNet-A. Other shifts have labels as the standard data has.
      logits: name of the logits (B, K) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
    """

    standard: EvalData
    shifted: NonEmpty[Mapping[str, EvalData]]
    references: str | Mapping[str, tuple[float, ...]] | None = None
    lines: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    classes: Mapping[str, Classes] = dataclasses.field(default_factory=dict)
    logits: str = "logits"
    label: str = "label"

    @property
    def trained_classes(self) -> TrainedClasses:
        """All data whose labels are numbers of the run's classes: not the shifts of ``classes``."""
        shifts = [f"shifted.{name}" for name in self.shifted if name not in self.classes]
        return dict.fromkeys(("standard", *shifts), ("label",))

    def __post_init__(self) -> None:
        if "standard" in self.shifted:
            raise ValueError("shifted: no name is 'standard'")
        for field in ("lines", "classes"):
            if unknown := set(getattr(self, field)) - set(self.shifted):
                raise ValueError(
                    f"{field}: {min(unknown)!r} is not among shifted: {', '.join(self.shifted)}"
                )

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``standard`` and every shift once.

        Raises:
          DataError: no labelled records, or references that cannot be read.
          MetricError: labels that are no class, or accuracies that have no line.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        lines = self._lines()
        standard = self._answers(predict, ctx, self.standard, ())
        yield "standard", standard.accuracy
        unlabelled, nonfinite = int((~standard.labelled).sum()), standard.nonfinite
        accuracies, points, effective = [], {}, []
        for name, data in self.shifted.items():
            classes = self.classes.get(name, ())
            shifted = self._answers(predict, ctx, data, classes)
            unlabelled += int((~shifted.labelled).sum())
            nonfinite += shifted.nonfinite
            accuracies.append(shifted.accuracy)
            standard_accuracy = standard.accuracy
            yield name, shifted.accuracy
            low, high = wilson_interval(shifted.right.sum(), np.asarray(len(shifted.right)))
            yield f"{name}_low", float(low)
            yield f"{name}_high", float(high)
            if classes:
                standard_accuracy = self._of_classes(predict, ctx, classes)
                yield f"{name}_standard", standard_accuracy
            yield f"{name}_gap", standard_accuracy - shifted.accuracy
            yield f"{name}_examples", len(shifted.right)
            points[name] = standard_accuracy, shifted.accuracy
            if name in lines:
                effective.append(
                    _effective_robustness(lines[name], standard_accuracy, shifted.accuracy)
                )
                yield f"{name}_expected", shifted.accuracy - effective[-1]
                yield f"{name}_effective_robustness", effective[-1]
                yield from _line_numbers(name, lines[name])
        yield "mean", float(np.mean(accuracies))
        yield "worst", min(accuracies)
        if effective:
            yield "mean_effective_robustness", float(np.mean(effective))
        yield "examples", len(standard.right)
        if unlabelled:
            yield "unlabelled", unlabelled
        if nonfinite:
            yield "nonfinite", nonfinite
        if lines:
            yield "shifts", _figure(lines, points)

    def _answers(
        self, predict: Predict, ctx: EvalContext, data: EvalData, classes: tuple[int, ...]
    ) -> Predictions:
        return answers(predict, ctx, data, self.logits, self.label, classes)

    def _of_classes(self, predict: Predict, ctx: EvalContext, classes: tuple[int, ...]) -> float:
        """Top-1 of the standard records of ``classes``, with the logits of these only."""
        return answers(
            predict, ctx, self.standard, self.logits, self.label, classes, select=True
        ).accuracy

    def _lines(self) -> dict[str, RobustnessLine]:
        """The line of every shift that has one."""
        lines = {
            name: RobustnessLine(slope, intercept, math.nan, 0)
            for name, (slope, intercept) in self.lines.items()
        }
        if self.references is None:
            return lines
        columns: Any = self.references
        origin = "references"
        if isinstance(columns, str):
            columns, origin = read_references(columns), columns
        if "standard" not in columns:
            raise DataError(f"{origin}: no column 'standard' among {', '.join(columns) or 'none'}")
        for name in self.shifted:
            if name not in columns or name in lines:
                continue
            own_standard = f"{name}_standard"
            x = np.asarray(
                columns[own_standard if own_standard in columns else "standard"], np.float64
            )
            y = np.asarray(columns[name], np.float64)
            if len(x) != len(y):
                raise DataError(f"{origin}: {len(x)} models in 'standard' and {len(y)} in {name!r}")
            known = ~(np.isnan(x) | np.isnan(y))
            lines[name] = fit_robustness_line(x[known], y[known])
        return lines


def read_references(path: str) -> dict[str, list[float]]:
    """Columns of numbers of a ``.csv`` or ``.json`` file, a row per model; NaN where one is empty.

    Columns that hold anything else than numbers, such as the models' names, are left out.

    Raises:
      DataError: the file cannot be read, or is no table.
    """
    try:
        text = files.read_bytes(path).decode("utf-8")
        if path.endswith(".csv"):
            rows = list(csv.DictReader(text.splitlines()))
        elif path.endswith(".json"):
            rows = json.loads(text)
        else:
            raise DataError(f"{path}: references are a .csv with a header or a .json list")
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not rows:
        raise DataError(f"{path}: expected a row per model, each with the names of its columns")
    names = dict.fromkeys(name for row in rows for name in row if isinstance(name, str))
    columns = {}
    for name in names:
        try:
            columns[name] = [
                math.nan if row.get(name) in (None, "") else float(row[name]) for row in rows
            ]
        except (TypeError, ValueError):
            continue
    return columns


def _effective_robustness(line: RobustnessLine, standard: float, shifted: float) -> float:
    if not 0 < standard < 1:
        return math.nan
    return float(line.effective(np.asarray([standard]), np.asarray([shifted]))[0])


def _line_numbers(name: str, line: RobustnessLine) -> Iterator[tuple[str, float]]:
    yield f"{name}_slope", line.slope
    yield f"{name}_intercept", line.intercept
    if line.models:
        yield f"{name}_r2", line.r2
        yield f"{name}_models", line.models


def _figure(
    lines: Mapping[str, RobustnessLine], points: Mapping[str, tuple[float, float]]
) -> Curve:
    x = np.linspace(0.01, 0.99, 99)
    drawn = []
    for name, line in lines.items():
        standard, shifted = points[name]
        drawn.append(Line(f"{name}: expected", x, line.expected(x)))
        effective = _effective_robustness(line, standard, shifted)
        drawn.append(Line(name, np.full(2, standard), np.asarray([shifted - effective, shifted])))
    return Curve(tuple(drawn), "top-1, standard", "top-1, shifted")
