"""ResNet v2: BatchNorm and ReLU before convolutions, 10 to 152 layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax

from vision.config.ranges import NonNegative, checked
from vision.models.anti_alias import halve
from vision.models.conv_layers import WidthMultiplier, batch_norm, conv
from vision.models.convolution import max_pool
from vision.models.layers import (
    Remat,
    check_images,
    classify,
    pooled_map,
    rematerialise,
    spatial_sites,
)
from vision.models.resnet import BASIC, STAGES, Downsample
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above

Depth = Literal[10, 14, 18, 26, 34, 50, 101, 152]
Stem = Literal["imagenet", "deep"]


class NormFirstBlock(nn.Module):
    """x + branch(relu(norm(x))): two 3x3 convolutions, or 1x1, 3x3, 1x1, each after norm and ReLU.

    With ``project`` the shortcut is a convolution of the same relu(norm(x)).

    Attributes:
      channels: of the 3x3 convolutions; a bottleneck gives four times as many.
      stride: of the first 3x3 convolution.
      bottleneck: three convolutions instead of two.
      project: whether the shortcut is a convolution.
      average: it sees the mean of 2x2 windows instead of having a stride.
      precision: number formats.
    """

    channels: int
    stride: int
    bottleneck: bool
    project: bool
    average: bool
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
            y = nn.relu(batch_norm(y, train, self.precision, f"norm{i}"))
            if i == 1 and self.project:
                x, step = (halve(y), 1) if self.average and self.stride > 1 else (y, self.stride)
                shortcut = conv(
                    convs[-1][0], 1, step, precision=self.precision, name="downsample_conv"
                )
                x = shortcut(x)
            y = conv(channels, kernel, stride, precision=self.precision, name=f"conv{i}")(y)
        return x + y


@checked
class ResNetV2(nn.Module):
    """ResNet v2 (He et al., Identity Mappings in Deep Residual Networks, 2016) with BatchNorm.

    The stride is in the 3x3 convolutions. ``BiT`` is the one with GroupNorm and standardised
    kernels. ``stem="deep", downsample="average"`` are timm's with a ``d``.

    Called with (B, h, w, C) floating-point images it returns ``(embedding, out)`` as documented in
    ``vision.train.tower``. Blocks count through all stages: ``block00`` to ``block15`` for 50
    layers. ``map`` is the last block's output after the final norm and ReLU, (B, h, w, C), and
    ``tokens`` the same with its positions flattened. ``pooled``, ``embedding`` and ``logits`` are
    of the output dtype, everything else is of the compute dtype.

    Attributes:
      depth: number of layers; 10 has one basic block in each stage, 14 and 26 have one and two
        bottlenecks.
      num_classes: classes of the head; None and 0 both mean no head.
      stem: ``imagenet``: 7x7 convolution of stride 2; ``deep``: three 3x3 convolutions, the first
        of stride 2; 3x3 max pooling of stride 2 follows both.
      width_multiplier: multiplies the channels of every layer, the embedding's too.
      downsample: how a shortcut halves the resolution: ``strided``: 1x1 convolution of stride 2;
        ``average``: mean of 2x2 windows before it.
      remat: what a block keeps for the backward pass: ``none`` keeps all, ``full`` only its
        input, ``dots`` also the results of convolutions.
      precision: number formats of parameters, computation and outputs. Statistics are float32.
      head_zero_init: head's kernel starts at zero, otherwise normal with deviation 0.01.
    """

    depth: Depth = 50
    num_classes: NonNegative[int] | None = None
    stem: Stem = "imagenet"
    width_multiplier: WidthMultiplier = 1.0
    downsample: Downsample = "strided"
    remat: Remat = "none"
    precision: Precision = Precision()
    head_zero_init: bool = True

    def __post_init__(self) -> None:
        if self.stem == "deep" and 64 * self.width_multiplier % 2:
            raise ValueError(
                f"width_multiplier={self.width_multiplier} gives stem='deep' an odd number of "
                "channels, but its first two convolutions have half as many"
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
        if self.stem == "deep":
            for i, (channels, stride) in enumerate(((width // 2, 2), (width // 2, 1)), 1):
                layer = conv(channels, 3, stride, precision=self.precision, name=f"stem_conv{i}")
                x = nn.relu(batch_norm(layer(x), train, self.precision, f"stem_norm{i}"))
            x = conv(width, 3, precision=self.precision, name="stem_conv3")(x)
        else:
            x = conv(width, 7, 2, precision=self.precision, name="stem_conv")(x)
        x = max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        x = apply_tap(tap, "stem", constrain_batch(x))
        out = {"stem": x}

        bottleneck = self.depth not in BASIC
        block_type = rematerialise(NormFirstBlock, self.remat, static=(2,))
        i = 0
        for stage, blocks in enumerate(STAGES[self.depth]):
            for j in range(blocks):
                site = f"block{i:02d}"
                block = block_type(
                    width * 2**stage,
                    2 if stage > 0 and j == 0 else 1,
                    bottleneck,
                    j == 0 and (bottleneck or stage > 0),
                    self.downsample == "average",
                    self.precision,
                    name=site,
                )
                x = out[site] = apply_tap(tap, site, constrain_batch(block(x, train)))
                i += 1

        x = nn.relu(batch_norm(x, train, self.precision, "norm"))
        x, out = spatial_sites(x, out, tap)
        pooled = out["pooled"] = pooled_map(x, tap, self.precision)
        return classify(pooled, out, tap, self.num_classes, self.head_zero_init, self.precision)
