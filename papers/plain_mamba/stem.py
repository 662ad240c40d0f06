"""The stem of PlainMamba: convolutions where wanted, patch embedding, learned positions."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax

from vision.models.conv_layers import batch_norm, conv
from vision.models.posemb import Grid, resample_posemb
from vision.train.precision import Precision

Stem = Literal["convolutions", "patches"]
_STEM_WIDTH = 64


def grid_of(x: jax.Array, patch: int) -> Grid:
    """Rows and columns of patches of images (B, h, w, C).

    Raises:
      ValueError: the patch does not divide a side.
    """
    if x.shape[1] % patch or x.shape[2] % patch:
        raise ValueError(
            f"image of {x.shape[1]}x{x.shape[2]} is not divisible by the patch "
            f"{patch}x{patch}: resize the images or choose another patch"
        )
    return (x.shape[1] // patch, x.shape[2] // patch)


def embed_patches(
    x: jax.Array, stem: Stem, width: int, convs: int, patch: int, precision: Precision, train: bool
) -> jax.Array:
    """(B, h, w, C) to (B, rows, columns, D); its layers are those of the module that calls it."""
    if stem == "convolutions":
        patch //= 2
        for i, (kernel, stride) in enumerate([(7, 2), *[(3, 1)] * convs]):
            x = conv(_STEM_WIDTH, kernel, stride, precision=precision, name=f"stem_conv{i}")(x)
            x = nn.relu(batch_norm(x, train, precision, f"stem_norm{i}"))
    return conv(
        width, patch, patch, padding=0, use_bias=True, precision=precision, name="patch_embed"
    )(x)


def positions(module: nn.Module, grid: Grid, width: int, precision: Precision) -> jax.Array:
    """``pos_embed`` of ``module``, (rows, columns, D), resampled to the grid."""
    if not module.has_variable("params", "pos_embed"):
        init = nn.initializers.normal(width**-0.5)
        return module.param("pos_embed", init, (*grid, width), precision.params)
    stored = module.get_variable("params", "pos_embed")
    return resample_posemb(stored, stored.shape[:2], grid)
