"""Supervised classification with softmax or sigmoid cross-entropy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vision.config.ranges import Rate, checked
from vision.objectives.imbalance import Asymmetric, ClassWeights, Focal, focused
from vision.train.labels import Form, LabelKind
from vision.train.objective import Aux, Batch, Context, Objective, Variables, apply, averaged

Tree = Any


@dataclasses.dataclass(frozen=True)
@checked
class Classify(Objective):
    """Cross-entropy between a tower's logits and labels.

    ``batch["label"]`` is int (B,), with -1 for "no label" (masked out), or (B, K). Softmax takes
    distributions over the classes. Sigmoid takes a number 0..1 for every class, several at once
    (``MultiLabel``); classes that are -1, or False in ``batch["label_known"]`` bool (B, K)
    (``PartialLabels``), have no loss.

    Logged are ``top1``, which of soft labels takes the largest, or with ``sigmoid`` and (B, K)
    ``label_accuracy``, the share of the known yes-or-no answers that are right at probability 0.5,
    and ``precision_at_1``, how often the likeliest class is one of the image's: 0 for one without
    any.

    Attributes:
      model: a tower with a classifier head; filled in from ``config.model``.
      loss_type: ``softmax`` for one class per image; ``sigmoid`` for independent classes, summed
        over classes as in Beyer et al. (2020), "Are we done with ImageNet?".
      label_smoothing: weight of the uniform distribution in the target (softmax), or distance
        of both targets from 0 and 1, doubled (sigmoid).
      class_weights: what the loss of each class counts, ``BalancedWeights`` or ``FixedWeights``;
        None for 1. The loss stays a mean over examples: it is not divided by their weights.
      focus: ``Focal``, or for independent classes ``Asymmetric``; None for the cross-entropy.
    """

    loss_type: Literal["softmax", "sigmoid"] = "softmax"
    label_smoothing: Rate = 0.0
    class_weights: ClassWeights | None = None
    focus: Focal | Asymmetric | None = None

    def __post_init__(self) -> None:
        if isinstance(self.focus, Asymmetric) and self.loss_type != "sigmoid":
            raise ValueError(
                "focus=Asymmetric is for independent classes: loss_type='sigmoid', or Focal"
            )

    @property
    def label_kinds(self) -> Mapping[str, LabelKind]:
        return class_labels(
            self.model, "independent" if self.loss_type == "sigmoid" else "distribution"
        )

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        out, state = apply(self.model, variables, batch["image"], ctx)
        logits, label = out["logits"].astype(jnp.float32), batch["label"]
        targets, labelled = to_targets(label, logits.shape[-1])
        known = None
        if self.loss_type == "sigmoid" and label.ndim == 2:
            known = (label >= 0) & batch.get("label_known", True)
            targets, labelled = jnp.where(known, targets, 0), known.any(-1)
            metrics = multiple_labels(logits, targets, known)
        elif "label_known" in batch:
            raise ValueError("labels known in part (label_known) need loss_type='sigmoid'")
        else:
            metrics = top1(logits, targets)
        weights = None
        if self.class_weights is not None:
            weights = self.class_weights.of(logits.shape[-1])
        losses = cross_entropy(
            logits, targets, self.loss_type, self.label_smoothing, known, self.focus, weights
        )
        return averaged(losses, labelled & batch["_mask"], state, **metrics)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        predictions = super().predict(variables, batch, ctx)
        if self.loss_type == "sigmoid":
            predictions["log_probabilities"] = jax.nn.log_sigmoid(predictions["logits"])
        return predictions


def class_labels(model: Any, form: Form = "distribution") -> Mapping[str, LabelKind]:
    """``label_kinds`` of an objective that reads ``batch["label"]`` with ``to_targets``: classes of
    the model; none where it does not say how many it has."""
    classes = getattr(model, "num_classes", None)
    return {"label": LabelKind(classes, form)} if classes else {}


def to_targets(label: jax.Array, num_classes: int) -> tuple[jax.Array, jax.Array]:
    """Labels as float32 (B, K) targets, and (B,) bool: which rows have one."""
    if label.ndim == 1:
        return jax.nn.one_hot(label, num_classes), (label >= 0) & (label < num_classes)
    if label.shape[-1] != num_classes:
        raise ValueError(
            f"labels have {label.shape[-1]} classes and the model has {num_classes}: "
            "set config.model.num_classes, or the batch op's num_classes, to agree"
        )
    targets = label.astype(jnp.float32)
    return jnp.maximum(targets, 0), (targets >= 0).all(-1)


def top1(logits: jax.Array, targets: jax.Array) -> dict[str, jax.Array]:
    """Whether the likeliest class (B, K) is the target's largest: ``top1`` (B,)."""
    return {"top1": jnp.argmax(logits, -1) == jnp.argmax(targets, -1)}


def multiple_labels(
    logits: jax.Array, targets: jax.Array, known: jax.Array
) -> dict[str, jax.Array]:
    """``label_accuracy`` and ``precision_at_1`` (B,) of logits and targets in 0..1, of which some
    are ``known``, bool, all (B, K)."""
    right = ((logits > 0) == (targets > 0.5)) & known
    hit = jnp.take_along_axis(targets, jnp.argmax(logits, -1, keepdims=True), -1)[:, 0]
    largest = targets.max(-1)
    return {
        "label_accuracy": right.sum(-1) / jnp.maximum(known.sum(-1), 1),
        "precision_at_1": (hit == largest) & (largest > 0),
    }


def cross_entropy(
    logits: jax.Array,
    targets: jax.Array,
    kind: str,
    label_smoothing: float,
    known: jax.Array | None = None,
    focus: Focal | Asymmetric | None = None,
    weights: np.ndarray | None = None,
) -> jax.Array:
    """Losses (B,) in nats of logits (B, K) against targets (B, K) in [0, 1].

    With sigmoid, only of the classes that are ``known``, bool (B, K); None for all. ``focus`` and
    ``weights`` (K,) as in ``Classify``.
    """
    plain = focus is None and weights is None
    if kind == "sigmoid":
        smooth = targets * (1 - label_smoothing) + label_smoothing / 2
        if plain:
            losses = optax.sigmoid_binary_cross_entropy(logits, smooth)
        else:
            losses = focused(logits, smooth, kind, focus, weights)
        return (losses if known is None else jnp.where(known, losses, 0)).sum(-1)
    smooth = targets * (1 - label_smoothing) + label_smoothing / logits.shape[-1]
    if not plain:
        return focused(logits, smooth, kind, focus, weights).sum(-1)
    return optax.safe_softmax_cross_entropy(logits, smooth)
