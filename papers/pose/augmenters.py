"""The augmenters of POSE: two convolutions without a nonlinearity, stacked over epochs."""

from __future__ import annotations

from typing import Any

import jax

Tree = Any


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
