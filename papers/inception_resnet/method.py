"""Inception-ResNet: Inception blocks that add to their input, scaled down.

A residual block concatenates its branches F_i, brings them to the width of its input by a 1 x 1
convolution P without BatchNorm or ReLU, and adds them:

    x <- ReLU(x + s P(concat_i F_i(x)))

With more than a thousand channels such networks die early in training, whatever the learning rate:
the layer before the average pooling gives zeros only. A scale s of 0.1 to 0.3 keeps them stable.
Pure Inception-v4 (``vision.models.inception``) is the counterpart of Inception-ResNet-v2
(``vision.models.inception_resnet``) at about equal cost. Here is v1, whose counterpart is
Inception-v3. Without shortcut, ``x <- ReLU(P(concat_i F_i(x)))``, both are the pure form of exactly
equal cost, with the same parameters.

Szegedy et al., Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning,
2016. Headline, one crop of ImageNet: top-1 error of 20.0 % (v4), 19.9 (Inception-ResNet-v2), 21.3
(v1) and 21.2 (v3); residual networks reach theirs in fewer epochs.

Differences from the authors' code (TensorFlow's slim, which has v2 and v4): v2 there is wider than
in the paper (stem of figure 1 of Inception-v3, ten, twenty and ten blocks, 1,088 and 2,080
channels, 40 convolutions in the last block that is not scaled and has no ReLU, and a last 1 x 1
convolution to 1,536) and so is ours, which takes its weights. v1 is not in their code and follows
figures 10 to 15, with slim's scales of 0.17, 0.1 and 0.2. Scales are fields; the paper says 0.1 to
0.3 and not which.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax

from papers.inception_resnet.plans import BLOCKS, REDUCTIONS, SMALL_STEM, STEM
from vision.config.ranges import NonNegative, Positive, Rate, checked
from vision.models.inception_layers import (
    Branches,
    Plan,
    check_channels,
    check_size,
    end_tower,
    stack,
)
from vision.models.inception_resnet import SCALES, residual_blocks
from vision.models.layers import Remat, check_images
from vision.train.precision import Precision
from vision.train.tower import Tap, chain_layers_above

SMALLEST_PX = 7  # with the stem of one convolution: reductions leave 3 and 1


@checked
class InceptionResNetV1(nn.Module):
    """See the module. Called with images (B, H, W, C), floating-point.

    ``stem``, ``block00`` and so on, residual blocks and the reductions in between, ``map``,
    ``tokens``, ``pooled``, ``embedding`` and ``logits``: as of ``InceptionResNetV2``, but that
    ``map`` is the last block's.

    Attributes:
      depths: numbers of residual blocks before, between and after the reductions.
      residual: whether blocks add to their input; without, they replace it, at equal cost.
      scales: of what the three kinds of blocks add; 0 leaves a block's input alone but for ReLU.
      small_images: one padded 3 x 3 convolution of stride 1 is the stem, for images of 7 px and
        more.
      width_multiplier: of the channels of every layer, which have to remain whole numbers.
      num_classes: of the head; None for none.
      dropout: of the embedding; 0.2 in the paper.
      remat: see ``InceptionResNetV2``.
      precision: number formats.
      head_zero_init: the head's kernel starts at zero.
    """

    depths: tuple[Positive[int], Positive[int], Positive[int]] = (5, 10, 5)
    residual: bool = True
    scales: tuple[NonNegative[float], NonNegative[float], NonNegative[float]] = SCALES
    small_images: bool = False
    width_multiplier: Positive[float] = 1.0
    num_classes: NonNegative[int] | None = None
    dropout: Rate = 0.0
    remat: Remat = "none"
    precision: Precision = Precision()
    head_zero_init: bool = False

    def __post_init__(self) -> None:
        plans = (plan.branches for plan in self.blocks())
        check_channels((*self.stem(), *plans), self.width_multiplier)
        super().__post_init__()

    @nn.nowrap
    def stem(self) -> tuple[Branches, ...]:
        return SMALL_STEM if self.small_images else STEM

    @nn.nowrap
    def blocks(self) -> tuple[Plan, ...]:
        """The plans of ``block00`` and so on."""
        return residual_blocks(BLOCKS, REDUCTIONS, self.depths, self.scales, self.residual)

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        return chain_layers_above(path[0], len(self.blocks()), ("stem",))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        if self.small_images:
            check_images(x)
            if min(x.shape[1:3]) < SMALLEST_PX:
                raise ValueError(
                    f"image of {x.shape[1]}x{x.shape[2]} is smaller than {SMALLEST_PX}x"
                    f"{SMALLEST_PX}, which two reductions need: resize the images"
                )
        else:
            check_size(x)
        x, out = stack(self, x, self.stem(), self.blocks(), train, tap)
        return end_tower(self, x, out, train, tap)
