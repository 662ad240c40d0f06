"""BiT: ResNet v2 with weight standardisation and GroupNorm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import NonNegative, Positive, checked
from vision.models.conv_layers import conv
from vision.models.convolution import convolve, max_pool
from vision.models.layers import (
    Remat,
    check_images,
    classify,
    pooled_map,
    rematerialise,
    spatial_sites,
)
from vision.models.resnet import STAGES
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above

Depth = Literal[14, 26, 50, 101, 152]


def standardised_convolve(x: jax.Array, kernel: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
    """``convolve`` with each output's kernel at mean 0 and variance 1 (Qiao et al., 2019)."""
    values = kernel.astype(jnp.float32)
    mean = values.mean(axis=(0, 1, 2), keepdims=True)
    variance = values.var(axis=(0, 1, 2), keepdims=True)
    values = (values - mean) * jax.lax.rsqrt(variance + 1e-8)
    return convolve(x, values.astype(kernel.dtype), *args, **kwargs)


def _conv(channels: int, kernel: int, stride: int, precision: Precision, name: str) -> nn.Conv:
    return conv(
        channels, kernel, stride, precision=precision, name=name, function=standardised_convolve
    )


def _norm(x: jax.Array, groups: int, precision: Precision, name: str) -> jax.Array:
    layer = nn.GroupNorm(
        groups, epsilon=1e-5, dtype=precision.compute, param_dtype=precision.params, name=name
    )
    return nn.relu(layer(x))


class PreActivationBlock(nn.Module):
    """x + branch(relu(norm(x))): 1x1, 3x3 with the stride, 1x1, each after a norm and a ReLU.

    With ``project`` the shortcut is a convolution of the same relu(norm(x)).

    Attributes:
      channels: of the bottleneck; the block gives four times as many.
      stride: of the 3x3 convolution.
      project: whether the shortcut is a convolution.
      norm_groups: of GroupNorm.
      precision: number formats.
    """

    channels: int
    stride: int
    project: bool
    norm_groups: int
    precision: Precision

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        wide = 4 * self.channels
        y = _norm(x, self.norm_groups, self.precision, "norm1")
        if self.project:
            x = _conv(wide, 1, self.stride, self.precision, "downsample_conv")(y)
        y = _conv(self.channels, 1, 1, self.precision, "conv1")(y)
        y = _norm(y, self.norm_groups, self.precision, "norm2")
        y = _conv(self.channels, 3, self.stride, self.precision, "conv2")(y)
        y = _norm(y, self.norm_groups, self.precision, "norm3")
        return x + _conv(wide, 1, 1, self.precision, "conv3")(y)


@checked
class BiT(nn.Module):
    """ResNet v2 of Big Transfer (Kolesnikov et al., 2020): no statistics of the batch anywhere.

    Identity shortcuts and activations before convolutions (He et al., Identity Mappings, 2016),
    the stride in the 3x3 convolutions. BiT-R50x1 is the default, R152x4
    ``depth=152, width_multiplier=4``.

    Called with (B, h, w, C) floating-point images it returns ``(embedding, out)`` as documented in
    ``vision.train.tower``. Blocks count through all stages: ``block00`` to ``block15`` for 50
    layers. ``map`` is the last block's output after the final norm and ReLU, (B, h, w, C), and
    ``tokens`` the same with its positions flattened. ``pooled``, ``embedding`` and ``logits`` are
    of the output dtype, everything else is of the compute dtype.

    Attributes:
      depth: number of layers; 14 and 26, which the paper does not have, are one and two blocks in
        each stage.
      num_classes: classes of the head; None and 0 both mean no head.
      width_multiplier: multiplies the channels of every layer, the embedding's too.
      norm_groups: groups of channels of every GroupNorm.
      remat: what a block keeps for the backward pass: ``none`` keeps all, ``full`` only its
        input, ``dots`` also the results of convolutions.
      precision: number formats of parameters, computation and outputs.
      head_zero_init: head's kernel starts at zero, otherwise normal with deviation 0.01.
    """

    depth: Depth = 50
    num_classes: NonNegative[int] | None = None
    width_multiplier: Positive[float] = 1.0
    norm_groups: Positive[int] = 32
    remat: Remat = "none"
    precision: Precision = Precision()
    head_zero_init: bool = True

    def __post_init__(self) -> None:
        if 64 * self.width_multiplier % self.norm_groups:
            raise ValueError(
                f"width_multiplier={self.width_multiplier} times 64 channels is not a multiple of "
                f"norm_groups={self.norm_groups}"
            )
        super().__post_init__()

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        return chain_layers_above(path[0], sum(STAGES[self.depth]), ("stem_",))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        width = int(64 * self.width_multiplier)
        x = _conv(width, 7, 2, self.precision, "stem_conv")(x)
        # Zeros, where max pooling by itself would pad with minus infinity: nothing has been
        # rectified yet, so it matters.
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = max_pool(x, (3, 3), (2, 2), ((0, 0), (0, 0)))
        x = apply_tap(tap, "stem", constrain_batch(x))
        out = {"stem": x}

        block_type = rematerialise(PreActivationBlock, self.remat)
        i = 0
        for stage, blocks in enumerate(STAGES[self.depth]):
            for j in range(blocks):
                site = f"block{i:02d}"
                block = block_type(
                    width * 2**stage,
                    2 if stage > 0 and j == 0 else 1,
                    j == 0,
                    self.norm_groups,
                    self.precision,
                    name=site,
                )
                x = out[site] = apply_tap(tap, site, constrain_batch(block(x)))
                i += 1

        x = _norm(x, self.norm_groups, self.precision, "norm")
        x, out = spatial_sites(x, out, tap)
        pooled = out["pooled"] = pooled_map(x, tap, self.precision)
        return classify(pooled, out, tap, self.num_classes, self.head_zero_init, self.precision)
