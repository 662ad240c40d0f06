"""Res-VMamba: VMamba whose stages pass their input on to the next one.

VMamba embeds patches of 4 x 4 in C channels and has four stages of blocks; after the first three,
squares of four tokens are merged and channels doubled. A block is x + SS2D(norm(x)), with

    u, z = in(x);  u = silu(depthwise3x3(u))              E = 2 C channels
    y = sum_k merge_k(scan_k(cross_k(u)))                 k: rows, columns, and both reversed
    SS2D = out(norm(y) silu(z))

where scan_k is Mamba's selective scan (``vision.blocks.selective_scan``) with a projection, rates
and a skip weight of its own for every order. Res-VMamba adds to what a stage and its merging make
the pooled input of the stage,

    x_{l+1} = stage_l(x_l) + W_l maxpool2x2(x_l),        l = 1, 2, 3,

W_l a 1 x 1 convolution from C_l to 2 C_l channels with a bias. The last stage has none.

Chen et al., Res-VMamba: Fine-Grained Food Category Visual Classification Using Selective State
Space Models with Deep Residual Learning, 2024. Headline: 79.54 % on CNFOOD-241, from random
weights, with VMamba-S. Liu et al., VMamba: Visual State Space Model, 2024, is the tower without.

Differences from the authors' code: they make W_l inside the forward pass, so that it is drawn anew
in every call and never trained; here it is a parameter (``residual_zero_init`` starts it at 0:
VMamba). In their figure the stem's output goes down all stages by itself; their code,
and this, pool the input of each stage, once. Blocks have no MLP and merging is a linear layer of
four neighbours, as in the first public VMamba of 22 and 44 million parameters, whose configs they
name; the file's defaults have both otherwise. Maps of an odd side are padded at the lower right by
both paths; theirs would not add up. Linear layers begin as PyTorch's do, theirs with a deviation of
0.02, which is too small for a narrow tower. LayerNorms have an epsilon of 1e-6, theirs outside of
blocks 1e-5.

On a CPU a step of ``small`` takes 7.9 times as long as that of a ResNet-10 of nearly equal products
(``bench.methods``): a scan has 9 operations for each of E N states per position and no product that
a matrix unit could do, and on a CPU it is a loop over positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import flax.linen as nn
import jax

from papers.res_vmamba.between import embedded, merged, passed_on
from papers.res_vmamba.block import VSSBlock
from vision.config.ranges import NonEmpty, NonNegative, Positive, Rate, checked
from vision.models.layers import (
    Remat,
    block_keys,
    check_images,
    classify,
    drop_path_rates,
    layer_norm,
    pooled_map,
    rematerialise,
    spatial_sites,
)
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above

Variant = Literal["T", "S"]
DEPTHS: Mapping[Variant, tuple[int, ...]] = {"T": (2, 2, 9, 2), "S": (2, 2, 27, 2)}


@checked
class ResVMamba(nn.Module):
    """See the module. Called with images (B, H, W, C), floating-point.

    ``stem`` and ``block00``.. are maps after the patch embedding and the blocks, ``map`` is the
    last one after its norm, ``pooled`` and ``embedding`` its mean.

    Attributes:
      variant: of VMamba; its depths.
      depths: blocks of every stage, in the place of the variant's.
      width: channels of the first stage, doubled by every merging.
      patch: side in pixels, which divides those of an image.
      residual: whether stages but the last pass their pooled input on; without, it is VMamba.
      residual_zero_init: the convolutions of that path start at zero.
      states: N, states per channel.
      expand: E / C.
      sequential: see ``selective_scan``; faster on CPUs.
      drop_path: stochastic depth of the last block; the rate rises linearly from 0 at the first.
      num_classes: of the head; None for none.
      remat: see ``ViT``.
      precision: number formats; the scan itself is float32.
      head_zero_init: the head's kernel starts at zero.
    """

    variant: Variant = "S"
    depths: NonEmpty[tuple[Positive[int], ...]] | None = None
    width: Positive[int] = 96
    patch: Positive[int] = 4
    residual: bool = True
    residual_zero_init: bool = False
    states: Positive[int] = 16
    expand: Positive[int] = 2
    sequential: bool = False
    drop_path: Rate = 0.0
    num_classes: NonNegative[int] | None = None
    remat: Remat = "none"
    precision: Precision = Precision()
    head_zero_init: bool = False

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        depths = self.depths or DEPTHS[self.variant]
        between = {
            f"{kind}{i}": sum(depths[:i]) for i in range(4) for kind in ("merge", "residual")
        }
        return chain_layers_above(path[0], sum(depths), ("patch_embed", "stem_norm"), between)

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        depths, precision = self.depths or DEPTHS[self.variant], self.precision
        total = sum(depths)
        keys = block_keys(self, self.drop_path, total, train)
        rates = drop_path_rates(self.drop_path, total)
        x = apply_tap(tap, "stem", embedded(x, self.width, self.patch, precision))
        out, number = {"stem": x}, 0
        block_type = rematerialise(VSSBlock, self.remat)
        for stage, depth in enumerate(depths):
            given = x
            for _ in range(depth):
                site = f"block{number:02d}"
                block = block_type(
                    self.states, self.expand, self.sequential, precision, tap, site, name=site
                )
                x = out[site] = block(x, keys[number], rates[number])
                number += 1
            if stage < len(depths) - 1:
                x = merged(x, precision, f"merge{stage + 1}")
                if self.residual:
                    x = constrain_batch(x + self._passed_on(given, f"residual{stage + 1}"))
        x, out = spatial_sites(layer_norm(x, precision, "norm"), out, tap)
        pooled = out["pooled"] = pooled_map(x, tap, precision)
        return classify(pooled, out, tap, self.num_classes, self.head_zero_init, precision)

    @nn.nowrap
    def _passed_on(self, x: jax.Array, name: str) -> jax.Array:
        return passed_on(x, self.residual_zero_init, self.precision, name)
