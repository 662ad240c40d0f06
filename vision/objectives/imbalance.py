"""For classes that are rare or easy: weights of classes, and losses that attend to hard ones."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vision.config.ranges import Ge, Le, Lt, NonEmpty, NonNegative, checked
from vision.data.all_records import feature_of
from vision.data.source import DataError, Source

# Of 1 - p: below it the derivative of a fractional power is no number.
_TINY = 1e-7


class ClassWeights(Protocol):
    """What the loss of each class counts, as a frozen dataclass."""

    def of(self, num_classes: int) -> np.ndarray:
        """float32 (K,), not negative, in the order of the logits."""
        ...


@dataclasses.dataclass(frozen=True)
@checked
class FixedWeights:
    """Weights that are known.

    Attributes:
      values: one per class, in the order of the logits.
    """

    values: NonEmpty[tuple[NonNegative[float], ...]]

    def of(self, num_classes: int) -> np.ndarray:
        if len(self.values) != num_classes:
            raise DataError(
                f"class_weights has {len(self.values)} values, and the model {num_classes} classes"
            )
        return np.asarray(self.values, np.float32)


@dataclasses.dataclass(frozen=True)
@checked
class BalancedWeights:
    """Weights by how rare a class is: proportional to ``1 / n^power`` of a class of n examples,
    and 1 on average over the examples of ``source``. A class without any weighs nothing.

    Labels are read once, when training begins; a trained run needs no data.

    Attributes:
      source: the training data.
      power: 1 gives every class the same total weight, 0.5 is half the way, 0 is none.
      label: name of the label, one class per record, or (K,) numbers of which the sum counts.
    """

    source: Source
    power: Annotated[float, Ge(0), Le(1)] = 1.0
    label: str = "label"

    def of(self, num_classes: int) -> np.ndarray:
        counts = self.counts(num_classes)
        if not counts.sum():
            raise DataError(f"{self.source.info.name}: no record has a {self.label!r}")
        scale = np.where(counts > 0, np.maximum(counts, 1) ** -float(self.power), 0)
        return (scale * counts.sum() / (scale * counts).sum()).astype(np.float32)

    def counts(self, num_classes: int) -> np.ndarray:
        """Examples of every class, float64 (K,).

        Raises:
          DataError: labels that are no classes of the model.
        """
        labels = np.asarray(feature_of(self.source, self.label))
        name = self.source.info.name
        if labels.ndim == 2 and labels.shape[1] == num_classes:
            return np.maximum(labels.astype(np.float64), 0).sum(0)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DataError(
                f"{name}: {self.label!r} is {labels.dtype}{list(labels.shape[1:])} of a record, "
                f"neither a class nor {num_classes} numbers"
            )
        labels = labels[labels >= 0]
        if labels.size and labels.max() >= num_classes:
            raise DataError(
                f"{name}: class {labels.max()}, and the model has {num_classes}, 0..."
                f"{num_classes - 1}"
            )
        return np.bincount(labels, minlength=num_classes).astype(np.float64)


@dataclasses.dataclass(frozen=True)
@checked
class Focal:
    """The focal loss: what is classified well already counts little (Lin et al., Focal Loss for
    Dense Object Detection, 2017).

    The cross-entropy of a class, times ``(1 - p)^gamma`` of the probability p that the answer is
    right.

    Attributes:
      gamma: 0 is the cross-entropy.
    """

    gamma: NonNegative[float] = 2.0

    def softmax(self, log_p: jax.Array, targets: jax.Array) -> jax.Array:
        """Terms (B, K) of log-probabilities and distributions (B, K)."""
        miss = jnp.maximum(-jnp.expm1(log_p), _TINY)
        return jnp.where(targets > 0, -targets * log_p * miss**self.gamma, 0)

    def sigmoid(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        """Terms (B, K) of independent classes and their targets 0..1."""
        return _independent(logits, targets, self.gamma, self.gamma, 0.0)


@dataclasses.dataclass(frozen=True)
@checked
class Asymmetric:
    """The asymmetric loss, for independent classes of which most are absent (Ridnik et al.,
    Asymmetric Loss For Multi-Label Classification, 2021).

    Focal, with a power of its own for classes that are there and for those that are not; of the
    latter the probability counts from ``margin`` on only.

    Attributes:
      positive: power for classes that are there.
      negative: power for the others.
      margin: probabilities up to it are right enough for a class that is not there.
    """

    positive: NonNegative[float] = 0.0
    negative: NonNegative[float] = 4.0
    margin: Annotated[float, Ge(0), Lt(1)] = 0.05

    def sigmoid(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        """Terms (B, K) of independent classes and their targets 0..1."""
        return _independent(logits, targets, self.positive, self.negative, self.margin)


def _independent(
    logits: jax.Array, targets: jax.Array, positive: float, negative: float, margin: float
) -> jax.Array:
    p, absent = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    present = jax.nn.log_sigmoid(logits) * jnp.maximum(absent, _TINY) ** positive
    log_absent = jax.nn.log_sigmoid(-logits)
    if margin:
        p, log_absent = p - margin, jnp.log(jnp.minimum(absent + margin, 1))
    missing = log_absent * jnp.maximum(p, _TINY) ** negative
    return -(targets * present + (1 - targets) * missing)


def focused(
    logits: jax.Array, targets: jax.Array, kind: str, focus: Any, weights: np.ndarray | None
) -> jax.Array:
    """Terms (B, K) of a loss: of every class, weighted.

    Args:
      logits: float32 (B, K).
      targets: float32 (B, K), smoothed already.
      kind: ``softmax`` or ``sigmoid``.
      focus: ``Focal`` or ``Asymmetric``; None for the cross-entropy.
      weights: of the classes (K,); None for 1.
    """
    chosen = focus or Focal(0.0)
    if kind == "sigmoid":
        terms = chosen.sigmoid(logits, targets)
    else:
        terms = chosen.softmax(jax.nn.log_softmax(logits), targets)
    return terms if weights is None else terms * weights
