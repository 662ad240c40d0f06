"""EfficientNet, B0 to B7 and free sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Protocol

import flax.linen as nn
import jax

from vision.config.ranges import NonNegative, Positive, Rate, checked, one_of
from vision.models.inverted_residual import (
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

# name: width multiplier, depth multiplier. The paper trains them at images of 224, 240, 260, 300,
# 380, 456, 528 and 600 px.
VARIANTS: Mapping[str, tuple[float, float]] = {
    "B0": (1.0, 1.0),
    "B1": (1.0, 1.1),
    "B2": (1.1, 1.2),
    "B3": (1.2, 1.4),
    "B4": (1.4, 1.8),
    "B5": (1.6, 2.2),
    "B6": (1.8, 2.6),
    "B7": (2.0, 3.1),
}
# Tan and Le 2019, table 1.
STAGES = (
    (Row(1, 3, 1, 1, 16, True, "silu", "separable"),),
    (Row(2, 3, 2, 6, 24, True, "silu"),),
    (Row(2, 5, 2, 6, 40, True, "silu"),),
    (Row(3, 3, 2, 6, 80, True, "silu"),),
    (Row(3, 5, 1, 6, 112, True, "silu"),),
    (Row(4, 5, 2, 6, 192, True, "silu"),),
    (Row(1, 3, 1, 6, 320, True, "silu"),),
)


class Scaled(Protocol):
    """What has a size by name, or by its multipliers; see ``EfficientNet``."""

    variant: str | None
    width_multiplier: float | None
    depth_multiplier: float | None


def multipliers(
    network: Scaled, variants: Mapping[str, tuple[float, float]]
) -> tuple[float, float]:
    """Those of the width and of the depth: the network's own before its variant's.

    Raises:
      ValueError: neither says what one of them is.
    """
    width, depth = network.width_multiplier, network.depth_multiplier
    if network.variant is not None:
        of_variant = variants[network.variant]
        width = of_variant[0] if width is None else width
        depth = of_variant[1] if depth is None else depth
    if width is None or depth is None:
        raise ValueError(
            f"{type(network).__name__} without a variant needs width_multiplier and "
            f"depth_multiplier; or set variant to one of {', '.join(variants)}"
        )
    return width, depth


@checked
class EfficientNet(nn.Module):
    """EfficientNet (Tan and Le, EfficientNet: Rethinking Model Scaling for CNNs, 2019).

    Called with (B, h, w, C) floating-point images it returns ``(embedding, out)`` as documented in
    ``vision.train.tower``. Blocks count through all stages: ``block00`` to ``block15`` for B0.
    ``map`` is what is pooled: the result of the last 1x1 convolution, after BatchNorm and SiLU;
    ``tokens`` is the same with its positions flattened. ``embedding`` is ``pooled`` after dropout.
    ``pooled``, ``embedding`` and ``logits`` are of the output dtype, everything else is of the
    compute dtype.

    Attributes:
      variant: sizes, one of ``VARIANTS``.
      width_multiplier: of the channels of every layer, which are rounded to multiples of 8;
        overrides the variant, or stands without one.
      depth_multiplier: of the blocks of every stage, rounded up; likewise.
      head_width: channels of the last convolution; None: 1280 times the width multiplier.
      num_classes: classes of the head; None and 0 both mean no head.
      dropout: of the embedding; the paper's is 0.2 for B0, 0.5 for B7.
      drop_path: stochastic depth of the last block; the rate rises linearly from 0 at the first.
      padding: ``symmetric`` as in weights trained with PyTorch, ``same`` with TensorFlow.
      norm_epsilon: of BatchNorm; 1e-3 for weights trained with TensorFlow.
      remat: what a block keeps for the backward pass: ``none`` keeps all, ``full`` only its
        input, ``dots`` also the results of convolutions.
      precision: number formats of parameters, computation and outputs. Statistics are float32.
      head_zero_init: head's kernel starts at zero, otherwise normal with deviation 0.01.
    """

    variant: Annotated[str, one_of(VARIANTS)] | None = None
    width_multiplier: Positive[float] | None = None
    depth_multiplier: Positive[float] | None = None
    head_width: Positive[int] | None = None
    num_classes: NonNegative[int] | None = None
    dropout: Rate = 0.0
    drop_path: Rate = 0.0
    padding: Padding = "symmetric"
    norm_epsilon: Positive[float] = 1e-5
    remat: Remat = "none"
    precision: Precision = Precision()
    head_zero_init: bool = True

    def __post_init__(self) -> None:
        self.resolved()
        super().__post_init__()

    @nn.nowrap
    def resolved(self) -> MobilePlan:
        """The sizes that the variant and the fields amount to."""
        width, depth = multipliers(self, VARIANTS)
        stem = divisible(32 * width)
        # A quarter of the channels before the expansion.
        blocks = plan_blocks(
            STAGES,
            stem,
            width,
            [depth] * len(STAGES),
            lambda hidden, expansion: round(hidden * (0.25 / expansion)),
        )
        return MobilePlan(stem, blocks, self.head_width or divisible(1280 * width), "silu")

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        return chain_layers_above(path[0], len(self.resolved().blocks), ("stem_",))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        return run_mobile(self, self.resolved(), x, train, tap)
