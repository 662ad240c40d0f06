"""Triplet losses on the rows of a batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def batch_hard_triplet(
    features: jax.Array, labels: jax.Array, valid: jax.Array, margin: float
) -> jax.Array:
    """The mean over anchors of ``max(margin + farthest of their class - nearest of another, 0)``.

    Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017. Distances are
    Euclidean. Anchors alone in their class, or in a batch of one class, do not count; 0 where none
    does.

    Args:
      features: (N, D).
      labels: int (N,).
      valid: bool (N,), rows that take part.
      margin: 0 or more.
    """
    squared = jnp.sum((features[:, None] - features[None]) ** 2, -1)
    # The square root has no slope at 0, where a row meets itself or its double.
    distance = jnp.sqrt(jnp.maximum(squared, 1e-12))
    both = valid[:, None] & valid[None]
    same = labels[:, None] == labels[None]
    positive = same & both & ~jnp.eye(len(labels), dtype=bool)
    negative = ~same & both
    farthest = jnp.max(jnp.where(positive, distance, -jnp.inf), 1)
    nearest = jnp.min(jnp.where(negative, distance, jnp.inf), 1)
    counts = positive.any(1) & negative.any(1)
    gap = jnp.where(counts, farthest, 0.0) - jnp.where(counts, nearest, 0.0)
    losses = jnp.where(counts, jnp.maximum(margin + gap, 0.0), 0.0)
    return losses.sum() / jnp.maximum(counts.sum(), 1)
