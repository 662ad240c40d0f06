"""Single-label classifiers evaluated on images that have a set of correct labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np

from vision.config.ranges import Positive, checked
from vision.data.source import DataError
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.image_text.embeddings import embed
from vision.evaluators.several_labels import known, label_sets
from vision.metrics.arrays import MetricError, class_indices, matrix, mean, predictions
from vision.metrics.label_sets import BySize, by_size, mix_and_rate, variable_k
from vision.metrics.multilabel import real_accuracy


@dataclasses.dataclass(frozen=True)
@checked
class LabelSets:
    """Top-1, ReaL, accuracy at the number of labels, and its mean over numbers of labels.

    Yields ``top1`` (where the batches have ``label``), ``real``, ``variable_k``, ``asma``, then
    ``accuracy_<k>`` and ``share_<k>`` of the images with ``k`` labels, for every ``k`` that occurs,
    ``examples``, and, only where there are any, ``empty`` (no labels) and ``larger`` (more than
    ``largest``), both left out of everything but ``top1``, ``unlabelled`` (no ``label``: left out
    of ``top1``), and ``nan_examples`` (scores without a finite maximum: wrong). With ``against``
    the same follow of that data with the prefix ``against_``, then ``drop_top1``, ``drop_real``,
    ``drop_variable_k`` and ``drop_asma`` (of ``data`` less ``against``), and ``drop_mix`` and
    ``drop_rate``, which add up to ``drop_variable_k``: the parts due to another distribution of the
    number of labels, and to another accuracy at equal numbers of labels. Then the figure
    ``by_labels``. See ``vision.metrics.label_sets``.

    Attributes:
      data: what is measured; batches need the labels.
      against: a second set of the same classes, such as a new test set; None for none.
      labels: name of a (B, K) entry of the batches, 0 and 1: the set of every image, as the column
        ``MultiLabel`` gives it.
      label: name of the one label, int (B,), -1 where there is none.
      logits: name of the logits (B, K) that ``predict`` gives.
      weights: of ``asma``: ``uniform`` or by ``size`` of the groups.
      largest: the greatest number of labels that counts; None for all.
    """

    data: EvaluationData
    against: EvaluationData | None = None
    labels: str = "labels"
    label: str = "label"
    logits: str = "logits"
    weights: Literal["uniform", "size"] = "uniform"
    largest: Positive[int] | None = None

    trained_classes: ClassVar[TrainedClasses] = {
        "data": ("labels", "label"),
        "against": ("labels", "label"),
    }

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once, and ``against``.

        Raises:
          DataError: no image with labels, label sets of other values than 0 and 1 or of other
            classes than the logits, or a ``label`` that is no class.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        numbers, sizes = self._measure(predict, ctx, self.data)
        yield from numbers.items()
        lines = [_line(self.data, sizes)]
        if self.against is not None:
            against_numbers, against_sizes = self._measure(predict, ctx, self.against)
            yield from ((f"against_{name}", value) for name, value in against_numbers.items())
            for name in ("top1", "real", "variable_k", "asma"):
                if name in numbers and name in against_numbers:
                    yield f"drop_{name}", numbers[name] - against_numbers[name]
            split = mix_and_rate(sizes, against_sizes)
            yield "drop_mix", split.mix
            yield "drop_rate", split.rate
            lines.append(_line(self.against, against_sizes))
        yield "by_labels", Curve(tuple(lines), "labels of an image", "share of them found")

    def _measure(
        self, predict: Predict, ctx: EvalContext, data: EvaluationData
    ) -> tuple[dict[str, float], BySize]:
        optional = (self.label, known(self.labels))
        rows = embed(predict, ctx, data, (self.logits,), (self.labels,), optional)
        name, scores = data.source.info.name, matrix(self.logits, rows[self.logits])
        sets = label_sets(rows, self.labels, scores.shape[1], name).astype(bool)
        count, best = sets.sum(1), predictions(scores)
        largest = self.largest or scores.shape[1]
        counted = (count >= 1) & (count <= largest)
        if not counted.any():
            raise DataError(f"{name}: no image has 1 to {largest} labels in {self.labels!r}")
        share = variable_k(scores, sets)
        sizes = by_size(share[counted], count[counted], largest)
        numbers: dict[str, float] = {}
        unlabelled = 0
        if self.label in rows:
            try:
                labels = class_indices(self.label, rows[self.label], len(scores), scores.shape[1])
            except MetricError as error:
                raise DataError(f"{name}: {error}") from error
            numbers["top1"] = mean((best == labels)[labels >= 0])
            unlabelled = int((labels < 0).sum())
        numbers["real"] = real_accuracy(scores[counted], sets[counted]).value
        numbers["variable_k"] = sizes.overall
        numbers["asma"] = sizes.asma(self.weights)
        for k in np.flatnonzero(sizes.count) + 1:
            numbers[f"accuracy_{k}"] = float(sizes.accuracy[k - 1])
            numbers[f"share_{k}"] = float(sizes.share[k - 1])
        numbers["examples"] = int(counted.sum())
        for key, number in (
            ("empty", int((count == 0).sum())),
            ("larger", int((count > largest).sum())),
            ("unlabelled", unlabelled),
            ("nan_examples", int((best < 0).sum())),
        ):
            if number:
                numbers[key] = number
        return numbers, sizes


def _line(data: EvaluationData, sizes: BySize) -> Line:
    k = np.flatnonzero(sizes.count)
    return Line(data.source.info.name, k + 1.0, sizes.accuracy[k])
