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
ImageNet, and fine-grained sets more than one with 25 % fewer. Which layers those are we have from
the counts: of the repeated layers one of 96 channels and one of 160 are 12.5 % of the parameters
and 12.7 of the products, two of each twice that. Differences from the authors' code: BatchNorm's
running statistics move by a tenth in a step, there by nine tenths (torch's momentum=0.9); all
groups are one convolution in groups instead of modules in a row. The towers of the paper are not in
their code: here are ``vision.models.mobilenet.MobileNetV1`` and ``MobileNetV2`` with attention in
the place of, or after, any of their layers.

On a CPU a step of ``small`` takes 9.4 times as long as that of a ResNet-10 of equal arithmetic
(``bench.methods ulsam``), and without attention 8.1 times (``bench.methods
ulsam:small,rival=plain``): what is slow there are the depthwise convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax

from papers.ulsam.attention import SubspaceAttention
from vision.config.ranges import NonNegative, Positive, Unique, checked
from vision.models import mobilenet
from vision.models.inverted_residual import Around, MobilePlan, run_mobile
from vision.train.precision import Precision
from vision.train.tower import Tap

Place = Literal["replaces", "after"]


@checked
class MobileNetV1(mobilenet.MobileNetV1):
    """``vision.models.mobilenet.MobileNetV1``; ``blockNN/attention`` (B, h, w, groups) are maps.

    Attributes:
      attention: numbers of layers, from 0, that have subspace attention.
      groups: of channels, each with its map.
      place: attention ``replaces`` its layer, which then has stride 1 and keeps the channels, or
        comes ``after`` it.
    """

    attention: Unique[tuple[NonNegative[int], ...]] = ()
    groups: Positive[int] = 4
    place: Place = "replaces"

    def __post_init__(self) -> None:
        check_layers(self.resolved(), self.attention, self.place)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        around = attended(self.attention, self.groups, self.place, self.precision, train, tap)
        return run_mobile(self, self.resolved(), x, train, tap, around)


@checked
class MobileNetV2(mobilenet.MobileNetV2):
    """``vision.models.mobilenet.MobileNetV2``; ``blockNN/attention`` (B, h, w, groups) are maps.

    Attributes:
      attention, groups, place: as in ``MobileNetV1``.
    """

    attention: Unique[tuple[NonNegative[int], ...]] = ()
    groups: Positive[int] = 4
    place: Place = "replaces"

    def __post_init__(self) -> None:
        check_layers(self.resolved(), self.attention, self.place)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        around = attended(self.attention, self.groups, self.place, self.precision, train, tap)
        return run_mobile(self, self.resolved(), x, train, tap, around)


def check_layers(plan: MobilePlan, attention: tuple[int, ...], place: Place) -> None:
    """Raises ValueError where attention cannot stand in the place of a layer, or there is none."""
    channels = [plan.stem, *(block.channels for block in plan.blocks)]
    for i in attention:
        if i >= len(plan.blocks):
            raise ValueError(f"attention={i}, but there are {len(plan.blocks)} layers, from 0")
        stride = plan.blocks[i].stride
        if place == "replaces" and (channels[i + 1], stride) != (channels[i], 1):
            raise ValueError(
                f"attention={i}: layer {i} makes {channels[i + 1]} channels of {channels[i]} with "
                f"stride {stride}, which attention cannot replace"
            )


def attended(
    attention: tuple[int, ...],
    groups: int,
    place: Place,
    precision: Precision,
    train: bool,
    tap: Tap | None,
) -> Around:
    """What ``run_mobile`` calls layers by: those of ``attention`` are replaced or followed."""

    def around(
        i: int, layer: Callable[[jax.Array], jax.Array], x: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        if i not in attention:
            return layer(x), {}
        if place == "after":
            x = layer(x)
        site = f"block{i:02d}/attention"
        module = SubspaceAttention(groups, precision, tap, site, name=f"block{i:02d}_attention")
        x, maps = module(x, train)
        return x, {site: maps}

    return around
