"""Triplet losses on the rows of a batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def batch_hard_triplet(
    features: jax.Array, labels: jax.Array, valid: jax.Array, margin: float
) -> jax.Array:
    """Mean over anchors of ``max(margin + farthest positive - nearest negative, 0)``.

    Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017. Distances are
    Euclidean. Anchors without a positive or without a negative are left out; 0 if all are.

    Args:
      features: (N, D).
      labels: int (N,).
      valid: bool (N,), rows that take part.
      margin: 0 or more.
    """
    squared = jnp.sum((features[:, None] - features[None]) ** 2, -1)
    # The gradient of the square root is infinite at 0, the distance of a row to itself or a copy.
    distance = jnp.sqrt(jnp.maximum(squared, 1e-12))
    valid_pair = valid[:, None] & valid[None]
    same = labels[:, None] == labels[None]
    positive = same & valid_pair & ~jnp.eye(len(labels), dtype=bool)
    negative = ~same & valid_pair
    farthest = jnp.max(jnp.where(positive, distance, -jnp.inf), 1)
    nearest = jnp.min(jnp.where(negative, distance, jnp.inf), 1)
    has_both = positive.any(1) & negative.any(1)
    gap = jnp.where(has_both, farthest, 0.0) - jnp.where(has_both, nearest, 0.0)
    losses = jnp.where(has_both, jnp.maximum(margin + gap, 0.0), 0.0)
    return losses.sum() / jnp.maximum(has_both.sum(), 1)


def separating_triplet(
    pair: tuple[jax.Array, jax.Array],
    labels: jax.Array,
    classes: int,
    valid: jax.Array,
    margin: float,
) -> jax.Array:
    """The triplet loss of images beside their augmented copies, which are classes of their own.

    Args:
      pair: features (B, D) of the images and of the copies.
      labels: int (B,) of the images, below ``classes``.
      classes: number of classes; the copies of class c are class ``c + classes``.
      valid: bool (B,), rows that take part.
      margin: 0 or more.
    """
    labels = jnp.concatenate([labels, labels + classes])
    return batch_hard_triplet(
        jnp.concatenate(pair), labels, jnp.concatenate([valid, valid]), margin
    )
