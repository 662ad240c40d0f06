"""Patches of an image as tokens, and tokens as a map: how vision transformers begin and end."""

from __future__ import annotations

import flax.linen as nn
import jax

from vision.models.convolution import convolve
from vision.models.posemb import Grid
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap


def embed_patches(
    x: jax.Array, width: int, patch: int, precision: Precision, use_bias: bool = True
) -> jax.Array:
    """(B, h, w, C) to (B, rows, columns, D), by ``patch_embed`` of the module that calls it.

    Raises:
      ValueError: a side of the images is not a multiple of the patch.
    """
    height, columns = x.shape[1:3]
    if height % patch or columns % patch:
        raise ValueError(
            f"image of {height}x{columns} is not divisible by the patch {patch}x{patch}: "
            "resize the images or choose another patch"
        )
    layer = nn.Conv(
        width,
        (patch, patch),
        strides=patch,
        padding="VALID",
        use_bias=use_bias,
        dtype=precision.compute,
        param_dtype=precision.params,
        conv_general_dilated=convolve,
        name="patch_embed",
    )
    return layer(x)


def spatial_tokens(
    tokens: jax.Array, prefix: int, grid: Grid, out: dict[str, jax.Array], tap: Tap | None
) -> jax.Array:
    """The patches among (B, prefix + N, D), as site ``map`` gives them back; fills in ``map``.

    If a tap changed their number there is no map.
    """
    patches = tokens[:, prefix:]
    if patches.shape[1] != grid[0] * grid[1]:
        return patches
    width = tokens.shape[-1]
    out["map"] = apply_tap(tap, "map", patches.reshape(-1, *grid, width))
    return out["map"].reshape(-1, grid[0] * grid[1], width)
