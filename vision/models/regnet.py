"""RegNetX and RegNetY of any depths and widths."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax

from vision.config.ranges import NonEmpty, NonNegative, Positive, Rate, checked
from vision.models.conv_layers import batch_norm, conv
from vision.models.inverted_residual import SqueezeExcite
from vision.models.layers import (
    Remat,
    block_keys,
    check_images,
    classify,
    drop_path,
    drop_path_rates,
    pooled_map,
    rematerialise,
    spatial_sites,
)
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above


class RegNetBlock(nn.Module):
    """relu(x + branch(x)): 1x1, grouped 3x3 with the stride, squeeze-and-excitation, 1x1.

    Attributes:
      channels: of all convolutions.
      stride: of the 3x3 convolution.
      groups: of the 3x3 convolution.
      squeezed: channels between the two layers of squeeze-and-excitation; 0 for none.
      precision: number formats.
    """

    channels: int
    stride: int
    groups: int
    squeezed: int
    precision: Precision

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, key: jax.Array | None, rate: jax.Array | None
    ) -> jax.Array:
        y = x
        for i, (kernel, stride, groups) in enumerate(
            ((1, 1, 1), (3, self.stride, self.groups), (1, 1, 1)), 1
        ):
            name = f"conv{i}"
            layer = conv(self.channels, kernel, stride, groups, precision=self.precision, name=name)
            y = batch_norm(layer(y), train, self.precision, f"norm{i}")
            y = nn.relu(y) if i < 3 else y
            if i == 2 and self.squeezed:
                y = SqueezeExcite(self.squeezed, "relu", False, self.precision, name="se")(y)
        if x.shape != y.shape:
            layer = conv(
                self.channels, 1, self.stride, precision=self.precision, name="downsample_conv"
            )
            x = batch_norm(layer(x), train, self.precision, "downsample_norm")
        return nn.relu(x + drop_path(y, key, rate))


@checked
class RegNet(nn.Module):
    """RegNetX and, with squeeze-and-excitation, RegNetY (Radosavovic et al., Designing Network
    Design Spaces, 2020), whose bottlenecks do not narrow.

    RegNetY-4GF is ``depths=(2, 6, 12, 2), widths=(128, 192, 512, 1088), group_width=64``.

    Called with (B, h, w, C) floating-point images it returns ``(embedding, out)`` as documented in
    ``vision.train.tower``. Blocks count through all stages. ``map`` is the last block's output, (B,
    h, w, C), and ``tokens`` the same with its positions flattened. ``pooled``, ``embedding`` and
    ``logits`` are of the output dtype, everything else is of the compute dtype.

    Attributes:
      depths: blocks of each stage.
      widths: channels of each stage, as many as depths, each a multiple of its group's.
      group_width: channels of each group of the 3x3 convolutions; all of a stage that has fewer.
      squeeze: channels of squeeze-and-excitation, relative to the block's input; 0 for RegNetX.
      stem_width: channels of the stem, a 3x3 convolution of stride 2.
      num_classes: classes of the head; None and 0 both mean no head.
      drop_path: stochastic depth of the last block; the rate rises linearly from 0 at the first.
      remat: what a block keeps for the backward pass: ``none`` keeps all, ``full`` only its
        input, ``dots`` also the results of convolutions.
      precision: number formats of parameters, computation and outputs. Statistics are float32.
      head_zero_init: head's kernel starts at zero, otherwise normal with deviation 0.01.
    """

    depths: NonEmpty[tuple[Positive[int], ...]]
    widths: NonEmpty[tuple[Positive[int], ...]]
    group_width: Positive[int]
    squeeze: Rate = 0.25
    stem_width: Positive[int] = 32
    num_classes: NonNegative[int] | None = None
    drop_path: Rate = 0.0
    remat: Remat = "none"
    precision: Precision = Precision()
    head_zero_init: bool = True

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.widths):
            raise ValueError(f"depths={self.depths} and widths={self.widths} are not of one length")
        for width in self.widths:
            if width % min(self.group_width, width):
                raise ValueError(
                    f"widths has {width}, which is no multiple of group_width={self.group_width}"
                )
        super().__post_init__()

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        return chain_layers_above(path[0], sum(self.depths), ("stem_",))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        total = sum(self.depths)
        keys = block_keys(self, self.drop_path, total, train)
        rates = drop_path_rates(self.drop_path, total)
        x = conv(self.stem_width, 3, 2, precision=self.precision, name="stem_conv")(x)
        x = nn.relu(batch_norm(x, train, self.precision, "stem_norm"))
        x = apply_tap(tap, "stem", constrain_batch(x))
        out = {"stem": x}
        block_type = rematerialise(RegNetBlock, self.remat, static=(2,))
        i = 0
        for depth, width in zip(self.depths, self.widths, strict=True):
            for j in range(depth):
                site = f"block{i:02d}"
                block = block_type(
                    width,
                    2 if j == 0 else 1,
                    width // min(self.group_width, width),
                    round(x.shape[-1] * self.squeeze),
                    self.precision,
                    name=site,
                )
                x = block(x, train, keys[i], rates[i])
                x = out[site] = apply_tap(tap, site, constrain_batch(x))
                i += 1
        x, out = spatial_sites(x, out, tap)
        pooled = out["pooled"] = pooled_map(x, tap, self.precision)
        return classify(pooled, out, tap, self.num_classes, self.head_zero_init, self.precision)
