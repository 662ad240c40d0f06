"""ResNet v1.5, 10 to 152 layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.core.mesh import constrain_batch
from vision.core.net import Tap, touch
from vision.core.precision import Precision
from vision.models.convolution import convolve, max_pool
from vision.models.layers import (
    Initializer,
    Remat,
    check_choice,
    check_images,
    check_num_classes,
    check_positive,
    classify,
    rematerialise,
    spatial_sites,
)

Depth = Literal[10, 18, 34, 50, 101, 152]
Stem = Literal["imagenet", "cifar"]

STAGES: Mapping[int, tuple[int, int, int, int]] = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def _conv(channels: int, kernel: int, stride: int, precision: Precision, name: str) -> nn.Conv:
    # Padding on both sides, as in PyTorch: "SAME" would pad a strided convolution on one side
    # only and shift every pretrained kernel by a pixel.
    return nn.Conv(
        channels,
        (kernel, kernel),
        strides=stride,
        padding=kernel // 2,
        use_bias=False,
        dtype=precision.compute,
        param_dtype=precision.params,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        conv_general_dilated=convolve,
        name=name,
    )


def _norm(
    x: jax.Array,
    train: bool,
    precision: Precision,
    name: str,
    scale_init: Initializer = nn.initializers.ones,
) -> jax.Array:
    layer = nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=precision.compute,
        param_dtype=precision.params,
        scale_init=scale_init,
        name=name,
    )
    return layer(x)


class ResidualBlock(nn.Module):
    """relu(x + branch(x)): two 3x3 convolutions, or 1x1, 3x3, 1x1 around a bottleneck.

    The stride is in the first 3x3 convolution. ``downsample`` projects ``x`` where its shape
    does not fit the branch.
    """

    channels: int
    stride: int
    bottleneck: bool
    zero_init: bool
    precision: Precision

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.bottleneck:
            convs = [(self.channels, 1, 1), (self.channels, 3, self.stride)]
            convs.append((4 * self.channels, 1, 1))
        else:
            convs = [(self.channels, 3, self.stride), (self.channels, 3, 1)]
        y = x
        for i, (channels, kernel, stride) in enumerate(convs, 1):
            y = _conv(channels, kernel, stride, self.precision, f"conv{i}")(y)
            last = i == len(convs)
            scale = nn.initializers.zeros if last and self.zero_init else nn.initializers.ones
            y = _norm(y, train, self.precision, f"norm{i}", scale)
            y = y if last else nn.relu(y)
        if x.shape != y.shape:
            x = _conv(y.shape[-1], 1, self.stride, self.precision, "downsample_conv")(x)
            x = _norm(x, train, self.precision, "downsample_norm")
        return nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet (He et al., 2016) in its v1.5 form: the stride is in the 3x3 convolutions.

    Called with (B, h, w, C) floating-point images it returns ``(embedding, out)`` as
    ``vision.core.net`` says. Blocks count through all stages: ``block00`` to ``block15`` for 50
    layers. ``tokens`` is the last block's output with its positions flattened, and ``map`` the
    same as (B, h, w, C). ``pooled``, ``embedding`` and ``logits`` are of the output dtype,
    everything else is of the compute dtype.

    With ``train`` the batch statistics are those of the whole batch: under ``jax.jit`` with a
    sharded batch, of the batch on all devices. The running variance is the biased one.

    Attributes:
      depth: number of layers; 10, which the paper does not have, is for small images and tests.
      num_classes: classes of the head; None and 0 both mean no head.
      stem: ``imagenet``: 7x7 convolution of stride 2, then 3x3 max pooling of stride 2;
        ``cifar``: 3x3 convolution of stride 1, no pooling, for images of about 32 px.
      width_multiplier: multiplies the channels of every layer, the embedding's too.
      zero_init_residual: scale of every block's last BatchNorm starts at zero (Goyal et al.,
        2017).
      remat: what a block keeps for the backward pass: ``none`` keeps all, ``full`` only its
        input, ``dots`` also the results of convolutions.
      precision: number formats of parameters, computation and outputs. Statistics are float32.
      head_zero_init: head's kernel starts at zero, otherwise normal with deviation 0.01.
    """

    depth: Depth = 50
    num_classes: int | None = None
    stem: Stem = "imagenet"
    width_multiplier: float = 1.0
    zero_init_residual: bool = True
    remat: Remat = "none"
    precision: Precision = Precision()
    head_zero_init: bool = True

    def __post_init__(self) -> None:
        check_choice("depth", self.depth, get_args(Depth))
        check_choice("stem", self.stem, get_args(Stem))
        check_choice("remat", self.remat, get_args(Remat))
        check_positive(width_multiplier=self.width_multiplier)
        check_num_classes(self.num_classes)
        if not float(64 * self.width_multiplier).is_integer():
            raise ValueError(
                f"width_multiplier={self.width_multiplier} times 64 channels is not a whole number"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        width = int(64 * self.width_multiplier)
        if self.stem == "imagenet":
            x = _conv(width, 7, 2, self.precision, "stem_conv")(x)
            x = nn.relu(_norm(x, train, self.precision, "stem_norm"))
            x = max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        else:
            x = _conv(width, 3, 1, self.precision, "stem_conv")(x)
            x = nn.relu(_norm(x, train, self.precision, "stem_norm"))
        x = touch(tap, "stem", constrain_batch(x))
        out = {"stem": x}

        strides = [
            2 if stage > 0 and i == 0 else 1
            for stage, blocks in enumerate(STAGES[self.depth])
            for i in range(blocks)
        ]
        block_type = rematerialise(ResidualBlock, self.remat, static=(2,))
        stage = 0
        for i, stride in enumerate(strides):
            stage += stride == 2
            site = f"block{i:02d}"
            block = block_type(
                width * 2**stage,
                stride,
                self.depth >= 50,
                self.zero_init_residual,
                self.precision,
                name=site,
            )
            x = out[site] = touch(tap, site, constrain_batch(block(x, train)))

        x, out = spatial_sites(x, out, tap)
        pooled = x.mean(axis=(1, 2), dtype=jnp.float32).astype(self.precision.output)
        pooled = out["pooled"] = touch(tap, "pooled", pooled)
        return classify(pooled, out, tap, self.num_classes, self.head_zero_init, self.precision)
