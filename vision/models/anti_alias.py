"""Halving of images by means, or by a blur and every second pixel: shifts matter less."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.models.convolution import max_pool

AntiAlias = Literal["none", "average", "blur"]


def halve(x: jax.Array) -> jax.Array:
    """(B, h, w, C) means of 2x2 windows; windows cut by an odd side are means of the rest."""
    return nn.avg_pool(x, (2, 2), (2, 2), "SAME", count_include_pad=False)


def blur(x: jax.Array) -> jax.Array:
    """Every second position of ``x`` after a blur by (1, 2, 1) / 4 along both sides (Zhang,
    Making convolutional networks shift-invariant again, 2019): (B, ceil(h / 2), ceil(w / 2), C).

    Beyond its edges an image goes on as its mirror image; sides have at least 2 pixels.
    """
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    for axis in (1, 2):
        count = (x.shape[axis] - 3) // 2 + 1
        first, middle, last = (
            jax.lax.slice_in_dim(x, start, start + 2 * count - 1, 2, axis) for start in range(3)
        )
        x = 0.25 * first + 0.5 * middle + 0.25 * last
    return x


def halve_as(kind: AntiAlias, x: jax.Array) -> jax.Array:
    """What follows a 3x3 convolution of stride 1 in the place of one of stride 2.

    ``average`` are means of 2x2 windows, of which an odd side leaves out its last pixels.
    """
    return blur(x) if kind == "blur" else nn.avg_pool(x, (2, 2), (2, 2), "VALID")


def pool_stem(kind: AntiAlias, x: jax.Array) -> jax.Array:
    """The pooling behind the stem of a ResNet: 3x3 maxima of stride 2, or what replaces them."""
    if kind == "average":
        return halve_as(kind, x)
    if kind == "blur":
        return blur(max_pool(x, (3, 3), (1, 1), ((1, 1), (1, 1))))
    return max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
