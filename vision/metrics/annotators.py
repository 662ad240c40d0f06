"""Agreement with several annotators, whose labels are one distribution per example.

Ward et al., Creating an Empirical Dermatology Dataset Through Crowdsourcing With Web Search
Advertisements (SCIN), 2024, ranks every annotator's conditions by confidence, gives rank r the
weight 1 / r, adds the weights up over annotators and normalises them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from vision.metrics.arrays import MetricError, matrix, mean, softmax_parts, undefined_rows

_SLACK = 1e-4  # tolerance of sums of weights stored as float32 or printed to four digits


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
