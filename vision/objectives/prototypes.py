"""Assignment of embeddings to learned prototypes, for self-distillation."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def cosines(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """(..., K) float32: the cosine of x (..., D) with every column of ``kernel`` (D, K).

    Zero vectors give zero.
    """
    x, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
    return _unit(x, -1) @ _unit(kernel, 0)


def sinkhorn(
    scores: jax.Array, mask: jax.Array, temperature: float | jax.Array, iterations: int = 3
) -> jax.Array:
    """Sinkhorn-Knopp: distributions over prototypes with about uniform marginals.

    exp(scores / temperature), columns and rows scaled alternately to equal sums: Caron et al.,
    SwAV, 2020. In the log domain, so that nothing overflows.

    Args:
      scores: (N, K).
      mask: (N,) bool: valid rows. The others are zero, and do not affect the result.
      temperature: positive.
      iterations: of both scalings; 0 is a softmax.

    Returns:
      (N, K) float32; rows sum to one, and columns approach N / K with more iterations.
    """
    valid = mask[:, None]
    weight = valid.astype(jnp.float32)

    def scale(_: int, logs: jax.Array) -> jax.Array:
        column = jax.nn.logsumexp(logs, axis=0, keepdims=True, b=weight)
        logs = logs - jnp.where(valid.any(), column, 0.0)
        return logs - jax.nn.logsumexp(logs, axis=1, keepdims=True)

    logs = jnp.where(valid, scores.astype(jnp.float32) / temperature, 0.0)
    logs = jax.lax.fori_loop(0, iterations, scale, logs)
    return jnp.where(valid, jax.nn.softmax(logs, axis=1), 0.0)


def koleo(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Scalar: negative mean log distance of normalised embeddings to their nearest neighbour.

    Low if embeddings x (N, D) are spread evenly: the differential entropy estimator of
    Kozachenko and Leonenko, as in Sablayrolles et al., Spreading Vectors for Similarity Search,
    2019. Rows whose ``mask`` (N,) is False do not take part; fewer than two rows give 0.
    """
    unit = _unit(x.astype(jnp.float32), -1)
    similarity = jnp.dot(unit, unit.T, precision=jax.lax.Precision.HIGHEST)
    others = ~jnp.eye(len(x), dtype=bool) & mask[None] & mask[:, None]
    nearest = jnp.argmax(jnp.where(others, jax.lax.stop_gradient(similarity), -2.0), axis=1)
    # Not from the cosine, whose rounding error is as large as the square of a small distance.
    distance = jnp.sqrt(jnp.sum((unit - unit[nearest]) ** 2, -1) + 1e-16)
    has_neighbour = others.any(1)
    return -jnp.sum(jnp.where(has_neighbour, jnp.log(distance + 1e-8), 0.0)) / jnp.maximum(
        has_neighbour.sum(), 1
    )


def _unit(x: jax.Array, axis: int) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x**2, axis, keepdims=True), 1e-24))
