"""Scores of all crops of an image, in integers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LEVELS = 256  # steps of a whole number in the range of the pixels


def responses(levels: jax.Array, side: int, filter_px: int, seed: int) -> jax.Array:
    """int32 (B, n, m): response of a random odd filter at the centre of every crop."""
    rng = np.random.default_rng([seed, 0])
    taps = rng.integers(-64, 65, (filter_px, filter_px, levels.shape[3]))
    taps -= taps[::-1, ::-1].copy()  # odd: zero response on constant regions
    first = (side - filter_px) // 2
    n, m = (size - side + 1 for size in levels.shape[1:3])
    total: Any = 0
    for i, j in np.ndindex(filter_px, filter_px):
        part = levels[:, first + i : first + i + n, first + j : first + j + m]
        total = total + (part * taps[i, j].astype(np.int32)).sum(-1, dtype=jnp.int32)
    return total


def hashes(levels: jax.Array, side: int, seed: int) -> jax.Array:
    """uint32 (B, n, m), at least 1: hash of all pixels of every crop, by sums modulo 2^32."""
    rng = np.random.default_rng([seed, 1])
    rows, columns, channels = (
        jnp.asarray(rng.integers(2**31, size=size) * 2 + 1, jnp.uint32)
        for size in (side, side, levels.shape[3])
    )
    values = (levels.astype(jnp.uint32) * channels).sum(-1, dtype=jnp.uint32)
    # A nonlinear mix, since similar crops would have similar hashes under a linear map.
    for shift, odd in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        values = (values ^ (values >> shift)) * jnp.uint32(odd)
    for axis, weights in ((1, rows), (2, columns)):
        values = _weighted(values, weights, axis)
    values = (values ^ (values >> 16)) * jnp.uint32(0x7FEB352D)
    return ((values ^ (values >> 15)) >> 1) + 1


def _weighted(x: jax.Array, weights: jax.Array, axis: int) -> jax.Array:
    """Sliding weighted sums of ``x`` along ``axis``: its correlation with ``weights``."""
    positions = x.shape[axis] - len(weights) + 1

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        return total + jax.lax.dynamic_slice_in_dim(x, i, positions, axis) * weights[i]

    shape = (*x.shape[:axis], positions, *x.shape[axis + 1 :])
    return jax.lax.fori_loop(0, len(weights), add, jnp.zeros(shape, jnp.uint32))
