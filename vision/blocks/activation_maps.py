"""Class activation maps: feature maps weighted by the gradient of a class (Selvaraju et al., 2017,
``papers/grad_cam``)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def weighted(maps: jax.Array, gradients: jax.Array) -> jax.Array:
    """Sum over k of alpha_k A_k of maps and gradients, both (B, h, w, K): float32 (B, h, w)."""
    alpha = gradients.astype(jnp.float32).mean((1, 2))
    return jnp.einsum("bhwk,bk->bhw", maps.astype(jnp.float32), alpha)


def as_maps(tokens: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Tokens (B, h w, K) of images of ``size`` as (B, h, w, K); maps as they are.

    Raises:
      ValueError: tokens that are no grid of the image's proportions.
    """
    if tokens.ndim == 4:
        return tokens
    count = tokens.shape[1]
    height = max(1, round(math.sqrt(count * size[0] / size[1])))
    if count % height:
        raise ValueError(
            f"{count} tokens are no grid over images of {size[0]} x {size[1]}: set prefix to the "
            "number of tokens before the patches"
        )
    return tokens.reshape(tokens.shape[0], height, count // height, -1)


def spread(cam: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Positive evidence of a map (B, h, w), resized to images: float32 ``shape``, (B, H, W)."""
    return jax.image.resize(jnp.maximum(cam, 0), shape, "bilinear")


def relative(heat: jax.Array) -> jax.Array:
    """Maps (B, H, W) divided by their maxima; those without any evidence stay zeros."""
    peak = heat.max((1, 2), keepdims=True)
    return heat / jnp.where(peak > 0, peak, 1)
