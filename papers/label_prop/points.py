"""Points as heat maps: Gaussians around points, and peaks of propagated maps."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_SIGMA = 0.5  # cells


def heat_maps(points: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Heat maps (h, w, P) with a Gaussian around each of ``points`` (P, 2), in cells."""
    cells = jnp.stack(jnp.meshgrid(*(jnp.arange(n) for n in size), indexing="ij"), -1)
    squared = ((cells[:, :, None] - points) ** 2).sum(-1)
    return jnp.exp(-squared / (2 * _SIGMA**2))


def peaks(heat: jax.Array) -> jax.Array:
    """Peaks (T, P, 2) of heat maps (T, h, w, P): the mean position of the cells around the maximum.

    The mean is over the 3 x 3 cells around the maximum, weighted by their values.
    """
    frames, height, width, count = heat.shape
    best = jnp.argmax(heat.reshape(frames, -1, count), 1)
    maxima = jnp.stack(jnp.unravel_index(best, (height, width)), -1)
    cells = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), -1)
    offset = jnp.abs(cells[None, :, :, None] - maxima[:, None, None])
    nearby = jnp.where((offset <= 1).all(-1), heat, 0)
    total = nearby.sum((1, 2))
    mean = jnp.einsum("thwp,hwc->tpc", nearby, cells.astype(jnp.float32))
    return mean / jnp.where(total > 0, total, 1)[..., None]
