"""Features with labels, for probes that are fitted on some records and measured on others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from vision.data.source import DataError
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluators.image_text.embeddings import Rows, embed, finite
from vision.metrics.arrays import MetricError, class_indices


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
    """Features (N, D) with labels (N,) int64, and how many records were left out.

    Attributes:
      x: (N, D) features.
      labels: (N,) int64.
      unlabelled: records that were left out for want of a label.
      nonfinite: records that were left out because a feature is not finite.
    """

    x: np.ndarray
    labels: np.ndarray
    unlabelled: int
    nonfinite: int


def labelled(
    predict: Predict, ctx: EvalContext, data: EvaluationData, output: str, label: str
) -> Labelled:
    """Reads ``data`` once: the records with a label, -1 being none, and finite features.

    Raises:
      DataError: no such records, or labels that are no class of the source.
      ValueError: ``predict`` or the batches lack what is needed, or give other shapes.
    """
    rows: Rows = embed(predict, ctx, data, (output,), (label,))
    name = data.source.info.name
    x, labels = rows[output], rows[label]
    if x.ndim != 2 or labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"a probe needs features (N, D) and int labels (N,); {output} is {list(x.shape)} and "
            f"{label} {labels.dtype}{list(labels.shape)} for {name}"
        )
    try:
        labels = class_indices(label, labels, len(x), len(data.source.info.class_names) or None)
    except MetricError as error:
        raise DataError(f"{name}: {error}") from error
    has_label, is_finite = labels >= 0, finite(x)
    if not (has_label & is_finite).any():
        raise DataError(f"{name}: no record with a label and finite {output}")
    return Labelled(
        x[has_label & is_finite],
        labels[has_label & is_finite],
        int((~has_label).sum()),
        int((has_label & ~is_finite).sum()),
    )


def number_of_classes(data: EvaluationData, train: Labelled, test: Labelled) -> int:
    """Of the source of ``train``, or one more than the greatest label."""
    return max(len(data.source.info.class_names), *(int(x.labels.max()) + 1 for x in (train, test)))


def split(train: Labelled) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit with and rows to choose by, both bool (N,): every tenth record is held out.

    Raises:
      DataError: fewer than ten records, of which none would be held out.
    """
    held_out = np.arange(len(train.x)) % 10 == 9
    if not held_out.any():
        raise DataError(
            f"{len(train.x)} training records with a label: a tenth of them is held out to choose "
            "by, and there must be ten at least"
        )
    return ~held_out, held_out


def counts(examples: int, train: Labelled, test: Labelled) -> Iterator[tuple[str, float]]:
    """``examples``, and, only where there are any, ``unlabelled``, ``nonfinite``, and
    ``absent_classes``: classes of ``test`` that ``train`` lacks, whose records can only be wrong.
    """
    yield "examples", examples
    for name in ("unlabelled", "nonfinite"):
        if count := getattr(train, name) + getattr(test, name):
            yield name, count
    if absent := len(np.setdiff1d(test.labels, train.labels)):
        yield "absent_classes", absent
