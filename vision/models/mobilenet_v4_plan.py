"""The published MobileNetV4s: blocks of every stage, and the sizes of a block."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple

from vision.models.inverted_residual import Activation


class Row(NamedTuple):
    """Equal blocks of a stage; only the first block of a stage has its stride.

    Attributes:
      channels: of the result.
      kind: see ``BlockPlan``.
      expansion: hidden channels over those of the input.
      start, middle: see ``BlockPlan``; of the other kinds ``middle`` is the only kernel.
      repeats: number of blocks.
      heads, key_width, kv_stride: of attention.
    """

    channels: int
    kind: Literal["universal", "fused", "plain", "attention"] = "universal"
    expansion: float = 4.0
    start: int = 0
    middle: int = 0
    repeats: int = 1
    heads: int = 0
    key_width: int = 0
    kv_stride: int = 1


def _extra(channels: int, start: int, middle: int, expansion: float = 4, repeats: int = 1) -> Row:
    return Row(channels, "universal", expansion, start, middle, repeats)


def _convnext(channels: int, start: int, expansion: float = 4, repeats: int = 1) -> Row:
    return Row(channels, "universal", expansion, start, 0, repeats)


def _ffn(channels: int, expansion: float, repeats: int = 1) -> Row:
    return Row(channels, "universal", expansion, 0, 0, repeats)


def _plain(channels: int, kernel: int) -> Row:
    return Row(channels, "plain", middle=kernel)


def _attention(channels: int, heads: int, key_width: int, kv_stride: int = 1) -> Row:
    return Row(channels, "attention", 1, 0, 3, 1, heads, key_width, kv_stride)


_FUSED = (Row(48, "fused", 4, 0, 3),)
_LAST = (_plain(960, 1),)
_STEM_LARGE = (_extra(96, 3, 5), _extra(96, 3, 3))
_STAGE_LARGE = (
    *(_extra(512, 5, 5, 4, 4), _convnext(512, 5), _extra(512, 5, 3), _convnext(512, 5, 4, 2)),
    *(_extra(512, 5, 3), _extra(512, 5, 5)),
)
# Qin et al. 2024, tables of the appendix.
STAGES: Mapping[str, tuple[tuple[Row, ...], ...]] = {
    "conv_small": (
        (_plain(32, 3), _plain(32, 1)),
        (_plain(96, 3), _plain(64, 1)),
        (_extra(96, 5, 5, 3), _extra(96, 0, 3, 2, 4), _convnext(96, 3)),
        (
            *(_extra(128, 3, 3, 6), _extra(128, 5, 5), _extra(128, 0, 5), _extra(128, 0, 5, 3)),
            _extra(128, 0, 3, 4, 2),
        ),
        _LAST,
    ),
    "conv_medium": (
        _FUSED,
        (_extra(80, 3, 5), _extra(80, 3, 3, 2)),
        (
            *(_extra(160, 3, 5, 6), _extra(160, 3, 3, 4, 2), _extra(160, 3, 5), _extra(160, 3, 3)),
            *(_convnext(160, 3), _ffn(160, 2), _convnext(160, 3)),
        ),
        (
            *(_extra(256, 5, 5, 6), _extra(256, 5, 5), _extra(256, 3, 5, 4, 2), _ffn(256, 4)),
            *(_convnext(256, 3), _extra(256, 3, 5, 2), _extra(256, 5, 5), _ffn(256, 4, 2)),
            _convnext(256, 5, 2),
        ),
        _LAST,
    ),
    "conv_large": (
        _FUSED,
        _STEM_LARGE,
        (
            *(_extra(192, 3, 5), _extra(192, 3, 3, 4, 3), _extra(192, 3, 5)),
            *(_extra(192, 5, 3, 4, 5), _convnext(192, 3)),
        ),
        (*_STAGE_LARGE, _convnext(512, 5, 4, 3)),
        _LAST,
    ),
    "hybrid_medium": (
        _FUSED,
        (_extra(80, 3, 5), _extra(80, 3, 3, 2)),
        (
            *(_extra(160, 3, 5, 6), _ffn(160, 2), _extra(160, 3, 3), _extra(160, 3, 5)),
            *(_attention(160, 4, 64, 2), _extra(160, 3, 3)),
            *(_attention(160, 4, 64, 2), _convnext(160, 3)),
            *(_attention(160, 4, 64, 2), _extra(160, 3, 3)),
            *(_attention(160, 4, 64, 2), _convnext(160, 3)),
        ),
        (
            *(_extra(256, 5, 5, 6), _extra(256, 5, 5), _extra(256, 3, 5, 4, 2), _ffn(256, 2)),
            *(_extra(256, 3, 5, 2), _ffn(256, 2), _ffn(256, 4)),
            *(_attention(256, 4, 64), _convnext(256, 3), _attention(256, 4, 64)),
            *(_extra(256, 5, 5), _attention(256, 4, 64), _convnext(256, 5)),
            *(_attention(256, 4, 64), _convnext(256, 5)),
        ),
        _LAST,
    ),
    "hybrid_large": (
        _FUSED,
        _STEM_LARGE,
        (
            *(_extra(192, 3, 5), _extra(192, 3, 3, 4, 3), _extra(192, 3, 5)),
            _extra(192, 5, 3, 4, 2),
            *(_attention(192, 8, 48, 2), _extra(192, 5, 3)) * 3,
            *(_attention(192, 8, 48, 2), _convnext(192, 3)),
        ),
        (*_STAGE_LARGE, *(_attention(512, 8, 64), _convnext(512, 5)) * 4),
        _LAST,
    ),
}
STEMS = {"conv_small": 32, "conv_medium": 32, "hybrid_medium": 32}  # 24 of the large ones


@dataclasses.dataclass(frozen=True)
class BlockPlan:
    """Sizes of one block.

    Attributes:
      stage: of the network, from 0.
      kind: ``universal``: a depthwise convolution, 1x1 expansion, a depthwise convolution, 1x1
        projection, of which either depthwise one may be missing; ``fused``: a 3x3 expansion and a
        1x1 projection; ``plain``: one convolution; ``attention``.
      channels: of the result.
      hidden: channels after the expansion.
      start, middle: sides of the two depthwise kernels, 0 where there is none.
      stride: of the block.
      heads: of attention, which have one key and value in common.
      key_width: their channels.
      kv_stride: of the depthwise convolution before keys and values; 1 for none.
    """

    stage: int
    kind: Literal["universal", "fused", "plain", "attention"]
    channels: int
    hidden: int
    start: int
    middle: int
    stride: int
    heads: int
    key_width: int
    kv_stride: int


@dataclasses.dataclass(frozen=True)
class MobileV4Plan:
    """All sizes of a MobileNetV4.

    Attributes:
      stem: channels of the stem, a 3x3 convolution of stride 2.
      blocks: in order.
      activation: of all layers.
      layer_scale: whether universal and attention blocks have one.
    """

    stem: int
    blocks: tuple[BlockPlan, ...]
    activation: Activation
    layer_scale: bool
