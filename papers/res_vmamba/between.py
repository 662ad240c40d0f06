"""What stands before and between the stages of VMamba, and Res-VMamba's path past a stage."""

from __future__ import annotations

import flax.linen as nn
import jax

from papers.res_vmamba.block import LINEAR
from vision.models.conv_layers import conv
from vision.models.convolution import max_pool
from vision.models.layers import dense, layer_norm
from vision.models.swin import neighbours
from vision.train.precision import Precision


def embedded(x: jax.Array, width: int, patch: int, precision: Precision) -> jax.Array:
    """Patches of images (B, H, W, C) in ``width`` channels, normed: (B, H / patch, W / patch, D).

    Raises:
      ValueError: the patch does not divide the sides.
    """
    if x.shape[1] % patch or x.shape[2] % patch:
        raise ValueError(
            f"image of {x.shape[1]}x{x.shape[2]} is not divisible by the patch {patch}x{patch}: "
            "resize the images or choose another patch"
        )
    given = {"padding": 0, "use_bias": True, "precision": precision, "name": "patch_embed"}
    return layer_norm(conv(width, patch, patch, **given)(x), precision, "stem_norm")


def merged(x: jax.Array, precision: Precision, name: str) -> jax.Array:
    """Four neighbours of (B, h, w, C) become one token of twice their channels."""
    width = 2 * x.shape[-1]
    x = layer_norm(neighbours(x), precision, f"{name}_norm")
    return dense(x, width, precision, name, LINEAR, use_bias=False)


def passed_on(x: jax.Array, zero: bool, precision: Precision, name: str) -> jax.Array:
    """The largest of four neighbours of (B, h, w, C), in twice as many channels.

    Args:
      x: the input of a stage.
      zero: whether the convolution starts at zero.
      precision: number formats.
      name: of the convolution.
    """
    width, odd = 2 * x.shape[-1], tuple((0, side % 2) for side in x.shape[1:3])
    init = nn.initializers.zeros if zero else LINEAR
    x = max_pool(x, (2, 2), (2, 2), odd)
    layer = conv(width, 1, use_bias=True, precision=precision, name=name, kernel_init=init)
    return layer(x)
