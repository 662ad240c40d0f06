"""The simplex, the loss between two models, and the measures of a stream."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def simplex(classes: int) -> np.ndarray:
    """float32 (K, K - 1): the vertices of a regular simplex around the origin, unit vectors."""
    dimensions = classes - 1
    last = np.full((1, dimensions), (1 - np.sqrt(1 + dimensions)) / dimensions)
    rows = np.concatenate([np.eye(dimensions), last])
    rows -= rows.mean(0)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def higher_order(
    old: jax.Array, new: jax.Array, label: jax.Array, valid: jax.Array, scale: float
) -> jax.Array:
    """The losses (B,) of L_hoc.

    Args:
      old, new: unit vectors (B, d) of the same images by two models.
      label: (B,) int.
      valid: (B,) bool; other rows are nobody's pair.
      scale: mu.
    """
    similarity = scale * old @ new.T
    other = jnp.where(label[:, None] != label[None], similarity, 0.0)
    others = jax.nn.logsumexp(jnp.where(valid[None], other, -jnp.inf), axis=1)
    return jnp.where(valid, others - jnp.diagonal(similarity), 0.0)


def compatibility(matrix: np.ndarray) -> dict[str, float]:
    """``average_compatibility`` and ``average_accuracy`` of M (T, T), see the module; what stands
    above the diagonal is not read. Of a single model the first is 1."""
    pairs = [
        matrix[i, j] > matrix[j, j] for j in range(len(matrix)) for i in range(j + 1, len(matrix))
    ]
    return {
        "average_compatibility": float(np.mean(pairs)) if pairs else 1.0,
        "average_accuracy": float(matrix[np.tril_indices(len(matrix))].mean()),
    }
