"""Inverted residual blocks and squeeze-and-excitation, the blocks of mobile networks."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.models.conv_layers import batch_norm, conv
from vision.models.layers import (
    as_output,
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
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap

Activation = Literal["relu", "relu6", "silu", "hard_swish", "gelu"]
Padding = Literal["symmetric", "same"]
Kind = Literal["inverted", "separable", "plain", "pointwise"]

_ACTIVATIONS: Mapping[Activation, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "relu6": nn.relu6,
    "silu": nn.silu,
    "hard_swish": nn.hard_swish,
    "gelu": functools.partial(nn.gelu, approximate=False),
}
_HE_FAN_IN = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class Row(NamedTuple):
    """Equal blocks of a stage; only the first block of a stage has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: float
    channels: int
    squeeze: bool
    activation: Activation
    kind: Kind = "inverted"


@dataclasses.dataclass(frozen=True)
class BlockPlan:
    """Sizes of one block.

    Attributes:
      stage: of the network, from 0; a stage is a row of the paper's table.
      kind: ``inverted``: 1x1 expansion, depthwise, 1x1 projection (Sandler et al., 2018);
        ``separable``: depthwise, 1x1 projection; ``plain``: depthwise, 1x1 convolution, and
        nothing added (Howard et al., 2017); ``pointwise``: one 1x1 convolution.
      channels: of the result.
      hidden: channels of the depthwise convolution.
      squeezed: channels between the two layers of squeeze-and-excitation; 0 for none.
      kernel: side of the depthwise kernel.
      stride: of the depthwise convolution.
      activation: after every convolution but the projection.
    """

    stage: int
    kind: Kind
    channels: int
    hidden: int
    squeezed: int
    kernel: int
    stride: int
    activation: Activation


@dataclasses.dataclass(frozen=True)
class MobilePlan:
    """All sizes of a mobile network.

    Attributes:
      stem: channels of the stem, a 3x3 convolution.
      blocks: in order.
      head: channels of the layer before the classifier; None for no such layer.
      activation: of the stem and of that layer.
      pooled_head: that layer is dense and follows pooling (MobileNetV3); otherwise it is a 1x1
        convolution with BatchNorm before pooling.
      squeeze_activation: between the layers of squeeze-and-excitation; None: the block's.
      hard_gate: the gate is a piecewise linear sigmoid.
      stem_stride: of the stem.
    """

    stem: int
    blocks: tuple[BlockPlan, ...]
    head: int | None
    activation: Activation
    pooled_head: bool = False
    squeeze_activation: Activation | None = None
    hard_gate: bool = False
    stem_stride: int = 2


def divisible(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of the divisor, but never less than nine tenths of ``channels``."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


def scaled_repeats(repeats: Sequence[int], multiplier: float) -> list[int]:
    """Numbers of blocks of a stage's rows: their sum times the multiplier, rounded up.

    Later rows get their share first, so that the first, which has the stride, grows last.
    """
    unassigned, remaining = sum(repeats), math.ceil(sum(repeats) * multiplier)
    scaled = []
    for n in reversed(repeats):
        scaled.append(max(1, round(n / unassigned * remaining)))
        unassigned, remaining = unassigned - n, remaining - scaled[-1]
    return scaled[::-1]


def plan_blocks(
    stages: Sequence[Sequence[Row]],
    stem: int,
    width_multiplier: float,
    depth_multipliers: Sequence[float],
    squeezed: Callable[[int, float], int],
) -> tuple[BlockPlan, ...]:
    """Blocks of a table of stages.

    Args:
      stages: the table, at multipliers of 1.
      stem: input channels of the first block.
      width_multiplier: of the channels of all blocks, which are rounded to multiples of 8.
      depth_multipliers: of the number of blocks, one per stage.
      squeezed: hidden channels and expansion to channels of squeeze-and-excitation.
    """
    blocks: list[BlockPlan] = []
    width = stem
    for stage, (rows, depth) in enumerate(zip(stages, depth_multipliers, strict=True)):
        stride = rows[0].stride
        for row, repeats in zip(
            rows, scaled_repeats([row.repeats for row in rows], depth), strict=True
        ):
            for _ in range(repeats):
                hidden = divisible(width * row.expansion) if row.kind == "inverted" else width
                blocks.append(
                    BlockPlan(
                        stage=stage,
                        kind=row.kind,
                        channels=divisible(row.channels * width_multiplier),
                        hidden=hidden,
                        squeezed=squeezed(hidden, row.expansion) if row.squeeze else 0,
                        kernel=row.kernel,
                        stride=stride,
                        activation=row.activation,
                    )
                )
                width, stride = blocks[-1].channels, 1
    return tuple(blocks)


class SqueezeExcite(nn.Module):
    """Scales channels by a gate computed from the pooled image (Hu et al., 2018): (B, h, w, C).

    Attributes:
      channels: of the squeezed vector.
      activation: after the first layer.
      hard_gate: hard sigmoid in the place of the sigmoid.
      precision: number formats.
    """

    channels: int
    activation: Activation
    hard_gate: bool
    precision: Precision

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.mean(axis=(1, 2), dtype=jnp.float32).astype(x.dtype)
        y = dense(y, self.channels, self.precision, "reduce", _HE_FAN_IN)
        y = _ACTIVATIONS[self.activation](y)
        y = dense(y, x.shape[-1], self.precision, "expand", _HE_FAN_IN)
        gate = nn.hard_sigmoid(y) if self.hard_gate else nn.sigmoid(y)
        return x * gate[:, None, None]


@dataclasses.dataclass(frozen=True)
class ConvNorm:
    """Convolutions with BatchNorm, with the settings of the whole network.

    Attributes:
      padding: ``symmetric`` as PyTorch pads, ``same`` as TensorFlow does: more on one side
        for strided convolutions.
      epsilon: of BatchNorm.
      precision: number formats.
    """

    padding: Padding
    epsilon: float
    precision: Precision

    def __call__(
        self,
        x: jax.Array,
        train: bool,
        channels: int,
        kernel: int,
        name: str,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None = None,
    ) -> jax.Array:
        """Makes layers ``<name>_conv`` and ``<name>_norm`` of the module that calls it."""
        x = conv(
            channels,
            kernel,
            stride,
            groups,
            "SAME" if self.padding == "same" else None,
            precision=self.precision,
            name=f"{name}_conv",
        )(x)
        x = batch_norm(x, train, self.precision, f"{name}_norm", epsilon=self.epsilon)
        return x if activation is None else _ACTIVATIONS[activation](x)


class MobileBlock(nn.Module):
    """One block; ``x`` is added to the projection where their shapes allow it.

    Stochastic depth drops the branch with probability ``rate`` if there is a ``key``.

    Attributes:
      plan: sizes of the block.
      unit: makes its convolutions with norm and activation.
      squeeze_activation: of squeeze and excitation; None for that of the block.
      hard_gate: of squeeze and excitation.
    """

    plan: BlockPlan
    unit: ConvNorm
    squeeze_activation: Activation | None
    hard_gate: bool

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, key: jax.Array | None, rate: jax.Array | None
    ) -> jax.Array:
        plan, unit, act = self.plan, self.unit, self.plan.activation
        if plan.kind == "pointwise":
            return unit(x, train, plan.channels, 1, "pointwise", activation=act)
        y = x
        if plan.kind == "inverted":
            y = unit(y, train, plan.hidden, 1, "expand", activation=act)
        y = unit(y, train, plan.hidden, plan.kernel, "depthwise", plan.stride, plan.hidden, act)
        if plan.squeezed:
            inner = self.squeeze_activation or act
            se = SqueezeExcite(plan.squeezed, inner, self.hard_gate, unit.precision, name="se")
            y = se(y)
        if plan.kind == "plain":
            return unit(y, train, plan.channels, 1, "project", activation=act)
        y = unit(y, train, plan.channels, 1, "project")
        if plan.stride == 1 and x.shape == y.shape:
            y = x + drop_path(y, key, rate)
        return y


