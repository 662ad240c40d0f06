"""ULSAM: a map of attention for every group of channels, in place of layers of a MobileNet.

A feature map (B, h, w, C) is split along its channels into g groups. Each infers one map over the
positions from its own channels,

    A_i = softmax_positions(ReLU(BN(pointwise(maxpool3x3(ReLU(BN(depthwise1x1(x_i))))))))
    y_i = A_i x_i + x_i

and the groups are put together again. The two kernels have 2 C weights, whatever g is, where a
depthwise separable layer of as many channels has C (9 + C): in the place of one of the repeated
layers of 512 channels of MobileNet-V1 it saves 265,728 of 266,752 and nearly all arithmetic.

Saini et al., ULSAM: Ultra-Lightweight Subspace Attention Module for Compact Convolutional Neural
Networks, 2020. Headline: MobileNet-V2 with 13 % fewer FLOPs and parameters gains 0.27 points on
ImageNet. Differences from the authors' code: BatchNorm's running statistics move by a tenth in a
step, there by nine tenths (torch's momentum=0.9); all groups are one convolution in groups instead
of modules in a row. The towers of the paper are not in their code: here is MobileNet-V1, with
attention in the place of, or after, any of its layers.

Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications,
2017, is the tower without.

On a CPU a step of ``small`` takes 9.4 times as long as that of a ResNet-10 of equal arithmetic
(``bench.methods ulsam``), and without attention 8.1 times (``bench.methods
ulsam:small,rival=plain``): what is slow there are the depthwise convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax

from papers.ulsam.attention import SubspaceAttention
from vision.config.ranges import NonNegative, Positive, Rate, Unique, checked
from vision.models.conv_layers import batch_norm, conv
from vision.models.inverted_residual import divisible
from vision.models.layers import check_images, classify, dropout, pooled_map, spatial_sites
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above

# Channels and stride of the depthwise separable layers of MobileNet-V1.
LAYERS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)


@checked
class MobileNetV1(nn.Module):
    """See the module. Called with images (B, H, W, C), floating-point.

    ``block00`` to ``block12`` are the depthwise separable layers, or the attention in the place of
    one; ``blockNN/attention`` (B, h, w, groups) are its maps. ``map`` is the last one's.

    Attributes:
      width_multiplier: of the channels of every layer, rounded to multiples of 8.
      layers: (channels, stride) of the depthwise separable layers.
      stride: of the first convolution; 1 for small images.
      attention: numbers of layers, from 0, that have subspace attention.
      groups: of channels, each with its map.
      place: attention ``replaces`` its layer, which then has stride 1 and keeps the channels, or
        comes ``after`` it.
      num_classes: of the head; None for none.
      dropout: of the embedding.
      precision: number formats.
      head_zero_init: the head's kernel starts at zero.
    """

    width_multiplier: Positive[float] = 1.0
    layers: tuple[tuple[int, int], ...] = LAYERS
    stride: Literal[1, 2] = 2
    attention: Unique[tuple[NonNegative[int], ...]] = ()
    groups: Positive[int] = 4
    place: Literal["replaces", "after"] = "replaces"
    num_classes: NonNegative[int] | None = None
    dropout: Rate = 0.0
    precision: Precision = Precision()
    head_zero_init: bool = False

    def __post_init__(self) -> None:
        channels = [32, *(each for each, _ in self.layers)]
        for i in self.attention:
            if i >= len(self.layers):
                raise ValueError(f"attention={i}, but there are {len(self.layers)} layers, from 0")
            if self.place == "replaces" and (self.layers[i] != (channels[i], 1)):
                raise ValueError(
                    f"attention={i}: layer {i} makes {self.layers[i][0]} channels of {channels[i]} "
                    f"with stride {self.layers[i][1]}, which attention cannot replace"
                )
        super().__post_init__()

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        return chain_layers_above(path[0], len(self.layers), ("stem",))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        precision, out = self.precision, {}
        width = divisible(32 * self.width_multiplier)
        x = conv(width, 3, self.stride, precision=precision, name="stem")(x)
        x = nn.relu(batch_norm(x, train, precision, "stem_norm"))
        x = out["stem"] = apply_tap(tap, "stem", x)
        for i, (channels, stride) in enumerate(self.layers):
            site, attends = f"block{i:02d}", i in self.attention
            if not attends or self.place == "after":
                width = divisible(channels * self.width_multiplier)
                x = _Separable(width, stride, precision, name=site)(x, train)
            if attends:
                name = f"{site}/attention"
                attention = SubspaceAttention(
                    self.groups, precision, tap, name, name=f"{site}_attention"
                )
                x, out[name] = attention(x, train)
            x = out[site] = apply_tap(tap, site, x)
        x, out = spatial_sites(x, out, tap)
        pooled = out["pooled"] = pooled_map(x, tap, precision)
        key = self.make_rng("dropout") if train and self.dropout else None
        embedding = dropout(pooled, key, self.dropout)
        return classify(embedding, out, tap, self.num_classes, self.head_zero_init, precision)


class _Separable(nn.Module):
    """3 x 3 depthwise, then 1 x 1 convolution, each with BatchNorm and ReLU."""

    channels: int
    stride: int
    precision: Precision

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        precision, given = self.precision, x.shape[-1]
        x = conv(given, 3, self.stride, groups=given, precision=precision, name="depthwise")(x)
        x = nn.relu(batch_norm(x, train, precision, "depthwise_norm"))
        x = conv(self.channels, 1, precision=precision, name="pointwise")(x)
        return nn.relu(batch_norm(x, train, precision, "pointwise_norm"))
