"""MobileNetV1, V2 and V3, of any width and depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import flax.linen as nn
import jax

from vision.config.ranges import NonEmpty, NonNegative, Positive, Rate, checked
from vision.models.inverted_residual import (
    BlockPlan,
    MobilePlan,
    Padding,
    Row,
    divisible,
    plan_blocks,
    run_mobile,
)
from vision.models.layers import Remat
from vision.train.precision import Precision
from vision.train.tower import Tap, chain_layers_above

Size = Literal["large", "small"]

# Howard et al. 2017, table 1: channels and stride.
V1_LAYERS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)
# Sandler et al. 2018, table 2.
V2_STAGES = (
    (Row(1, 3, 1, 1, 16, False, "relu6", "separable"),),
    (Row(2, 3, 2, 6, 24, False, "relu6"),),
    (Row(3, 3, 2, 6, 32, False, "relu6"),),
    (Row(4, 3, 2, 6, 64, False, "relu6"),),
    (Row(3, 3, 1, 6, 96, False, "relu6"),),
    (Row(3, 3, 2, 6, 160, False, "relu6"),),
    (Row(1, 3, 1, 6, 320, False, "relu6"),),
)
# Howard et al. 2019, tables 1 and 2. An expansion is the table's hidden size over its input, so
# that a narrower network has it too. The last line is the 1x1 convolution before pooling.
V3_STAGES: Mapping[Size, tuple[tuple[Row, ...], ...]] = {
    "large": (
        (Row(1, 3, 1, 1, 16, False, "relu", "separable"),),
        (Row(1, 3, 2, 4, 24, False, "relu"), Row(1, 3, 1, 3, 24, False, "relu")),
        (Row(3, 5, 2, 3, 40, True, "relu"),),
        (
            Row(1, 3, 2, 6, 80, False, "hard_swish"),
            Row(1, 3, 1, 2.5, 80, False, "hard_swish"),
            Row(2, 3, 1, 2.3, 80, False, "hard_swish"),
        ),
        (Row(2, 3, 1, 6, 112, True, "hard_swish"),),
        (Row(3, 5, 2, 6, 160, True, "hard_swish"),),
        (Row(1, 1, 1, 1, 960, False, "hard_swish", "pointwise"),),
    ),
    "small": (
        (Row(1, 3, 2, 1, 16, True, "relu", "separable"),),
        (Row(1, 3, 2, 4.5, 24, False, "relu"), Row(1, 3, 1, 3.67, 24, False, "relu")),
        (Row(1, 5, 2, 4, 40, True, "hard_swish"), Row(2, 5, 1, 6, 40, True, "hard_swish")),
        (Row(2, 5, 1, 3, 48, True, "hard_swish"),),
        (Row(3, 5, 2, 6, 96, True, "hard_swish"),),
        (Row(1, 1, 1, 1, 576, False, "hard_swish", "pointwise"),),
    ),
}


@checked
class MobileNetV1(nn.Module):
    """MobileNetV1 (Howard et al., 2017).

    Called with (B, h, w, C) floating-point images it returns ``(embedding, out)`` as documented in
    ``vision.train.tower``. ``block00`` to ``block12`` are the depthwise separable layers; ``map``
    is the last one's, ``tokens`` the same with its positions flattened. ``embedding`` is ``pooled``
    after dropout. ``pooled``, ``embedding`` and ``logits`` are of the output dtype, everything else
    is of the compute dtype.

    Attributes:
      width_multiplier: of the channels of every layer, which are rounded to multiples of 8.
      layers: channels and stride of each depthwise separable layer.
      stride: of the first convolution; 1 for small images.
      activation: after every convolution; ReLU6 as in the authors' code and in timm's.
      num_classes: classes of the head; None and 0 both mean no head.
      dropout: of the embedding.
      padding: ``symmetric`` as in weights trained with PyTorch, ``same`` with TensorFlow.
      norm_epsilon: of BatchNorm; 1e-3 for weights trained with TensorFlow.
      remat: what a layer keeps for the backward pass: ``none`` keeps all, ``full`` only its
        input, ``dots`` also the results of convolutions.
      precision: number formats of parameters, computation and outputs. Statistics are float32.
      head_zero_init: head's kernel starts at zero, otherwise normal with deviation 0.01.
    """

    width_multiplier: Positive[float] = 1.0
    layers: NonEmpty[tuple[tuple[Positive[int], Positive[int]], ...]] = V1_LAYERS
    stride: Literal[1, 2] = 2
    activation: Literal["relu", "relu6"] = "relu6"
    num_classes: NonNegative[int] | None = None
    dropout: Rate = 0.0
    padding: Padding = "symmetric"
    norm_epsilon: Positive[float] = 1e-5
    remat: Remat = "none"
    precision: Precision = Precision()
    head_zero_init: bool = True

    @nn.nowrap
    def resolved(self) -> MobilePlan:
        """The sizes that the fields amount to; a stage begins where there is a stride."""
        stem = width = divisible(32 * self.width_multiplier)
        blocks, stage = [], 0
        for i, (channels, stride) in enumerate(self.layers):
            stage += i > 0 and stride > 1
            after = divisible(channels * self.width_multiplier)
            blocks.append(BlockPlan(stage, "plain", after, width, 0, 3, stride, self.activation))
            width = after
        return MobilePlan(stem, tuple(blocks), None, self.activation, stem_stride=self.stride)

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        return chain_layers_above(path[0], len(self.layers), ("stem_",))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        return run_mobile(self, self.resolved(), x, train, tap)


@checked
class MobileNetV2(nn.Module):
    """MobileNetV2 (Sandler et al., 2018).

    Called with (B, h, w, C) floating-point images it returns ``(embedding, out)`` as documented in
    ``vision.train.tower``. Blocks count through all stages: ``block00`` to ``block16`` at a
    depth of 1. ``map`` is what is pooled: the result of the last 1x1 convolution, after BatchNorm
    and ReLU6; ``tokens`` is the same with its positions flattened. ``embedding`` is ``pooled``
    after dropout. ``pooled``, ``embedding`` and ``logits`` are of the output dtype, everything
    else is of the compute dtype.

    Attributes:
      width_multiplier: of the channels of every layer, which are rounded to multiples of 8.
      depth_multiplier: of the blocks of every stage, rounded up.
      head_width: channels of the last convolution; None: 1280, times a width multiplier above 1.
      num_classes: classes of the head; None and 0 both mean no head.
      dropout: of the embedding.
      drop_path: stochastic depth of the last block; the rate rises linearly from 0 at the first.
      padding: ``symmetric`` as in weights trained with PyTorch, ``same`` with TensorFlow.
      norm_epsilon: of BatchNorm; 1e-3 for weights trained with TensorFlow.
      remat: what a block keeps for the backward pass: ``none`` keeps all, ``full`` only its
        input, ``dots`` also the results of convolutions.
      precision: number formats of parameters, computation and outputs. Statistics are float32.
      head_zero_init: head's kernel starts at zero, otherwise normal with deviation 0.01.
    """

    width_multiplier: Positive[float] = 1.0
    depth_multiplier: Positive[float] = 1.0
    head_width: Positive[int] | None = None
    num_classes: NonNegative[int] | None = None
    dropout: Rate = 0.0
    drop_path: Rate = 0.0
    padding: Padding = "symmetric"
    norm_epsilon: Positive[float] = 1e-5
    remat: Remat = "none"
    precision: Precision = Precision()
    head_zero_init: bool = True

    @nn.nowrap
    def resolved(self) -> MobilePlan:
        """The sizes that the fields amount to."""
        width = self.width_multiplier
        depths = [self.depth_multiplier] * len(V2_STAGES)
        stem, head = divisible(32 * width), max(1280, divisible(1280 * width))
        blocks = plan_blocks(V2_STAGES, stem, width, depths, lambda hidden, expansion: 0)
        return MobilePlan(stem, blocks, self.head_width or head, "relu6")

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        return chain_layers_above(path[0], len(self.resolved().blocks), ("stem_",))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        return run_mobile(self, self.resolved(), x, train, tap)


@checked
class MobileNetV3(nn.Module):
    """MobileNetV3 (Howard et al., 2019).

    Called with (B, h, w, C) floating-point images it returns ``(embedding, out)`` as documented in
    ``vision.train.tower``. Blocks count through all stages, the 1x1 convolution before pooling
    being the last one: ``block00`` to ``block15`` for large, to ``block11`` for small. ``map`` is
    its result, and ``tokens`` the same with its positions flattened. ``embedding`` is a dense
    layer of ``pooled``, after hard swish and dropout. ``pooled``, ``embedding`` and ``logits`` are
    of the output dtype, everything else is of the compute dtype.

    Attributes:
      size: ``large`` or ``small``.
      width_multiplier: of the channels of every block, which are rounded to multiples of 8, and,
        from 0.75 on, of the stem's 16.
      depth_multiplier: of the blocks of every stage, rounded up.
      head_width: width of the dense layer; None: 1280 for large, 1024 for small.
      num_classes: classes of the head; None and 0 both mean no head.
      dropout: of the embedding.
      drop_path: stochastic depth of the last block; the rate rises linearly from 0 at the first.
      padding: ``symmetric`` as in weights trained with PyTorch, ``same`` with TensorFlow.
      norm_epsilon: of BatchNorm; 1e-3 for weights trained with TensorFlow.
      remat: what a block keeps for the backward pass: ``none`` keeps all, ``full`` only its
        input, ``dots`` also the results of convolutions.
      precision: number formats of parameters, computation and outputs. Statistics are float32.
      head_zero_init: head's kernel starts at zero, otherwise normal with deviation 0.01.
    """

    size: Size = "large"
    width_multiplier: Positive[float] = 1.0
    depth_multiplier: Positive[float] = 1.0
    head_width: Positive[int] | None = None
    num_classes: NonNegative[int] | None = None
    dropout: Rate = 0.0
    drop_path: Rate = 0.0
    padding: Padding = "symmetric"
    norm_epsilon: Positive[float] = 1e-5
    remat: Remat = "none"
    precision: Precision = Precision()
    head_zero_init: bool = True

    @nn.nowrap
    def resolved(self) -> MobilePlan:
        """The sizes that the fields amount to."""
        width, stages = self.width_multiplier, V3_STAGES[self.size]
        stem = 16 if width < 0.75 else divisible(16 * width)
        depths = [self.depth_multiplier] * len(stages)
        blocks = plan_blocks(
            stages, stem, width, depths, lambda hidden, expansion: divisible(0.25 * hidden)
        )
        head = self.head_width or {"large": 1280, "small": 1024}[self.size]
        return MobilePlan(
            stem,
            blocks,
            head,
            "hard_swish",
            pooled_head=True,
            squeeze_activation="relu",
            hard_gate=True,
        )

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        return chain_layers_above(path[0], len(self.resolved().blocks), ("stem_",))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        return run_mobile(self, self.resolved(), x, train, tap)
