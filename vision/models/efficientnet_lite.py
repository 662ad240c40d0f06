"""EfficientNet-Lite 0 to 4, of any width and depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import flax.linen as nn
import jax

from vision.config.ranges import NonNegative, Positive, Rate, checked, one_of
from vision.models.efficientnet import STAGES, multipliers
from vision.models.inverted_residual import MobilePlan, Padding, plan_blocks, run_mobile
from vision.models.layers import Remat
from vision.train.precision import Precision
from vision.train.tower import Tap, chain_layers_above

# name: width multiplier, depth multiplier. They are trained at images of 224, 240, 260, 280 and
# 300 px.
VARIANTS: Mapping[str, tuple[float, float]] = {
    "lite0": (1.0, 1.0),
    "lite1": (1.0, 1.1),
    "lite2": (1.1, 1.2),
    "lite3": (1.2, 1.4),
    "lite4": (1.4, 1.8),
}
_STAGES = tuple(
    tuple(row._replace(squeeze=False, activation="relu6") for row in rows) for rows in STAGES
)


@checked
class EfficientNetLite(nn.Module):
    """EfficientNet for phones (Liu, Higher accuracy on vision models with EfficientNet-Lite, 2020).

    EfficientNet without squeeze-and-excitation, with ReLU6 in the place of SiLU, and with a stem
    of 32 channels, a last convolution of 1280 and one block in the first and the last stage
    whatever the multipliers are.

    Called with (B, h, w, C) floating-point images it returns ``(embedding, out)`` as documented in
    ``vision.train.tower``. Blocks count through all stages: ``block00`` to ``block15`` for lite0.
    ``map`` is what is pooled: the result of the last 1x1 convolution, after BatchNorm and ReLU6;
    ``tokens`` is the same with its positions flattened. ``embedding`` is ``pooled`` after dropout.
    ``pooled``, ``embedding`` and ``logits`` are of the output dtype, everything else is of the
    compute dtype.

    Attributes:
      variant: sizes, one of ``VARIANTS``.
      width_multiplier: of the channels of blocks, which are rounded to multiples of 8; overrides
        the variant, or stands without one.
      depth_multiplier: of the blocks of every stage but the first and last, rounded up; likewise.
      head_width: channels of the last convolution; None: 1280.
      num_classes: classes of the head; None and 0 both mean no head.
      dropout: of the embedding; 0.2 for lite0 and lite1, 0.3 for the others in training.
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
        depths = [1.0, *[depth] * (len(_STAGES) - 2), 1.0]
        blocks = plan_blocks(_STAGES, 32, width, depths, lambda hidden, expansion: 0)
        return MobilePlan(32, blocks, self.head_width or 1280, "relu6")

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        return chain_layers_above(path[0], len(self.resolved().blocks), ("stem_",))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        return run_mobile(self, self.resolved(), x, train, tap)
