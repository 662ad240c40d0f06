"""Metrics that add up exactly: over batches, devices and rows that only fill up a batch.

Every metric is a pytree of sums. ``from_model_output`` makes one from a batch and is traceable,
``merge`` adds two, ``compute`` turns the sums into numbers on the host in float64 (call it
outside ``jit``, on arrays this process can read).

Which examples count: those with ``mask`` True and a label that is not -1 (unlabelled). Labels
are int (B,), or (B, K) weights per class, of which the largest is the label (``hard_labels``).
Labels outside -1..K-1 are never right, and make the average log-likelihood NaN; count them with
``Count`` and refuse them.

Scores without a finite maximum (NaN, plus infinity, or minus infinity alone) predict no class: the
example is wrong for accuracies, NaN for averages (no example is left out silently), and left out of
confusion matrices. ``undefined_rows`` marks such examples. Minus infinity beside finite scores is a
class of probability zero.

Counts are int32: exact up to 2,147,483,647 examples, where float32 would stop counting at
16,777,216. Sums of real numbers are pairs of float32, the rounded sum and what rounding lost
(Knuth's two-sum), good for about 48 bits: the order of the additions, and so the number of
devices and the size of the batches, changes nothing that a float32 result shows.
"""

from __future__ import annotations

from typing import Any

import clu.metrics
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from vision.evaluate.figures import Reliability


def hard_labels(labels: jax.Array, num_classes: int) -> jax.Array:
    """Labels as int32 (B,).

    Args:
      labels: int (B,), returned as they are; or (B, K) of any dtype, weights per class: the
        first of the largest is the label, -1 (unlabelled) where a row has no weight at all and
        -2 (out of range) where a row holds NaN or infinity.
      num_classes: K.

    Raises:
      ValueError: another shape, or labels (B,) that are not integers.
    """
    if labels.ndim == 1 and jnp.issubdtype(labels.dtype, jnp.integer):
        return labels.astype(jnp.int32)
    if labels.ndim != 2 or labels.shape[1] != num_classes:
        raise ValueError(
            f"labels are {labels.dtype}{list(labels.shape)}; they must be integers (B,) or "
            f"weights (B, {num_classes}), one column per class of the logits"
        )
    weights = labels.astype(jnp.float32)
    total = weights.sum(-1)
    hard = jnp.where(total > 0, jnp.argmax(weights, -1), -1)
    return jnp.where(jnp.isfinite(total), hard, -2).astype(jnp.int32)


def counted(labels: jax.Array, mask: jax.Array | None) -> jax.Array:
    """(B,) bool: the examples that count. ``labels`` as from ``hard_labels``."""
    labelled = labels != -1
    return labelled if mask is None else labelled & mask.astype(bool)


def undefined_rows(*scores: jax.Array) -> jax.Array:
    """(B,) bool: rows that predict no class, of any of the (B, K) arrays.

    Their maximum is not finite: they hold NaN or plus infinity, or nothing but minus infinity.
    """
    return jnp.any(jnp.stack([~jnp.isfinite(x.max(-1)) for x in scores]), axis=0)


