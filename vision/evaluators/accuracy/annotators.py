"""A classifier compared with several annotators who disagree."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

from vision.config.ranges import NonEmpty, Positive, checked
from vision.data.source import DataError
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.image_text.embeddings import embed, finite
from vision.evaluators.several_labels import known
from vision.metrics.annotators import annotator_scores
from vision.metrics.arrays import MetricError


@dataclasses.dataclass(frozen=True)
@checked
class AnnotatorAgreement:
    """Accuracy and likelihood against a distribution of labels from several annotators.

    Yields ``top<k>_any`` for every k (some annotator named one of the k best classes),
    ``overlap`` (of probabilities and label weights), ``soft_nll`` (nats), ``examples``, and, only
    where there are any, ``ungraded`` (no label: left out) and ``nonfinite`` (NaN or infinity among
    the logits). See ``vision.metrics.annotators``, which also makes the weights from the
    annotators' answers. Accuracy by group is
    ``vision.evaluators.accuracy.groups.GroupedAccuracy``.

    Attributes:
      data: batches need the weights.
      k: numbers of best classes among which an annotator's answer may be.
      weights: name of a float (B, K) entry of the batches: a distribution, or all zeros. As the
        column ``SoftLabel`` gives it.
      logits: name of the logits (B, K) that ``predict`` gives.
    """

    data: EvaluationData
    k: NonEmpty[tuple[Positive[int], ...]] = (1, 3)
    weights: str = "weights"
    logits: str = "logits"

    trained_classes: ClassVar[TrainedClasses] = {"data": ("weights",)}

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: no example with a label, or weights that are no distributions.
          ValueError: ``predict`` or the batches lack what is needed, or other shapes.
        """
        in_part = (known(self.weights),)
        rows = embed(predict, ctx, self.data, (self.logits,), (self.weights,), in_part)
        if in_part[0] in rows:
            raise DataError(
                f"{self.data.source.info.name}: {self.weights!r} is known in part, by "
                f"{in_part[0]!r}, and no distribution; MultiLabelClassification takes such labels"
            )
        scores, weights, name = rows[self.logits], rows[self.weights], self.data.source.info.name
        if weights.shape != scores.shape or weights.dtype.kind != "f":
            raise DataError(
                f"{name}: {self.weights!r} is {weights.dtype}{list(weights.shape)}; each "
                f"record needs a distribution over the {scores.shape[1]} classes of "
                f"{self.logits!r}, as the column SoftLabel gives it"
            )
        try:
            agreement = annotator_scores(scores, weights, self.k)
        except MetricError as error:
            raise DataError(f"{name}: {self.weights!r}: {error}") from error
        if not agreement.examples:
            raise DataError(f"{self.data.source.info.name}: no example has {self.weights!r}")
        for k, share in agreement.any_of.items():
            yield f"top{k}_any", share
        yield "overlap", agreement.overlap
        yield "soft_nll", agreement.cross_entropy
        yield "examples", agreement.examples
        if agreement.unlabelled:
            yield "ungraded", agreement.unlabelled
        if nonfinite := int((~finite(rows[self.logits])).sum()):
            yield "nonfinite", nonfinite
