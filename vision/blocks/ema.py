"""Exponential moving averages of parameters, for teacher networks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def ema_update(average: Tree, params: Tree, momentum: float | jax.Array) -> Tree:
    """``momentum * average + (1 - momentum) * params``, leaf by leaf, in the average's dtypes."""

    def update_leaf(old: jax.Array, new: jax.Array) -> jax.Array:
        return (old + (1 - momentum) * (new - old)).astype(old.dtype)

    return jax.tree.map(update_leaf, average, params)


def cosine(begin: float, end: float, step: jax.Array, total_steps: int) -> jax.Array:
    """Half a cosine from ``begin`` at step 0 to ``end`` at ``total_steps``.

    The schedule of the momentum in Grill et al., BYOL, 2020, and Caron et al., DINO, 2021.
    """
    progress = jnp.clip(step / max(total_steps, 1), 0.0, 1.0)
    return end + (begin - end) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
