"""MobileNetV4: universal inverted bottlenecks and, in the hybrid ones, attention with one key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import NonNegative, Positive, Rate, checked, one_of
from vision.models.anti_alias import halve_as
from vision.models.attention import attend
from vision.models.conv_layers import batch_norm
from vision.models.inverted_residual import Activation, ConvNorm, divisible
from vision.models.layers import (
    LayerScale,
    Remat,
    block_keys,
    check_images,
    classify,
    dense,
    drop_path,
    drop_path_rates,
    dropout,
    pooled_map,
    rematerialise,
    spatial_sites,
)
from vision.models.mobilenet_v4_plan import STAGES, STEMS, BlockPlan, MobileV4Plan
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above

AntiAlias = Literal["none", "average"]
_INIT = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")


class MultiQueryAttention(nn.Module):
    """Attention whose heads share one key and one value (Shazeer, Fast transformer decoding, 2019).

    (B, h, w, C) to the same shape. Keys and values may be of an image that a depthwise convolution
    made smaller.

    Attributes:
      plan: sizes of the block.
      unit: makes convolutions with norm.
    """

    plan: BlockPlan
    unit: ConvNorm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        plan, unit = self.plan, self.unit
        batch, height, width, channels = x.shape
        precision = unit.precision

        def projected(y: jax.Array, features: int, name: str) -> jax.Array:
            return dense(y, features, precision, name, _INIT, use_bias=False)

        def shared(name: str) -> jax.Array:
            y = x
            if plan.kv_stride > 1:
                down = f"{name}_down"
                y = unit(y, train, channels, plan.middle, down, plan.kv_stride, channels)
            y = projected(y, plan.key_width, name).reshape(batch, -1, 1, plan.key_width)
            return jnp.broadcast_to(y, (*y.shape[:2], plan.heads, plan.key_width))

        q = projected(x, plan.heads * plan.key_width, "query")
        q = q.reshape(batch, height * width, plan.heads, plan.key_width)
        y = attend(q, shared("key"), shared("value"), precision, None)
        y = y.reshape(batch, height, width, plan.heads * plan.key_width)
        return projected(y, plan.channels, "proj")


class MobileV4Block(nn.Module):
    """One block; ``x`` is added where shapes allow it, but not to a ``plain`` convolution.

    Stochastic depth drops the branch with probability ``rate`` if there is a ``key``.

    Attributes:
      plan: sizes of the block.
      unit: makes its convolutions with norm and activation.
      activation: of all layers that have one.
      layer_scale: initial factors of the branch; None for none.
      anti_alias: what makes images smaller.
    """

    plan: BlockPlan
    unit: ConvNorm
    activation: Activation
    layer_scale: float | None
    anti_alias: AntiAlias

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, key: jax.Array | None, rate: jax.Array | None
    ) -> jax.Array:
        plan, act = self.plan, self.activation
        if plan.kind == "plain":
            return self._convolution(x, train, plan.channels, plan.middle, "plain", 1, act)
        if plan.kind == "attention":
            y = batch_norm(x, train, self.unit.precision, "norm", epsilon=self.unit.epsilon)
            y = MultiQueryAttention(plan, self.unit, name="attn")(y, train)
        elif plan.kind == "fused":
            y = self._convolution(x, train, plan.hidden, plan.middle, "expand", 1, act)
            y = self.unit(y, train, plan.channels, 1, "project")
        else:
            y = x
            if plan.start:
                y = self.unit(y, train, y.shape[-1], plan.start, "start", groups=y.shape[-1])
            y = self.unit(y, train, plan.hidden, 1, "expand", activation=act)
            if plan.middle:
                y = self._convolution(
                    y, train, plan.hidden, plan.middle, "middle", plan.hidden, act
                )
            y = self.unit(y, train, plan.channels, 1, "project")
        if self.layer_scale is not None and plan.kind != "fused":
            y = LayerScale(self.layer_scale, self.unit.precision, name="layer_scale")(y)
        return x + drop_path(y, key, rate) if plan.stride == 1 and x.shape == y.shape else y

    def _convolution(
        self,
        x: jax.Array,
        train: bool,
        channels: int,
        kernel: int,
        name: str,
        groups: int,
        act: Activation,
    ) -> jax.Array:
        """The one that has the block's stride."""
        if self.plan.stride == 1 or self.anti_alias == "none":
            return self.unit(x, train, channels, kernel, name, self.plan.stride, groups, act)
        return halve_as("average", self.unit(x, train, channels, kernel, name, 1, groups, act))


