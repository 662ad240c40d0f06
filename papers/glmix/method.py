"""GLNet: convolutions on the grid of tokens beside attention among a few semantic slots (GLMix).

A block gathers the tokens softly into S slots, lets the slots attend to each other, and gives every
token back its share of them; a depthwise convolution on the grid runs beside it. With s0 the means
of the block's input over an 8 x 8 grid of windows, y = LN(x) flattened, and cosines c = <s0, y>,

    slots = MHSA(softmax_tokens(tau c) y)
    mix   = softmax_slots(tau c)^T slots + conv1x1(depthwise5x5(conv1x1(y)))
    x     = x + mix,   x = x + MLP(LN(x))

so that the cost is linear in the number of tokens. ``tau`` is learned, from C^-1/2. The towers have
four stages, whose last has plain attention, and in the third every other block; or, as ``stl``,
Swin-T's layout.

Zhu et al., Revisiting the Integration of Convolution and Attention for Vision Backbone, 2024.
Headline: 83.7, 84.5 and 85.0 % on ImageNet with 4, 9 and 16 GFLOPs; ``stl`` 82.5, with learned
slots 82.1. With weights copied, logits equal the authors' code to rounding, for every kind of
block; there the BatchNorm that a tower is asked for reaches its stem, the steps between stages and
the last norm, and the blocks keep LayerNorm. Differences: convolutions start by He's rule.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax

from papers.glmix.block import MixBlock
from papers.glmix.stem import Reduction
from papers.glmix.variants import PLANS, Attended, Plan, Variant
from vision.config.ranges import NonNegative, Positive, Rate, checked
from vision.models.conv_layers import batch_norm
from vision.models.layers import (
    block_keys,
    check_images,
    classify,
    drop_path_rates,
    pooled_map,
    spatial_sites,
)
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above

SMALLEST_PX = 32


@checked
class GLNet(nn.Module):
    """See the module. Called with images (B, H, W, C), floating-point; sides of at least 32.

    Blocks count through all stages: ``block00`` and so on, with the branches ``/mix`` and ``/mlp``;
    ``/assignment`` (B, h, w, S) says of every token what share of it each slot has. ``map`` is what
    is pooled.

    Attributes:
      variant: of the paper.
      widths: channels of the stages, in the place of the variant's.
      depths: blocks of the stages, in the place of the variant's.
      attended: which blocks of each stage attend among all tokens, see ``variants.Plan``.
      slots: their number, a square, in the place of 64.
      local: side of the depthwise kernel beside the slots; 0 leaves the convolutions out.
      relate: slots attend to each other; without, they are means of tokens and no more.
      num_classes: of the head; None for none.
      drop_path: stochastic depth of the last block; the rate rises linearly from 0 at the first.
      precision: number formats.
      head_zero_init: the head's kernel starts at zero.
    """

    variant: Variant = "4g"
    widths: tuple[Positive[int], ...] | None = None
    depths: tuple[Positive[int], ...] | None = None
    attended: tuple[Attended, ...] | None = None
    slots: Positive[int] = 64
    local: NonNegative[int] = 5
    relate: bool = True
    num_classes: NonNegative[int] | None = None
    drop_path: Rate = 0.0
    precision: Precision = Precision()
    head_zero_init: bool = False

    def __post_init__(self) -> None:
        plan = self.resolved()
        if not len(plan.widths) == len(plan.depths) == len(plan.attended):
            raise ValueError(f"widths, depths and attended have one entry of every stage: {plan}")
        if any(width % plan.mixing.head for width in plan.widths):
            raise ValueError(f"widths={plan.widths}: multiples of a head's {plan.mixing.head}")
        if round(self.slots**0.5) ** 2 != self.slots:
            raise ValueError(f"slots={self.slots} is not the square of a number of windows")
        super().__post_init__()

    @nn.nowrap
    def resolved(self) -> Plan:
        """What the variant and the fields amount to."""
        plan = PLANS[self.variant]
        own = {"slots": self.slots, "local": self.local, "attend": self.relate}
        return dataclasses.replace(
            plan,
            widths=self.widths or plan.widths,
            depths=self.depths or plan.depths,
            attended=self.attended or plan.attended,
            mixing=dataclasses.replace(plan.mixing, **own),
        )

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        depths = self.resolved().depths
        between = {f"down{i}": sum(depths[:i]) for i in range(1, len(depths))}
        return chain_layers_above(path[0], sum(depths), ("stem",), between)

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        if min(x.shape[1:3]) < SMALLEST_PX:
            raise ValueError(
                f"image of {x.shape[1]}x{x.shape[2]} is smaller than {SMALLEST_PX}x{SMALLEST_PX}, "
                "which is one token of the last stage: resize the images"
            )
        plan, precision = self.resolved(), self.precision
        count = sum(plan.depths)
        keys = block_keys(self, self.drop_path, count, train)
        noise = zip(keys, drop_path_rates(self.drop_path, count), strict=True)
        out: dict[str, jax.Array] = {}
        number = 0
        stages = zip(plan.widths, plan.depths, plan.attended, strict=True)
        for stage, (width, depth, attended) in enumerate(stages):
            name = f"down{stage}" if stage else "stem"
            x = Reduction(width, not stage, plan.swin, precision, name=name)(x, train)
            if not stage:
                x = out["stem"] = apply_tap(tap, "stem", x)
            for i in range(depth):
                plain = attended == "all" or (attended == "half" and i % 2 == 1)
                site = f"block{number:02d}"
                block = MixBlock(plan.mixing, plain, precision, tap, site, name=site)
                x, entries = block(x, *next(noise))
                out |= {f"{site}/{entry}".rstrip("/"): value for entry, value in entries.items()}
                number += 1
        x, out = spatial_sites(batch_norm(x, train, precision, "norm"), out, tap)
        pooled = out["pooled"] = pooled_map(x, tap, precision)
        return classify(pooled, out, tap, self.num_classes, self.head_zero_init, precision)
