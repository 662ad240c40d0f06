"""PlainMamba: a non-hierarchical Mamba tower with continuous 2D scans over the image.

Yang et al., PlainMamba: Improving Non-Hierarchical Mamba in Visual Recognition, 2024. Headline:
77.9, 81.6 and 82.3 % on ImageNet with 7, 25 and 50 million parameters. A block is
``x + mamba(norm(x))``, with E = 2 D inner channels and N states per channel:

    u, z = in(x);  u = silu(conv7x7(u));  r, B, C = project(u);  delta = softplus(dt(r))
    h_t = exp(delta_t A) h_{t-1} + delta_t (B_t + theta_step(t)) u_t,  y_t = C_t h_t + D u_t
    mamba = out(silu(z) * sum of y over four scan orders, each inverted to grid order)

The orders are boustrophedon over rows and over columns, and both reversed, so that successive
tokens are neighbours in the image; ``theta`` (5, N) encodes the direction of the step.

Differences: the authors' code permutes only ``u``, while delta, B and C stay in row order, and adds
the bias of ``dt`` twice; here all four are permuted and the bias is added once. Its smallest
variant also has a depthwise convolution after the first block, which is left out here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from papers.plain_mamba.block import MambaBlock
from papers.plain_mamba.stem import Stem, embed_patches, grid_of, positions
from vision.config.ranges import NonNegative, Odd, Positive, Rate, checked, one_of
from vision.models.layers import (
    Remat,
    check_images,
    classify,
    layer_norm,
    spatial_sites,
)
from vision.models.transformer import run_blocks
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above

# name: width, depth, 3x3 convolutions of the stem.
SIZES: Mapping[str, tuple[int, int, int]] = {
    "L1": (192, 24, 1),
    "L2": (384, 24, 2),
    "L3": (448, 36, 2),
}


@checked
class PlainMamba(nn.Module):
    """See the module. Called with (B, h, w, C) float images whose sides the patch divides.

    Returns ``(embedding, out)`` as ``vision.train.tower`` says, without prefix tokens: ``stem`` and
    the blocks are (B, N, D), ``pooled`` is the mean of ``map``.

    Attributes:
      variant: ``L1``, ``L2`` or ``L3``.
      width, depth, stem_convs: override those of the variant; width and depth are required without.
      patch: side in pixels; even with the stem of convolutions.
      num_classes: classes of the head; None and 0 both mean no head.
      stem: ``convolutions``: 7 x 7 of stride 2, then ``stem_convs`` of 3 x 3, each with BatchNorm
        and ReLU, then patch embedding of the result; ``patches``: of the image itself.
      states: N, states per channel.
      expand: E / D.
      kernel: side of the depthwise convolution; with 1 only the scan mixes positions.
      snake: continuous orders; else every row and column is scanned in the same direction.
      directions: whether ``theta``, the encoding of the step's direction, is used.
      sequential: see ``selective_scan``; faster on CPUs.
      drop_path: stochastic depth of the last block; the rate rises linearly from 0 at the first.
      scan, remat: see ``ViT``.
      head_zero_init: head's kernel starts at zero, otherwise normal with deviation 0.01.
      precision: number formats; the scan itself is float32.
    """

    variant: Annotated[str, one_of(SIZES)] | None = None
    width: Positive[int] | None = None
    depth: Positive[int] | None = None
    stem_convs: NonNegative[int] | None = None
    patch: Positive[int] = 16
    num_classes: NonNegative[int] | None = None
    stem: Stem = "convolutions"
    states: Positive[int] = 16
    expand: Positive[int] = 2
    kernel: Odd = 7
    snake: bool = True
    directions: bool = True
    sequential: bool = False
    drop_path: Rate = 0.0
    scan: bool = True
    remat: Remat = "none"
    head_zero_init: bool = False
    precision: Precision = Precision()

    def __post_init__(self) -> None:
        if self.variant is None and (self.width is None or self.depth is None):
            raise ValueError(f"without a variant ({', '.join(SIZES)}) give width and depth")
        if self.stem == "convolutions" and self.patch % 2:
            raise ValueError(f"patch={self.patch}: stem='convolutions' halves it; 'patches' do not")
        super().__post_init__()

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        depth = self.depth if self.depth is not None else SIZES[self.variant or ""][1]
        return chain_layers_above(path[0], depth, ("patch_embed", "pos_embed", "stem_"))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        grid = grid_of(x, self.patch)
        sizes = SIZES.get(self.variant or "", (0, 0, 1))
        width, depth = self.width or sizes[0], self.depth or sizes[1]
        convs = sizes[2] if self.stem_convs is None else self.stem_convs

        x, precision = x.astype(self.precision.compute), self.precision
        x = embed_patches(x, self.stem, width, convs, self.patch, precision, train)
        x = x + positions(self, grid, width, precision).astype(x.dtype)
        x = x.reshape(-1, grid[0] * grid[1], width)
        x = apply_tap(tap, "stem", constrain_batch(x))
        of_block = ("states", "expand", "kernel", "snake", "directions", "sequential", "precision")
        fields = {"grid": grid, **{name: getattr(self, name) for name in of_block}}
        noisy = train and self.drop_path > 0
        y, out = run_blocks(
            self,
            MambaBlock,
            fields,
            x,
            depth=depth,
            scan=self.scan,
            remat=self.remat,
            key=self.make_rng("dropout") if noisy else None,
            drop_path=self.drop_path,
            tap=tap,
        )
        y = layer_norm(y, precision, "norm")
        y, out = spatial_sites(y.reshape(-1, *grid, width), {"stem": x, **out}, tap)
        pooled = y.mean((1, 2), dtype=jnp.float32).astype(precision.output)
        pooled = out["pooled"] = apply_tap(tap, "pooled", pooled)
        return classify(pooled, out, tap, self.num_classes, self.head_zero_init, precision)
