"""Labels of several annotators with confidences, as one distribution per example; their metrics.

Ward et al., Creating an Empirical Dermatology Dataset Through Crowdsourcing With Web Search
Advertisements (SCIN), 2024, which combines its labels in this way.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from vision.metrics.arrays import MetricError, matrix, mean, softmax_parts, undefined_rows

_SLACK = 1e-4  # tolerance of sums of weights stored as float32 or printed to four digits


def annotator_weights(
    annotators: Sequence[Mapping[str, float]], names: Sequence[str]
) -> np.ndarray:
    """The distribution over ``names``, float64 (K,), from the answers of several annotators.

    An annotator's conditions are ranked by confidence, and rank r has weight 1 / r; conditions of
    equal confidence share a rank. Weights are summed over annotators and normalised to sum to 1.
    All zeros if no annotator names any of ``names``.

    Args:
      annotators: per annotator, condition -> confidence; larger is more confident.
      names: the classes; other conditions only take up ranks.

    Raises:
      MetricError: a confidence that is not finite.
    """
    column_of = {name: i for i, name in enumerate(names)}
    weights = np.zeros(len(names))
    for number, confidences in enumerate(annotators):
        if not all(math.isfinite(value) for value in confidences.values()):
            raise MetricError(f"annotator {number} has a confidence that is not finite")
        order = sorted(set(confidences.values()), reverse=True)
        for name, value in confidences.items():
            if name in column_of:
                weights[column_of[name]] += 1 / (1 + order.index(value))
    total = weights.sum()
    return weights / total if total else weights


@dataclasses.dataclass(frozen=True)
class AnnotatorScores:
    """Agreement of predictions with the labels of several annotators.

    Attributes:
      any_of: k -> share of examples with a class named by any annotator among the top k.
      overlap: mean of ``sum_c min(p_c, y_c)``, 0..1.
      cross_entropy: mean of ``-sum_c y_c log p_c``, nats.
      examples: number of examples with a label.
      unlabelled: number of examples without one, which are left out.
    """

    any_of: Mapping[int, float]
    overlap: float
    cross_entropy: float
    examples: int
    unlabelled: int


def annotator_scores(
    logits: np.ndarray, weights: np.ndarray, k: Sequence[int] = (1, 3)
) -> AnnotatorScores:
    """Agreement of logits with label weights, both (N, K).

    A row of weights is a distribution, or all zeros if the example has no labels.
    ``undefined_rows`` of logits are wrong at every k, and make ``overlap`` and ``cross_entropy``
    NaN.

    Raises:
      MetricError: weights below 0, or rows that add up to neither 1 nor 0.
      ValueError: shapes, or a k outside 1..K.
    """
    logits, weights = matrix("logits", logits), matrix("weights", weights)
    if logits.shape != weights.shape:
        raise ValueError(f"weights have shape {weights.shape}, logits {logits.shape}")
    if not k or min(k) < 1 or max(k) > logits.shape[1]:
        raise ValueError(f"k={tuple(k)}: each from 1 to the {logits.shape[1]} classes")
    sums = weights.sum(1)
    invalid = ~((weights >= 0).all(1) & ((np.abs(sums - 1) < _SLACK) | (sums == 0)))
    if invalid.any():
        row = int(np.flatnonzero(invalid)[0])
        raise MetricError(
            f"weights: {int(invalid.sum())} row(s) are neither distributions nor zero, first "
            f"row {row}, which adds up to {sums[row]:g}"
        )
    labelled = sums > 0
    logits, weights = logits[labelled].astype(np.float64), weights[labelled].astype(np.float64)
    undefined = undefined_rows(logits)
    order = np.argsort(-logits, axis=1, kind="stable")
    hit = np.take_along_axis(weights > 0, order, 1) & ~undefined[:, None]
    top, normaliser = softmax_parts(logits)
    with np.errstate(invalid="ignore"):
        log_probabilities = logits - top[:, None] - normaliser[:, None]
        losses = -np.where(weights > 0, weights * log_probabilities, 0.0).sum(1)
    losses[undefined] = np.nan
    return AnnotatorScores(
        any_of={top_k: mean(np.asarray(hit[:, :top_k].any(1))) for top_k in k},
        overlap=mean(np.asarray(np.minimum(np.exp(log_probabilities), weights).sum(1))),
        cross_entropy=mean(losses),
        examples=int(labelled.sum()),
        unlabelled=int((~labelled).sum()),
    )