@checked
class MobileNetV4(nn.Module):
    """MobileNetV4 (Qin et al., MobileNetV4: Universal Models for the Mobile Ecosystem, 2024).

    Called with (B, h, w, C) floating-point images it returns ``(embedding, out)`` as documented in
    ``vision.train.tower``. Blocks count through all stages, the 1x1 convolution before pooling
    being the last one: ``block00`` to ``block16`` for ``conv_small``. ``map`` is its result, and
    ``tokens`` the same with its positions flattened. ``embedding`` is a dense layer of ``pooled``,
    after BatchNorm, activation and dropout. ``pooled``, ``embedding`` and ``logits`` are of the
    output dtype, everything else is of the compute dtype.

    Attributes:
      variant: sizes, one of ``STAGES``; the hybrid ones have attention.
      width_multiplier: of the channels of blocks, which are rounded to multiples of 8, and, from 1
        on, of the stem's.
      head_width: width of the dense layer.
      anti_alias: strided convolutions after the stem have stride 1 and means of 2x2 behind them
        (``average``).
      layer_scale: initial factors of the branches of hybrid ones.
      num_classes: classes of the head; None and 0 both mean no head.
      dropout: of the embedding.
      drop_path: stochastic depth of the last block; the rate rises linearly from 0 at the first.
      remat: what a block keeps for the backward pass: ``none`` keeps all, ``full`` only its
        input, ``dots`` also the results of convolutions.
      precision: number formats of parameters, computation and outputs. Statistics are float32.
      head_zero_init: head's kernel starts at zero, otherwise normal with deviation 0.01.
    """

    variant: Annotated[str, one_of(STAGES)] = "conv_small"
    width_multiplier: Positive[float] = 1.0
    head_width: Positive[int] = 1280
    anti_alias: AntiAlias = "none"
    layer_scale: float = 1e-5
    num_classes: NonNegative[int] | None = None
    dropout: Rate = 0.0
    drop_path: Rate = 0.0
    remat: Remat = "none"
    precision: Precision = Precision()
    head_zero_init: bool = True

    @nn.nowrap
    def resolved(self) -> MobileV4Plan:
        """The sizes that the fields amount to."""
        multiplier = self.width_multiplier
        stem = STEMS.get(self.variant, 24)
        stem = width = stem if multiplier < 1 else divisible(stem * multiplier)
        blocks = []
        for stage, rows in enumerate(STAGES[self.variant]):
            stride = 1 if stage == len(STAGES[self.variant]) - 1 else 2
            for row in rows:
                for _ in range(row.repeats):
                    block = BlockPlan(
                        stage,
                        row.kind,
                        divisible(row.channels * multiplier),
                        divisible(width * row.expansion),
                        *(row.start, row.middle, stride),
                        *(row.heads, row.key_width, row.kv_stride),
                    )
                    blocks.append(block)
                    width, stride = block.channels, 1
        hybrid = self.variant.startswith("hybrid")
        activation: Activation = "gelu" if self.variant == "hybrid_large" else "relu"
        return MobileV4Plan(stem, tuple(blocks), activation, hybrid)

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        return chain_layers_above(path[0], len(self.resolved().blocks), ("stem_",))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        plan, precision = self.resolved(), self.precision
        unit = ConvNorm("symmetric", 1e-5, precision)
        depth = len(plan.blocks)
        keys = block_keys(self, self.drop_path, depth, train)
        rates = drop_path_rates(self.drop_path, depth)
        x = unit(x, train, plan.stem, 3, "stem", 2, activation=plan.activation)
        x = apply_tap(tap, "stem", constrain_batch(x))
        out = {"stem": x}
        block_type = rematerialise(MobileV4Block, self.remat, static=(2,))
        scale = self.layer_scale if plan.layer_scale else None
        for i, block_plan in enumerate(plan.blocks):
            site = f"block{i:02d}"
            block = block_type(block_plan, unit, plan.activation, scale, self.anti_alias, name=site)
            x = block(x, train, keys[i], rates[i])
            x = out[site] = apply_tap(tap, site, constrain_batch(x))
        x, out = spatial_sites(constrain_batch(x), out, tap)
        pooled = out["pooled"] = pooled_map(x, tap, precision)
        # A 1x1 convolution of the pooled vector: BatchNorm takes it as an image of one pixel.
        y = pooled.astype(precision.compute)[:, None, None]
        embedding = unit(y, train, self.head_width, 1, "head", activation=plan.activation)[:, 0, 0]
        key = self.make_rng("dropout") if train and self.dropout else None
        embedding = dropout(embedding, key, self.dropout)
        return classify(embedding, out, tap, self.num_classes, self.head_zero_init, precision)
