"""The tower of MetaFormer: two stages of inverted residual blocks, two of attention."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from papers.metaformer.stages import MetaStages
from papers.metaformer.variants import PLANS, Plan, Variant
from vision.config.ranges import NonNegative, Positive, Rate, checked
from vision.models.conv_layers import batch_norm, conv
from vision.models.convolution import max_pool
from vision.models.inverted_residual import BlockPlan, ConvNorm, MobileBlock
from vision.models.layers import (
    block_keys,
    check_images,
    classify,
    drop_path_rates,
    spatial_sites,
)
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above


@checked
class MetaFormer(nn.Module):
    """See ``method``. Called with images (B, H, W, C), floating-point, and ``meta`` (B, M).

    Biases by offset are of the size that the tower is made with. ``blockNN`` count through all
    stages; those of attention are tokens, of which the first ``1 + len(fields)`` are no patches.

    Attributes:
      variant: of the paper.
      fields: numbers of each field, M together; none: the tower takes no metadata.
      widths, depths: of the stem and the stages, in the place of the variant's.
      heads: of attention.
      num_classes: of the head; None for none.
      drop_path: stochastic depth of the last block; the rate rises linearly from 0 at the first.
      precision: number formats.
      head_zero_init: the head's kernel starts at zero.
    """

    variant: Variant = "0"
    fields: tuple[Positive[int], ...] = ()
    widths: tuple[int, int, int, int, int] | None = None
    depths: tuple[int, int, int, int] | None = None
    heads: Positive[int] = 8
    num_classes: NonNegative[int] | None = None
    drop_path: Rate = 0.0
    precision: Precision = Precision()
    head_zero_init: bool = False

    def __post_init__(self) -> None:
        if any(width % self.heads for width in self.resolved().widths[3:]):
            raise ValueError(f"heads={self.heads} do not divide {self.resolved().widths[3:]}")
        super().__post_init__()

    @nn.nowrap
    def resolved(self) -> Plan:
        """What the variant and the fields amount to."""
        plan = PLANS[self.variant]
        return Plan(self.widths or plan.widths, self.depths or plan.depths)

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        depths = self.resolved().depths
        name = path[1] if path[0] == "stages" else path[0]
        name = name.removesuffix("_bias")
        between = {}
        for stage in (0, 1):
            first = sum(depths[: 2 + stage])
            between |= {f"{kind}{stage}": first for kind in ("down", "class", "meta")}
        return chain_layers_above(name, sum(depths), ("stem",), between)

    @nn.nowrap
    def split(self, meta: jax.Array | None, rows: int) -> tuple[jax.Array, ...]:
        """Fields (B, M_i) of ``meta``; zeros for None, and for every NaN."""
        total = sum(self.fields)
        if meta is None:
            meta = jnp.zeros((rows, total))
        if meta.shape != (rows, total):
            raise ValueError(
                f"meta has shape {meta.shape}, but fields={self.fields} of {rows} images are "
                f"{(rows, total)}"
            )
        starts = [sum(self.fields[:i]) for i in range(1, len(self.fields))]
        known = jnp.where(jnp.isnan(meta), 0, meta)
        return tuple(jnp.split(known, starts, 1)) if self.fields else ()

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        meta: jax.Array | None = None,
        *,
        train: bool = False,
        tap: Tap | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        (stem, *widths), depths = self.resolved()
        precision, fields, out = self.precision, self.split(meta, len(x)), {}
        keys = block_keys(self, self.drop_path, sum(depths), train)
        noise = zip(keys, drop_path_rates(self.drop_path, sum(depths)), strict=True)
        for i, channels in enumerate((3 * (stem // 4), stem, stem)):
            x = conv(channels, 3, 1 if i else 2, precision=precision, name=f"stem{i}")(x)
            x = nn.relu(batch_norm(x, train, precision, f"stem{i}_norm"))
        x = max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        x = out["stem"] = apply_tap(tap, "stem", x)
        number = 0
        unit = ConvNorm("symmetric", 0.01, precision)
        for stage in (0, 1):
            for i in range(depths[stage]):
                given, site = x.shape[-1], f"block{number:02d}"
                stride = 2 if stage and not i else 1
                plan = BlockPlan(
                    stage, "inverted", widths[stage], 4 * given, given // 4, 3, stride, "silu"
                )
                block = MobileBlock(plan, unit, None, False, name=site)
                x = out[site] = apply_tap(tap, site, block(x, train, *next(noise)))
                number += 1
        stages = MetaStages(
            (widths[2], widths[3]),
            (depths[2], depths[3]),
            self.heads,
            precision,
            tap,
            number,
            name="stages",
        )
        embedding, x, entries = stages(x, fields, noise)
        x, out = spatial_sites(x, out | entries, tap)
        out["pooled"] = embedding = apply_tap(tap, "pooled", embedding)
        return classify(embedding, out, tap, self.num_classes, self.head_zero_init, precision)
