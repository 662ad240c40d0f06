"""Labels of several graders who are not sure: one distribution per example, and what meets it.

Ward et al., Creating an Empirical Dermatology Dataset Through Crowdsourcing With Web Search
Advertisements (SCIN), 2024, whose labels are made so.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from vision.metrics.arrays import MetricError, matrix, mean, softmax_parts

_SLACK = 1e-4  # of weights that were kept as float32 or printed to four digits


def grader_weights(graders: Sequence[Mapping[str, float]], names: Sequence[str]) -> np.ndarray:
    """The distribution over ``names``, float64 (K,), that several graders' answers give.

    A grader's conditions are ranked by confidence, and one of rank r weighs 1 / r; those of equal
    confidence share a rank. Weights add up over graders and are divided by their sum. All zeros
    where nobody names any of ``names``.

    Args:
      graders: per grader the conditions named, with a confidence: larger is surer.
      names: the classes; other conditions count for the ranks and nothing else.

    Raises:
      MeasureError: a confidence that is no number.
    """
    place = {name: i for i, name in enumerate(names)}
    weights = np.zeros(len(names))
    for number, said in enumerate(graders):
        if not all(math.isfinite(value) for value in said.values()):
            raise MetricError(f"grader {number} has a confidence that is not finite")
        order = sorted(set(said.values()), reverse=True)
        for name, value in said.items():
            if name in place:
                weights[place[name]] += 1 / (1 + order.index(value))
    total = weights.sum()
    return weights / total if total else weights


@dataclasses.dataclass(frozen=True)
class Graded:
    """How answers meet the labels of several graders.

    Attributes:
      any_of: k to the share of examples whose best k classes hold one that some grader named.
      overlap: mean of ``sum_c min(p_c, y_c)``, 0..1.
      cross_entropy: mean of ``-sum_c y_c log p_c``, nats.
      examples: those with a label.
      ungraded: those without, left out.
    """

    any_of: Mapping[int, float]
    overlap: float
    cross_entropy: float
    examples: int
    ungraded: int


def graded(logits: np.ndarray, weights: np.ndarray, k: Sequence[int] = (1, 3)) -> Graded:
    """Of logits and label weights, both (N, K).

    A row of weights is a distribution, or all zeros where nobody graded. A row with NaN among its
    logits is wrong at every k, and makes ``overlap`` and ``cross_entropy`` NaN.

    Raises:
      MeasureError: weights below 0, or rows that add up to neither 1 nor 0.
      ValueError: shapes, or a k outside 1..K.
    """
    logits, weights = matrix("logits", logits), matrix("weights", weights)
    if logits.shape != weights.shape:
        raise ValueError(f"weights have shape {weights.shape}, logits {logits.shape}")
    if not k or min(k) < 1 or max(k) > logits.shape[1]:
        raise ValueError(f"k={tuple(k)}: each from 1 to the {logits.shape[1]} classes")
    sums = weights.sum(1)
    bad = ~((weights >= 0).all(1) & ((np.abs(sums - 1) < _SLACK) | (sums == 0)))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise MetricError(
            f"weights: {int(bad.sum())} row(s) are no distributions and not all zero, first row "
            f"{row}, which adds up to {sums[row]:g}"
        )
    there = sums > 0
    logits, weights = logits[there].astype(np.float64), weights[there].astype(np.float64)
    nan = np.asarray(np.isnan(logits).any(1))
    order = np.argsort(-logits, axis=1, kind="stable")
    named = np.take_along_axis(weights > 0, order, 1) & ~nan[:, None]
    top, rest = softmax_parts(logits)
    log = logits - top[:, None] - rest[:, None]
    with np.errstate(invalid="ignore"):
        losses = -np.where(weights > 0, weights * log, 0.0).sum(1)
    losses[nan] = np.nan
    return Graded(
        any_of={each: mean(np.asarray(named[:, :each].any(1))) for each in k},
        overlap=mean(np.asarray(np.minimum(np.exp(log), weights).sum(1))),
        cross_entropy=mean(losses),
        examples=int(there.sum()),
        ungraded=int((~there).sum()),
    )
