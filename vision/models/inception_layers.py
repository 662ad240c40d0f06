"""Parallel branches of convolutions, the blocks of both Inception networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.models.conv_layers import batch_norm, conv
from vision.models.convolution import max_pool
from vision.models.layers import (
    check_images,
    classify,
    dropout,
    pooled_map,
    rematerialise,
    spatial_sites,
)
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap

# Both networks reduce the image by 32 and do so mostly without padding.
SMALLEST_PX = 75


class Conv(NamedTuple):
    """Convolution, BatchNorm and ReLU.

    Attributes:
      channels: of the result, at a width multiplier of 1.
      kernel: height and width.
      stride: of both axes.
      padded: by half the kernel, otherwise not at all.
    """

    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True


# Max pooling has stride 2 and no padding; average pooling has stride 1 and keeps the size.
Pool = Literal["max", "average"]
# Convolutions in a tuple are parallel and have the same input.
Step = Conv | Pool | tuple[Conv, ...]
Branch = tuple[Step, ...]
Branches = tuple[Branch, ...]


class Plan(NamedTuple):
    """A block: its branches, the scale of their sum if it is residual, and whether ReLU follows.

    Attributes:
      branches: steps of every branch.
      residual_scale: of what is added to the block's input; None where nothing is.
      relu: whether a ReLU follows the sum.
      shortcut: whether the input is added at all: without, the 1x1 convolution's result stands
        alone, at the same cost.
    """

    branches: Branches
    residual_scale: float | None = None
    relu: bool = True
    shortcut: bool = True


def scaled(channels: int, width_multiplier: float) -> int:
    """``channels`` times the multiplier.

    Raises:
      ValueError: it is not a positive whole number.
    """
    product = channels * width_multiplier
    if product < 1 or not float(product).is_integer():
        raise ValueError(
            f"width_multiplier={width_multiplier} times {channels} channels is not a whole number"
        )
    return int(product)


def convolutions(branches: Branches) -> dict[tuple[int, int, str], Conv]:
    """All convolutions by branch, step, and index among parallel ones: ``""``, ``a``, ``b``."""
    layers = {}
    for i, branch in enumerate(branches):
        for j, step in enumerate(branch):
            if isinstance(step, Conv):
                layers[i, j, ""] = step
            elif not isinstance(step, str):
                layers |= {(i, j, "ab"[k]): sizes for k, sizes in enumerate(step)}
    return layers


def check_channels(blocks: Sequence[Branches], width_multiplier: float) -> None:
    """Raises ValueError where a convolution would have a fraction of a channel."""
    for branches in blocks:
        for sizes in convolutions(branches).values():
            scaled(sizes.channels, width_multiplier)


class ConvUnit(nn.Module):
    """relu(norm(conv(x))).

    Attributes:
      sizes: of the convolution.
      width_multiplier: of its channels.
      precision: number formats.
    """

    sizes: Conv
    width_multiplier: float
    precision: Precision

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        height, width = self.sizes.kernel
        x = conv(
            scaled(self.sizes.channels, self.width_multiplier),
            self.sizes.kernel,
            self.sizes.stride,
            padding=(height // 2, width // 2) if self.sizes.padded else 0,
            precision=self.precision,
            name="conv",
        )(x)
        # Weights trained with TensorFlow, whose BatchNorm has this epsilon.
        return nn.relu(batch_norm(x, train, self.precision, "norm", epsilon=1e-3))


class Mixed(nn.Module):
    """Parallel branches, their results concatenated along the channels.

    Step j of branch i is ``branch<i>_<j>``, pooling included; parallel convolutions are
    ``branch<i>_<j>a``, ``branch<i>_<j>b``. With ``residual_scale`` a 1x1 convolution ``project``
    of the result, times the scale, is added to ``x``, and ReLU follows if ``relu``.

    Attributes:
      plan: of the block.
      width_multiplier: of the channels.
      precision: number formats.
    """

    plan: Plan
    width_multiplier: float
    precision: Precision

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        def unit(sizes: Conv, y: jax.Array, name: str) -> jax.Array:
            return ConvUnit(sizes, self.width_multiplier, self.precision, name=name)(y, train)

        results = []
        for i, branch in enumerate(self.plan.branches):
            y = x
            for j, step in enumerate(branch):
                name = f"branch{i}_{j}"
                if step == "max":
                    y = max_pool(y, (3, 3), (2, 2), ((0, 0), (0, 0)))
                elif step == "average":
                    # SAME is one on each side; what is outside the image does not count.
                    y = nn.avg_pool(y, (3, 3), padding="SAME", count_include_pad=False)
                elif isinstance(step, Conv):
                    y = unit(step, y, name)
                else:
                    named = zip(step, "ab", strict=True)
                    y = jnp.concatenate([unit(c, y, name + suffix) for c, suffix in named], -1)
            results.append(y)
        y = jnp.concatenate(results, axis=-1)
        plan = self.plan
        if plan.residual_scale is None:
            return y
        project = conv(x.shape[-1], 1, use_bias=True, precision=self.precision, name="project")
        y = x + plan.residual_scale * project(y) if plan.shortcut else project(y)
        return nn.relu(y) if plan.relu else y


def stack(
    tower: Any,
    x: jax.Array,
    stem: Sequence[Branches],
    blocks: Sequence[Plan],
    train: bool,
    tap: Tap | None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Stem and blocks of an Inception tower, as modules ``stem0``.. and ``block00``.. of it.

    Returns the last map, and ``out`` with ``stem`` and the blocks.
    """
    block_type = rematerialise(Mixed, tower.remat, static=(2,))

    def mixed(x: jax.Array, plan: Plan, name: str) -> jax.Array:
        block = block_type(plan, tower.width_multiplier, tower.precision, name=name)
        return constrain_batch(block(x, train))

    for i, branches in enumerate(stem):
        x = mixed(x, Plan(branches), f"stem{i}")
    x = apply_tap(tap, "stem", x)
    out = {"stem": x}
    for i, plan in enumerate(blocks):
        site = f"block{i:02d}"
        x = out[site] = apply_tap(tap, site, mixed(x, plan, site))
    return x, out


def check_size(x: jax.Array) -> None:
    """Raises unless ``x`` can be a batch of images of at least ``SMALLEST_PX`` each side."""
    check_images(x)
    if min(x.shape[1:3]) < SMALLEST_PX:
        raise ValueError(
            f"image of {x.shape[1]}x{x.shape[2]} is smaller than {SMALLEST_PX}x{SMALLEST_PX}: "
            "resize the images"
        )


def end_tower(
    tower: Any, x: jax.Array, out: dict[str, jax.Array], train: bool, tap: Tap | None
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Sites from ``tokens`` on, of an Inception tower: mean over positions, dropout, head."""
    x, out = spatial_sites(x, out, tap)
    pooled = out["pooled"] = pooled_map(x, tap, tower.precision)
    key = tower.make_rng("dropout") if train and tower.dropout else None
    embedding = dropout(pooled, key, tower.dropout)
    return classify(embedding, out, tap, tower.num_classes, tower.head_zero_init, tower.precision)
