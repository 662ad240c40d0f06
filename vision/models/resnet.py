"""ResNet v1.5 and v1d, wide ResNet, ResNeXt, SE-ResNet and anti-aliased ones, 10 to 269 layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import flax.linen as nn
import jax

from vision.config.ranges import NonNegative, Positive, checked
from vision.models.anti_alias import AntiAlias, halve, halve_as, pool_stem
from vision.models.conv_layers import WidthMultiplier, batch_norm, conv
from vision.models.inverted_residual import SqueezeExcite
from vision.models.layers import (
    Remat,
    check_images,
    classify,
    pooled_map,
    rematerialise,
    spatial_sites,
)
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above

Depth = Literal[10, 14, 18, 26, 34, 50, 101, 152, 200, 269]
Stem = Literal["imagenet", "cifar", "deep"]
Downsample = Literal["strided", "average"]

STAGES: Mapping[int, tuple[int, int, int, int]] = {
    10: (1, 1, 1, 1),
    14: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    26: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
    269: (3, 30, 48, 8),
}
BASIC = (10, 18, 34)  # depths with two 3x3 convolutions in a block; the others have bottlenecks


class ResidualBlock(nn.Module):
    """relu(x + branch(x)): two 3x3 convolutions, or 1x1, 3x3, 1x1 around a bottleneck.

    The stride is in the first 3x3 convolution. ``downsample`` projects ``x`` where its shape
    does not fit the branch: by a strided convolution or, with ``average``, by the mean of each
    2x2 window and a convolution. ``inner`` are the channels of the bottleneck and ``groups`` the
    groups of its 3x3 convolution.

    Attributes:
      channels: that it gives.
      stride: of the first 3x3 convolution.
      bottleneck: three convolutions instead of two.
      zero_init: scale of the branch's last norm starts at zero.
      precision: number formats.
      inner: channels of the bottleneck; None for ``channels``.
      groups: of the bottleneck's 3x3 convolution.
      average: projections see the mean of 2x2 windows.
      norm_rows: see ``BatchNorm.rows``.
      squeeze: the branch ends in squeeze-and-excitation to a sixteenth of its channels.
      anti_alias: how the first 3x3 convolution halves the resolution.
    """

    channels: int
    stride: int
    bottleneck: bool
    zero_init: bool
    precision: Precision
    inner: int | None = None
    groups: int = 1
    average: bool = False
    norm_rows: int | None = None
    squeeze: bool = False
    anti_alias: AntiAlias = "none"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.bottleneck:
            inner = self.inner or self.channels
            convs = [(inner, 1, 1, 1), (inner, 3, self.stride, self.groups)]
            convs.append((4 * self.channels, 1, 1, 1))
        else:
            convs = [(self.channels, 3, self.stride, 1), (self.channels, 3, 1, 1)]
        y = x
        for i, (channels, kernel, stride, groups) in enumerate(convs, 1):
            aliased = stride == 2 and self.anti_alias != "none"
            stride = 1 if aliased else stride
            layer = conv(
                channels, kernel, stride, groups, precision=self.precision, name=f"conv{i}"
            )
            last = i == len(convs)
            scale = nn.initializers.zeros if last and self.zero_init else nn.initializers.ones
            y = layer(y)
            y = batch_norm(y, train, self.precision, f"norm{i}", scale, rows=self.norm_rows)
            y = y if last else nn.relu(y)
            y = halve_as(self.anti_alias, y) if aliased else y
        if self.squeeze:
            squeezed = max(8, (y.shape[-1] // 16 + 4) // 8 * 8)
            y = SqueezeExcite(squeezed, "relu", False, self.precision, name="se")(y)
        if x.shape != y.shape:
            stride = self.stride
            if self.average and stride > 1:
                x, stride = halve(x), 1
            layer = conv(y.shape[-1], 1, stride, precision=self.precision, name="downsample_conv")
            x = layer(x)
            x = batch_norm(x, train, self.precision, "downsample_norm", rows=self.norm_rows)
        if x.shape != y.shape:
            raise ValueError(
                f"anti_alias={self.anti_alias!r} makes {y.shape[1:3]} of what the shortcut makes "
                f"{x.shape[1:3]} of: give it images whose sides are multiples of 32"
            )
        return nn.relu(x + y)


@checked
class ResNet(nn.Module):
    """ResNet (He et al., 2016) in its v1.5 form: the stride is in the 3x3 convolutions.

    ``stem="deep", downsample="average"`` is v1d (He et al., Bag of Tricks, 2019). ResNeXt-50 32x4d
    (Xie et al., 2017) is ``groups=32, group_width=4``; Wide ResNet-50-2 (Zagoruyko and Komodakis,
    2016) is ``group_width=128``. SE-ResNet (Hu et al., 2018) is ``squeeze=True``; with
    ``anti_alias`` convolutions of stride 2 halve the resolution after their ReLU instead.

    Called with (B, h, w, C) floating-point images it returns ``(embedding, out)`` as documented in
    ``vision.train.tower``. Blocks count through all stages: ``block00`` to ``block15`` for 50
    layers. ``tokens`` is the last block's output with its positions flattened, and ``map`` the
    same as (B, h, w, C). ``pooled``, ``embedding`` and ``logits`` are of the output dtype,
    everything else is of the compute dtype.

    With ``train`` the batch statistics are those of the whole batch: under ``jax.jit`` with a
    sharded batch, of the batch on all devices, which then exchange sums in every layer, forward
    and backward. With ``norm_rows`` they are those of so many rows at a time, as if each worker
    had normalised its own (Goyal et al., 2017): the same on every mesh, and nothing is exchanged
    for them where a device has whole groups of rows. The running variance is the biased one.

    Attributes:
      depth: number of layers. The papers do not have 10, of basic blocks, nor 14 and 26, of
        bottlenecks: one and two blocks in each stage; 200 and 269 are those of ResNet-D.
      num_classes: classes of the head; None and 0 both mean no head.
      stem: ``imagenet``: 7x7 convolution of stride 2, then 3x3 max pooling of stride 2;
        ``deep``: three 3x3 convolutions in place of the 7x7 one, the first of stride 2;
        ``cifar``: 3x3 convolution of stride 1, no pooling, for images of about 32 px.
      stem_widths: channels of the first two convolutions of ``deep``, or of all three; None: half
        of the third's each. ResNet-T has (24, 32), ResNet-S (64, 64, 128).
      downsample: how a shortcut halves the resolution: ``strided``: 1x1 convolution of stride 2,
        which reads a quarter of the positions; ``average``: mean of 2x2 windows before it.
      width_multiplier: multiplies the channels of every layer, the embedding's too.
      groups: of the 3x3 convolution of a bottleneck: the cardinality of ResNeXt.
      group_width: channels of each group in the first stage, before ``width_multiplier``.
      squeeze: squeeze-and-excitation at the end of every branch.
      anti_alias: how 3x3 convolutions of stride 2, and the pooling behind the stem, halve the
        resolution: ``none``: by their stride; ``average``: by means of 2x2 windows; ``blur``: by
        every second pixel of a blurred image.
      zero_init_residual: scale of every block's last BatchNorm starts at zero (Goyal et al.,
        2017).
      remat: what a block keeps for the backward pass: ``none`` keeps all, ``full`` only its
        input, ``dots`` also the results of convolutions.
      precision: number formats of parameters, computation and outputs. Statistics are float32.
      head_zero_init: head's kernel starts at zero, otherwise normal with deviation 0.01.
      norm_rows: consecutive rows of a training batch that are normalised together; None for all.
    """

    depth: Depth = 50
    num_classes: NonNegative[int] | None = None
    stem: Stem = "imagenet"
    width_multiplier: WidthMultiplier = 1.0
    downsample: Downsample = "strided"
    groups: Positive[int] = 1
    group_width: Positive[int] = 64
    stem_widths: tuple[Positive[int], ...] | None = None
    squeeze: bool = False
    anti_alias: AntiAlias = "none"
    zero_init_residual: bool = True
    remat: Remat = "none"
    precision: Precision = Precision()
    head_zero_init: bool = True
    norm_rows: Positive[int] | None = None

    def __post_init__(self) -> None:
        if self.stem_widths is not None and self.stem != "deep":
            raise ValueError(f"stem_widths={self.stem_widths}, but stem={self.stem!r} has one conv")
        if self.stem_widths is not None and len(self.stem_widths) not in (2, 3):
            raise ValueError(f"stem_widths={self.stem_widths} are not those of two convolutions")
        if self.depth in BASIC and len(self.stem_widths or ()) == 3:
            raise ValueError(f"stem_widths={self.stem_widths}, but depth={self.depth} has two")
        if self.stem == "deep" and not self.stem_widths and 64 * self.width_multiplier % 2:
            raise ValueError(
                f"width_multiplier={self.width_multiplier} gives stem='deep' an odd number of "
                "channels, but its first two convolutions have half as many"
            )
        if (self.groups, self.group_width) != (1, 64) and self.depth in BASIC:
            raise ValueError(
                f"groups={self.groups} and group_width={self.group_width} are of bottlenecks, "
                f"which depth={self.depth} does not have"
            )
        if not float(self.group_width * self.width_multiplier).is_integer():
            raise ValueError(
                f"group_width={self.group_width} times width_multiplier={self.width_multiplier} "
                "is not a whole number"
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
            widths = self.stem_widths or (width // 2, width // 2)
            first, second, third = (*widths, width)[:3]
            convs = [("1", first, 3, 2), ("2", second, 3, 1), ("3", third, 3, 1)]
        else:
            convs = [("", width, 7, 2) if self.stem == "imagenet" else ("", width, 3, 1)]
        for suffix, channels, kernel, stride in convs:
            name = f"stem_conv{suffix}"
            x = conv(channels, kernel, stride, precision=self.precision, name=name)(x)
            norm = f"stem_norm{suffix}"
            x = nn.relu(batch_norm(x, train, self.precision, norm, rows=self.norm_rows))
        if self.stem != "cifar":
            x = pool_stem(self.anti_alias, x)
        x = apply_tap(tap, "stem", constrain_batch(x))
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
                self.depth not in BASIC,
                self.zero_init_residual,
                self.precision,
                int(self.group_width * self.width_multiplier) * self.groups * 2**stage,
                self.groups,
                self.downsample == "average",
                self.norm_rows,
                self.squeeze,
                self.anti_alias,
                name=site,
            )
            x = out[site] = apply_tap(tap, site, constrain_batch(block(x, train)))

        x, out = spatial_sites(x, out, tap)
        pooled = out["pooled"] = pooled_map(x, tap, self.precision)
        return classify(pooled, out, tap, self.num_classes, self.head_zero_init, self.precision)
