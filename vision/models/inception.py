"""Inception-v4."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax

from vision.config.ranges import NonNegative, Positive, Rate, checked
from vision.models.inception_layers import (
    Branches,
    Conv,
    Plan,
    check_channels,
    check_size,
    end_tower,
    stack,
)
from vision.models.layers import Remat
from vision.train.precision import Precision
from vision.train.tower import Tap, chain_layers_above

# Szegedy et al. 2016, figures 3 to 8; figure 3 is the stem. ``(1, 7)`` is one row of seven.
STEM: tuple[Branches, ...] = (
    ((Conv(32, (3, 3), 2, padded=False),),),
    ((Conv(32, (3, 3), padded=False),),),
    ((Conv(64, (3, 3)),),),
    (("max",), (Conv(96, (3, 3), 2, padded=False),)),
    (
        (Conv(64), Conv(96, (3, 3), padded=False)),
        (Conv(64), Conv(64, (1, 7)), Conv(64, (7, 1)), Conv(96, (3, 3), padded=False)),
    ),
    ((Conv(192, (3, 3), 2, padded=False),), ("max",)),
)
BLOCK_A: Branches = (
    (Conv(96),),
    (Conv(64), Conv(96, (3, 3))),
    (Conv(64), Conv(96, (3, 3)), Conv(96, (3, 3))),
    ("average", Conv(96)),
)
REDUCTION_A: Branches = (
    (Conv(384, (3, 3), 2, padded=False),),
    (Conv(192), Conv(224, (3, 3)), Conv(256, (3, 3), 2, padded=False)),
    ("max",),
)
BLOCK_B: Branches = (
    (Conv(384),),
    (Conv(192), Conv(224, (1, 7)), Conv(256, (7, 1))),
    (Conv(192), Conv(192, (7, 1)), Conv(224, (1, 7)), Conv(224, (7, 1)), Conv(256, (1, 7))),
    ("average", Conv(128)),
)
REDUCTION_B: Branches = (
    (Conv(192), Conv(192, (3, 3), 2, padded=False)),
    (Conv(256), Conv(256, (1, 7)), Conv(320, (7, 1)), Conv(320, (3, 3), 2, padded=False)),
    ("max",),
)
BLOCK_C: Branches = (
    (Conv(256),),
    (Conv(384), (Conv(256, (1, 3)), Conv(256, (3, 1)))),
    (
        Conv(384),
        Conv(448, (3, 1)),
        Conv(512, (1, 3)),
        (Conv(256, (1, 3)), Conv(256, (3, 1))),
    ),
    ("average", Conv(256)),
)


@checked
class InceptionV4(nn.Module):
    """Inception-v4.

    Szegedy et al., Inception-v4, Inception-ResNet and the Impact of Residual Connections on
    Learning, 2016.

    Called with (B, h, w, C) floating-point images of at least 75 px a side (the paper's have 299)
    it returns ``(embedding, out)`` as documented in ``vision.train.tower``. ``stem`` is the input
    of the first A block; A, B and C blocks and the reductions between them count as ``block00`` to
    ``block15``. ``map`` is the last block's result, ``tokens`` the same with its positions
    flattened, ``embedding`` is ``pooled`` after dropout. ``pooled``, ``embedding`` and ``logits``
    are of the output dtype, everything else is of the compute dtype. BatchNorm's epsilon is 1e-3.

    Attributes:
      depths: numbers of A, B and C blocks.
      width_multiplier: of the channels of every layer, the embedding's 1536 too; they have to
        remain whole numbers.
      num_classes: classes of the head; None and 0 both mean no head.
      dropout: of the embedding; 0.2 in the paper.
      remat: what a block keeps for the backward pass: ``none`` keeps all, ``full`` only its
        input, ``dots`` also the results of convolutions.
      precision: number formats of parameters, computation and outputs. Statistics are float32.
      head_zero_init: head's kernel starts at zero, otherwise normal with deviation 0.01.
    """

    depths: tuple[Positive[int], Positive[int], Positive[int]] = (4, 7, 3)
    width_multiplier: Positive[float] = 1.0
    num_classes: NonNegative[int] | None = None
    dropout: Rate = 0.0
    remat: Remat = "none"
    precision: Precision = Precision()
    head_zero_init: bool = True

    def __post_init__(self) -> None:
        check_channels((*STEM, *self.blocks()), self.width_multiplier)
        super().__post_init__()

    @nn.nowrap
    def blocks(self) -> tuple[Branches, ...]:
        """The kinds of ``block00`` and so on."""
        a, b, c = self.depths
        return (
            *(BLOCK_A,) * a,
            REDUCTION_A,
            *(BLOCK_B,) * b,
            REDUCTION_B,
            *(BLOCK_C,) * c,
        )

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        return chain_layers_above(path[0], len(self.blocks()), ("stem",))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_size(x)
        x, out = stack(self, x, STEM, [Plan(each) for each in self.blocks()], train, tap)
        return end_tower(self, x, out, train, tap)
