"""All triplets of a batch, attribute by attribute."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def triplet_losses(
    embeddings: jax.Array, values: jax.Array, valid: jax.Array, margin: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Means over the triplets of one attribute: of the hinge, and of those in the right order.

    A triplet is a row, another one of its value and one of another value, all of them known. The
    loss is max(0, margin - s(row, same) + s(row, other)), s the dot product.

    Args:
      embeddings: (B, D) float, of length 1.
      values: int (B,) value of the attribute, -1 for unknown.
      valid: bool (B,), the rows that count.
      margin: of the hinge.

    Returns:
      The loss, the share in the right order, and the number of triplets; zeros without any.
    """
    known = valid & (values >= 0)
    pair = known[:, None] & known
    alike = values[:, None] == values
    same = pair & alike & ~jnp.eye(len(values), dtype=bool)
    other = pair & ~alike
    similarity = embeddings @ embeddings.T
    gap = similarity[:, :, None] - similarity[:, None, :]  # row, same, other
    counted = same[:, :, None] & other[:, None, :]
    count = counted.sum()

    def mean(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(counted, x, 0)) / jnp.maximum(count, 1)

    return mean(jnp.maximum(0, margin - gap)), mean(gap > 0), count
