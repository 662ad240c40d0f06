"""Inception-ResNet-v2."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax

from vision.config.ranges import NonNegative, Positive, Rate, checked
from vision.models.inception_layers import (
    Branches,
    Conv,
    ConvUnit,
    Plan,
    check_channels,
    check_size,
    end_tower,
    scaled,
    stack,
)
from vision.models.layers import Remat
from vision.train.precision import Precision
from vision.train.tower import Tap, chain_layers_above

# The sizes are those of the authors' published weights, which differ from the paper's figures.
STEM: tuple[Branches, ...] = (
    ((Conv(32, (3, 3), 2, padded=False),),),
    ((Conv(32, (3, 3), padded=False),),),
    ((Conv(64, (3, 3)),),),
    (("max",),),
    ((Conv(80),),),
    ((Conv(192, (3, 3), padded=False),),),
    (("max",),),
    (
        (Conv(96),),
        (Conv(48), Conv(64, (5, 5))),
        (Conv(64), Conv(96, (3, 3)), Conv(96, (3, 3))),
        ("average", Conv(64)),
    ),
)
BLOCK_A: Branches = (
    (Conv(32),),
    (Conv(32), Conv(32, (3, 3))),
    (Conv(32), Conv(48, (3, 3)), Conv(64, (3, 3))),
)
REDUCTION_A: Branches = (
    (Conv(384, (3, 3), 2, padded=False),),
    (Conv(256), Conv(256, (3, 3)), Conv(384, (3, 3), 2, padded=False)),
    ("max",),
)
BLOCK_B: Branches = (
    (Conv(192),),
    (Conv(128), Conv(160, (1, 7)), Conv(192, (7, 1))),
)
REDUCTION_B: Branches = (
    (Conv(256), Conv(384, (3, 3), 2, padded=False)),
    (Conv(256), Conv(288, (3, 3), 2, padded=False)),
    (Conv(256), Conv(288, (3, 3)), Conv(320, (3, 3), 2, padded=False)),
    ("max",),
)
BLOCK_C: Branches = (
    (Conv(192),),
    (Conv(192), Conv(224, (1, 3)), Conv(256, (3, 1))),
)
HEAD = Conv(1536)
SCALES = (0.17, 0.1, 0.2)


def residual_blocks(
    blocks: Sequence[Branches],
    reductions: Sequence[Branches],
    depths: Sequence[int],
    scales: Sequence[float],
    residual: bool = True,
) -> tuple[Plan, ...]:
    """The plans of so many blocks of each kind, with reductions in between.

    Args:
      blocks: branches of each kind of block.
      reductions: between two kinds; one fewer.
      depths: blocks of each kind.
      scales: of what each kind adds to its input.
      residual: whether blocks add to their input or replace it.
    """
    plans: list[Plan] = []
    for i, (kind, depth, scale) in enumerate(zip(blocks, depths, scales, strict=True)):
        plans += [Plan(reductions[i - 1])] if i else []
        plans += [Plan(kind, scale, shortcut=residual)] * depth
    return tuple(plans)


@checked
class InceptionResNetV2(nn.Module):
    """Inception-ResNet-v2 (Szegedy et al., 2016, as for ``InceptionV4``).

    Called with (B, h, w, C) floating-point images of at least 75 px a side (the paper's have 299)
    it returns ``(embedding, out)`` as documented in ``vision.train.tower``. ``stem`` is the input
    of the first residual block; residual blocks and the reductions between them count as
    ``block00`` to ``block41``. ``map`` is the result of the 1x1 convolution after the last block,
    ``tokens`` the same with its positions flattened, ``embedding`` is ``pooled`` after dropout.
    ``pooled``, ``embedding`` and ``logits`` are of the output dtype, everything else is of the
    compute dtype. BatchNorm's epsilon is 1e-3.

    Attributes:
      depths: numbers of residual blocks at strides 8, 16 and 32.
      residual: whether blocks add to their input; without, they replace it, at equal cost.
      scales: of what the three kinds of blocks add, but for the very last, which is not scaled.
      width_multiplier: of the channels of every layer, the embedding's 1536 too; they have to
        remain whole numbers.
      num_classes: classes of the head; None and 0 both mean no head.
      dropout: of the embedding; 0.2 in the paper.
      remat: what a block keeps for the backward pass: ``none`` keeps all, ``full`` only its
        input, ``dots`` also the results of convolutions.
      precision: number formats of parameters, computation and outputs. Statistics are float32.
      head_zero_init: head's kernel starts at zero, otherwise normal with deviation 0.01.
    """

    depths: tuple[Positive[int], Positive[int], Positive[int]] = (10, 20, 10)
    residual: bool = True
    scales: tuple[NonNegative[float], NonNegative[float], NonNegative[float]] = SCALES
    width_multiplier: Positive[float] = 1.0
    num_classes: NonNegative[int] | None = None
    dropout: Rate = 0.0
    remat: Remat = "none"
    precision: Precision = Precision()
    head_zero_init: bool = True

    def __post_init__(self) -> None:
        blocks = (plan.branches for plan in self.blocks())
        check_channels((*STEM, *blocks), self.width_multiplier)
        scaled(HEAD.channels, self.width_multiplier)
        super().__post_init__()

    @nn.nowrap
    def blocks(self) -> tuple[Plan, ...]:
        """The plans of ``block00`` and so on; the last adds without scaling and has no ReLU."""
        kinds = (BLOCK_A, BLOCK_B, BLOCK_C), (REDUCTION_A, REDUCTION_B)
        plans = residual_blocks(*kinds, self.depths, self.scales, self.residual)
        return (*plans[:-1], plans[-1]._replace(residual_scale=1.0, relu=False))

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        return chain_layers_above(path[0], len(self.blocks()), ("stem",))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_size(x)
        x, out = stack(self, x, STEM, self.blocks(), train, tap)
        x = ConvUnit(HEAD, self.width_multiplier, self.precision, name="last")(x, train)
        return end_tower(self, x, out, train, tap)