def true_class_rank(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """How many classes come before the true one, int32 (B,), 0 is best.

    A class comes before another with a strictly greater score, or with an equal score and a
    lower index: the position in a stable sort by falling score. K for ``undefined_rows`` and where
    the label is no class.

    Args:
      scores: (B, K) float.
      labels: int32 (B,).
    """
    num_classes = scores.shape[-1]
    fits = (labels >= 0) & (labels < num_classes)
    true_logits = jnp.take_along_axis(scores, jnp.where(fits, labels, 0)[:, None], axis=-1)
    earlier = jnp.arange(num_classes) < labels[:, None]
    before = (scores > true_logits) | ((scores == true_logits) & earlier)
    rank = before.sum(-1, dtype=jnp.int32)
    return jnp.where(fits & ~undefined_rows(scores), rank, num_classes)


Pair = tuple[jax.Array, jax.Array]


def _add(a: Pair, b: Pair) -> Pair:
    total = a[0] + b[0]
    of_b = total - a[0]
    lost = (a[0] - (total - of_b)) + (b[0] - of_b)
    # Of an infinite sum nothing is lost, but inf - inf would say NaN.
    return total, a[1] + b[1] + jnp.where(jnp.isfinite(total), lost, 0)


def _sum(x: jax.Array) -> Pair:
    """Sum over the first axis as a pair."""
    x = x.astype(jnp.float32)
    zero = jnp.zeros((), jnp.float32)
    return jax.lax.reduce((x, jnp.zeros_like(x)), (zero, zero), _add, (0,))


def _host(x: Any) -> np.ndarray:
    return np.asarray(jax.device_get(x))


def _value(pair: Pair) -> np.ndarray:
    return _host(pair[0]).astype(np.float64) + _host(pair[1]).astype(np.float64)


def _ratio(part: Any, whole: Any) -> np.ndarray:
    """``part / whole`` in float64, NaN where ``whole`` is zero."""
    nan = np.full(np.shape(whole), np.nan)
    return np.divide(part, whole, out=nan, where=np.asarray(whole) != 0)


@flax.struct.dataclass
class Count(clu.metrics.Metric):
    """How many examples are marked.

    Attributes:
      count: how many, a scalar.
    """

    count: jax.Array

    @classmethod
    def from_model_output(cls, marked: jax.Array, **_: Any) -> Count:
        return cls(marked.astype(bool).sum(dtype=jnp.int32))

    def merge(self, other: Count) -> Count:
        return Count(self.count + other.count)

    def compute(self) -> int:
        return int(_host(self.count))


@flax.struct.dataclass
class Mean(clu.metrics.Metric):
    """Average of one number per example. NaN without examples.

    Attributes:
      total: sum of the numbers, in two parts.
      count: of examples, a scalar.
    """

    total: Pair
    count: jax.Array

    @classmethod
    def from_model_output(cls, values: jax.Array, mask: jax.Array | None = None, **_: Any) -> Mean:
        """``values`` (B,) float, ``mask`` (B,) bool."""
        mask = jnp.ones(values.shape, bool) if mask is None else mask.astype(bool)
        return cls(_sum(jnp.where(mask, values, 0)), mask.sum(dtype=jnp.int32))

    def merge(self, other: Mean) -> Mean:
        return Mean(_add(self.total, other.total), self.count + other.count)

    def compute(self) -> float:
        return float(_ratio(_value(self.total), _host(self.count)))


@flax.struct.dataclass
class NegativeLogLikelihood(Mean):
    """Average of ``-log p(true class)`` in nats. Weights (B, K) count as their largest class."""

    @classmethod
    def from_model_output(
        cls,
        log_probabilities: jax.Array,
        labels: jax.Array,
        mask: jax.Array | None = None,
        **_: Any,
    ) -> NegativeLogLikelihood:
        """``log_probabilities`` (B, K), ``labels`` (B,) or (B, K), ``mask`` (B,)."""
        num_classes = log_probabilities.shape[-1]
        labels = hard_labels(labels, num_classes)
        fits = (labels >= 0) & (labels < num_classes)
        true_logits = jnp.take_along_axis(
            log_probabilities.astype(jnp.float32), jnp.where(fits, labels, 0)[:, None], axis=-1
        )[:, 0]
        bad = ~fits | undefined_rows(log_probabilities)
        mean = Mean.from_model_output(jnp.where(bad, jnp.nan, -true_logits), counted(labels, mask))
        return cls(mean.total, mean.count)

    def merge(self, other: Mean) -> NegativeLogLikelihood:
        mean = super().merge(other)
        return NegativeLogLikelihood(mean.total, mean.count)


@flax.struct.dataclass
class TopKAccuracy(clu.metrics.Metric):
    """Share of examples whose true class is among the ``k`` best scores.

    Equal scores rank by class index (``true_class_rank``). NaN without examples.

    Attributes:
      correct: number of examples whose class is among the best, a scalar.
      count: of examples, a scalar.
      k: how many classes are looked at.
    """

    correct: jax.Array
    count: jax.Array
    k: int = flax.struct.field(pytree_node=False, default=1)

    @classmethod
    def from_model_output(
        cls,
        logits: jax.Array,
        labels: jax.Array,
        mask: jax.Array | None = None,
        k: int = 1,
        **_: Any,
    ) -> TopKAccuracy:
        """``logits`` (B, K), ``labels`` (B,) or (B, K), ``mask`` (B,)."""
        num_classes = logits.shape[-1]
        labels = hard_labels(labels, num_classes)
        mask = counted(labels, mask)
        correct = true_class_rank(logits, labels) < min(k, num_classes)
        return cls((correct & mask).sum(dtype=jnp.int32), mask.sum(dtype=jnp.int32), k)

    def merge(self, other: TopKAccuracy) -> TopKAccuracy:
        if other.k != self.k:
            raise ValueError(f"top-{self.k} and top-{other.k} accuracy do not add up")
        return TopKAccuracy(self.correct + other.correct, self.count + other.count, self.k)

    def compute(self) -> float:
        return float(_ratio(_host(self.correct), _host(self.count)))


def bin_edges(bins: int) -> np.ndarray:
    """Float32 (bins + 1,): the edges of equal-width bins on 0..1."""
    return np.linspace(0, 1, bins + 1, dtype=np.float32)


@flax.struct.dataclass
class ExpectedCalibrationError(clu.metrics.Metric):
    """Average distance of accuracy from confidence over equal-width bins of confidence.

    ``sum_b n_b / n |accuracy_b - confidence_b|``, where an example's confidence is the largest
    of its probabilities, and bin ``b`` of ``M`` holds the confidences in ``(b / M, (b+1) / M]``.
    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017. NaN without examples,
    and where an example has NaN for a confidence.

    Attributes:
      count: (M,) examples of every bin.
      correct: (M,) correct ones of every bin.
      confidence: (M,) sums of confidence of every bin, in two parts.
      undefined: number of examples with NaN for a confidence, a scalar.
    """

    count: jax.Array
    correct: jax.Array
    confidence: Pair
    undefined: jax.Array

    @classmethod
    def from_model_output(
        cls,
        log_probabilities: jax.Array,
        labels: jax.Array,
        mask: jax.Array | None = None,
        bins: int = 15,
        **_: Any,
    ) -> ExpectedCalibrationError:
        """``log_probabilities`` (B, K), ``labels`` (B,) or (B, K), ``mask`` (B,)."""
        labels = hard_labels(labels, log_probabilities.shape[-1])
        mask = counted(labels, mask)
        undefined = undefined_rows(log_probabilities)
        confidence = jnp.exp(log_probabilities.max(-1).astype(jnp.float32))
        correct = true_class_rank(log_probabilities, labels) == 0
        bin_of = jnp.searchsorted(jnp.asarray(bin_edges(bins)[1:-1]), confidence, side="left")
        inside = (bin_of[:, None] == jnp.arange(bins)) & (mask & ~undefined)[:, None]
        return cls(
            count=inside.sum(0, dtype=jnp.int32),
            correct=(inside & correct[:, None]).sum(0, dtype=jnp.int32),
            confidence=_sum(jnp.where(inside, confidence[:, None], 0)),
            undefined=(mask & undefined).sum(dtype=jnp.int32),
        )

    def merge(self, other: ExpectedCalibrationError) -> ExpectedCalibrationError:
        return ExpectedCalibrationError(
            self.count + other.count,
            self.correct + other.correct,
            _add(self.confidence, other.confidence),
            self.undefined + other.undefined,
        )

    def reliability(self) -> Reliability:
        """The bins, without the examples whose confidence is NaN."""
        count = _host(self.count).astype(np.int64)
        return Reliability(
            edges=np.linspace(0, 1, len(count) + 1),
            confidence=_ratio(_value(self.confidence), count),
            accuracy=_ratio(_host(self.correct), count),
            count=count,
        )

    def compute(self) -> float:
        if _host(self.undefined) > 0:
            return float("nan")
        bins = self.reliability()
        gap = np.nan_to_num(np.abs(bins.accuracy - bins.confidence))
        return float(_ratio((bins.count * gap).sum(), bins.count.sum()))


@flax.struct.dataclass
class ConfusionCounts(clu.metrics.Metric):
    """Counts of (true class, predicted class); equal scores predict the lowest index.

    Attributes:
      counts: (K, K), true classes in rows and predicted ones in columns.
    """

    counts: jax.Array

    @classmethod
    def from_model_output(
        cls, logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None, **_: Any
    ) -> ConfusionCounts:
        """``logits`` (B, K), ``labels`` (B,) or (B, K), ``mask`` (B,)."""
        num_classes = logits.shape[-1]
        labels = hard_labels(labels, num_classes)
        fits = (labels >= 0) & (labels < num_classes) & ~undefined_rows(logits)
        weight = (counted(labels, mask) & fits).astype(jnp.int32)
        zeros = jnp.zeros((num_classes, num_classes), jnp.int32)
        return cls(zeros.at[jnp.where(fits, labels, 0), jnp.argmax(logits, -1)].add(weight))

    def merge(self, other: ConfusionCounts) -> ConfusionCounts:
        return ConfusionCounts(self.counts + other.counts)

    def compute(self) -> np.ndarray:
        """(K, K) int64, row = true class."""
        return _host(self.counts).astype(np.int64)
