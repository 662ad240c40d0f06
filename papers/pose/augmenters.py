"""The augmenters of POSE: two convolutions without a nonlinearity, stacked over epochs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from vision.train.objective import Aux, masked_mean

Tree = Any


def init_augmenters(
    key_first: jax.Array, key_second: jax.Array, shape: tuple[int, int, int]
) -> Tree:
    """``first`` and ``second``, kernels of all augmenters, uniform as PyTorch's convolutions are.

    Args:
      key_first, key_second: of the two convolutions.
      shape: number of augmenters, channels of the image, channels between the convolutions.
    """
    count, channels, width = shape

    def kernels(key: jax.Array, in_channels: int, out_channels: int) -> jax.Array:
        scale = (9 * in_channels) ** -0.5
        return scale * jax.random.uniform(
            key, (count, 3, 3, in_channels, out_channels), minval=-1, maxval=1
        )

    return {
        "first": kernels(key_first, channels, width),
        "second": kernels(key_second, width, channels),
    }


def augmenter_at(stack: Tree, index: jax.Array) -> Tree:
    """One augmenter of the stack."""
    return jax.tree.map(lambda x: x[index], stack)


def augment(augmenter: Tree, image: jax.Array) -> jax.Array:
    """``image`` (B, H, W, C) after two 3 x 3 convolutions without a nonlinearity."""
    for kernel in (augmenter["first"], augmenter["second"]):
        image = jax.lax.conv_general_dilated(
            image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    return image


def augmenter_loss(
    images: list[jax.Array],
    features: list[jax.Array],
    mask: jax.Array,
    has_past: jax.Array,
    weights: tuple[float, float, float],
    similarity: float,
) -> tuple[jax.Array, Aux]:
    """The loss of the present augmenter, and ``change`` and ``similarity`` of its images.

    Args:
      images: (B, H, W, C) each: the originals, and those of the present and an earlier augmenter.
      features: unit vectors (B, D) of each.
      mask: bool (B,), rows that count.
      has_past: bool (), whether there is an earlier augmenter.
      weights: of the three terms.
      similarity: cosine above which the second term has no gradient.
    """
    change = masked_mean(jnp.mean((images[1] - images[0]) ** 2, axis=(1, 2, 3)), mask)
    cosine = masked_mean(jnp.sum(features[0] * features[1], -1), mask)
    overlap = masked_mean(jnp.sum(features[1] * features[2], -1), mask)
    w_change, w_similarity, w_overlap = weights
    loss = (
        w_change * change
        + w_similarity * jnp.maximum(1 - cosine, 1 - similarity)
        + w_overlap * jnp.where(has_past, overlap, 0.0)
    )
    return loss, Aux({"change": change, "similarity": cosine})