# Number of a block, the block, its input: the result, and what is added to ``out``.
Around = Callable[
    [int, Callable[[jax.Array], jax.Array], jax.Array], tuple[jax.Array, dict[str, jax.Array]]
]


def run_mobile(
    tower: Any,
    plan: MobilePlan,
    x: jax.Array,
    train: bool,
    tap: Tap | None,
    around: Around | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Output of a mobile tower, as documented in ``vision.train.tower``.

    Args:
      tower: the module whose layers these are, with the fields of a ``MobileNetV2``.
      plan: its sizes.
      x: (B, h, w, C) images.
      train: training behaviour.
      tap: see ``Tap``.
      around: calls the blocks, or something in their place; None: just the blocks.
    """
    check_images(x)
    precision = tower.precision
    unit = ConvNorm(tower.padding, tower.norm_epsilon, precision)
    depth = len(plan.blocks)
    drop_key, keys = None, [None] * depth
    dropped = getattr(tower, "drop_path", 0.0)  # MobileNetV1 has no residuals to drop
    if train and (tower.dropout or dropped):
        drop_key, *keys = jax.random.split(tower.make_rng("dropout"), depth + 1)
    rates = drop_path_rates(dropped, depth)

    x = unit(x, train, plan.stem, 3, "stem", plan.stem_stride, activation=plan.activation)
    x = apply_tap(tap, "stem", constrain_batch(x))
    out = {"stem": x}
    block_type = rematerialise(MobileBlock, tower.remat, static=(2,))
    for i, block_plan in enumerate(plan.blocks):
        site = f"block{i:02d}"
        block = block_type(block_plan, unit, plan.squeeze_activation, plan.hard_gate, name=site)
        call = functools.partial(_called, block, train, keys[i], rates[i])
        x, more = (call(x), {}) if around is None else around(i, call, x)
        out |= more
        x = out[site] = apply_tap(tap, site, constrain_batch(x))

    if plan.head is not None and not plan.pooled_head:
        x = unit(x, train, plan.head, 1, "head", activation=plan.activation)
    x, out = spatial_sites(constrain_batch(x), out, tap)
    embedding = out["pooled"] = pooled_map(x, tap, precision)
    if plan.head is not None and plan.pooled_head:
        embedding = dense(embedding, plan.head, as_output(precision), "head_dense", _HE_FAN_IN)
        embedding = _ACTIVATIONS[plan.activation](embedding)
    embedding = dropout(embedding, drop_key, tower.dropout)
    return classify(embedding, out, tap, tower.num_classes, tower.head_zero_init, precision)


def _called(
    block: nn.Module, train: bool, key: jax.Array | None, rate: jax.Array | None, x: jax.Array
) -> jax.Array:
    return block(x, train, key, rate)  # pyright: ignore[reportCallIssue] - a module is callable
