"""Multi-label classification: average precision, F1 and ranking metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.image_text.embeddings import embed
from vision.evaluators.several_labels import known, label_sets
from vision.metrics import multilabel as metrics
from vision.metrics.arrays import matrix


@dataclasses.dataclass(frozen=True)
class MultiLabelClassification:
    """mAP, F1 and rankings over classes, where labels may be known in part.

    Yields ``map`` and ``map_micro``, ``f1`` and ``f1_micro``, ``coverage``, ``ranking_loss`` and
    ``lrap`` (see ``vision.metrics.multilabel``), ``real`` (the share of images whose most likely
    class is one of theirs: ReaL), ``examples``, ``classes`` (that have a positive; the macro
    averages are over these), and, only where there are any, ``classes_without_positives``,
    ``examples_without_labels`` (no positive: left out of ``real``) and ``unknown`` (cells -1, left
    out of everything).

    Attributes:
      data: batches need the labels.
      labels: name of a (B, K) entry of the batches: 1, 0, or -1 where it is not known; or 1 and 0
        with ``<labels>_known`` bool (B, K) beside it. As ``MultiLabel`` and ``PartialLabels`` give
        them.
      scores: name of the scores (B, K) that ``predict`` gives; a label is predicted at or above
        ``threshold``.
      threshold: of F1; 0 suits logits of independent classes.
    """

    data: EvaluationData
    labels: str = "labels"
    scores: str = "logits"
    threshold: float = 0.0

    trained_classes: ClassVar[TrainedClasses] = {"data": ("labels",)}

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: labels other than 1, 0 and -1, or of other classes than the scores.
          MetricError: NaN scores of known labels.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        rows = embed(predict, ctx, self.data, (self.scores,), (self.labels,), (known(self.labels),))
        scores = matrix(self.scores, rows[self.scores])
        name = self.data.source.info.name
        targets = label_sets(rows, self.labels, scores.shape[1], name, in_part=True)
        macro = metrics.mean_average_precision(scores, targets, "macro")
        yield "map", macro.value
        yield "map_micro", metrics.mean_average_precision(scores, targets, "micro").value
        yield "f1", metrics.f1(scores, targets, "macro", self.threshold).value
        yield "f1_micro", metrics.f1(scores, targets, "micro", self.threshold).value
        ranking = metrics.label_ranking(scores, targets)
        yield "coverage", ranking.coverage
        yield "ranking_loss", ranking.ranking_loss
        yield "lrap", ranking.average_precision
        real = metrics.real_accuracy(scores, targets == 1)
        yield "real", real.value
        yield "examples", len(targets)
        yield "classes", macro.count
        unknown = int(np.sum(targets < 0))
        for name, count in (
            ("classes_without_positives", macro.left_out),
            ("examples_without_labels", real.left_out),
            ("unknown", unknown),
        ):
            if count:
                yield name, count
