"""The Mamba block of PlainMamba: depthwise convolution, four selective scans, gate."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vision.blocks.selective_scan import (
    STEPS,
    log_rates,
    scan_orders,
    selective_scan,
    step_bias,
)
from vision.models.conv_layers import conv
from vision.models.layers import (
    dense,
    drop_path,
    layer_norm,
)
from vision.models.posemb import Grid
from vision.models.transformer import Noise
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap

_SMALL = nn.initializers.truncated_normal(0.02)


# PyTorch's default for linear layers, as in Mamba; a deviation of 0.02 is too small for a narrow
# tower.
_LINEAR = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class MambaBlock(nn.Module):
    """``x + mamba(norm(x))`` on tokens (B, rows * columns, D); see the module.

    Returns the new tokens and the entries of ``out``, with the block's output under ``""``.

    Attributes:
      grid: rows and columns of the tokens.
      states: N, states per channel.
      expand: E / D.
      kernel: side of the depthwise convolution.
      snake: continuous scan orders; else every row and column is scanned in the same direction.
      directions: whether ``theta``, the encoding of the step's direction, is used.
      sequential: see ``selective_scan``.
      precision: number formats.
      tap: see ``vision.train.tower.Tap``.
      site: name of the block for the tap.
    """

    grid: Grid
    states: int
    expand: int
    kernel: int
    snake: bool
    directions: bool
    sequential: bool
    precision: Precision
    tap: Tap | None = None
    site: str = ""

    @nn.compact
    def __call__(
        self, x: jax.Array, noise: Noise | None, mask: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        batch, length, width = x.shape
        inner, precision = self.expand * width, self.precision
        y = layer_norm(x, precision, "norm")
        y = dense(y, 2 * inner, precision, "in", _LINEAR, shape=(2, inner))
        u, z = y[..., 0, :], y[..., 1, :]
        u = conv(inner, self.kernel, groups=inner, use_bias=True, precision=precision, name="conv")(
            u.reshape(batch, *self.grid, inner)
        )
        u = nn.silu(u).reshape(batch, length, inner)
        y = (self._scan(u).astype(x.dtype)) * nn.silu(z)
        y = dense(y, width, precision, "out", _LINEAR)
        key, rate = (None, None) if noise is None else noise
        x = apply_tap(self.tap, self.site, constrain_batch(x + drop_path(y, key, rate)))
        return x, {"": x}

    @nn.nowrap
    def _scan(self, u: jax.Array) -> jax.Array:
        """(B, L, E) to float32 (B, L, E): the sum of the four scans, in grid order."""
        inner, states, dtype = u.shape[-1], self.states, self.precision.params
        rank = math.ceil(inner / self.expand / 16)
        projected = dense(u, rank + 2 * states, self.precision, "project", _LINEAR, use_bias=False)
        r, b, c = jnp.split(projected.astype(jnp.float32), (rank, rank + states), axis=-1)
        uniform = nn.initializers.uniform(2 * rank**-0.5)

        def centred(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
            return uniform(key, shape, dtype) - jnp.asarray(rank**-0.5, dtype)

        delta = dense(r.astype(u.dtype), inner, self.precision, "dt", centred, step_bias)
        delta = nn.softplus(delta.astype(jnp.float32))
        a = -jnp.exp(self.param("a_log", log_rates, (inner, states), dtype).astype(jnp.float32))
        skip = self.param("skip", nn.initializers.ones, (inner,), dtype)
        orders, steps = scan_orders(*self.grid, snake=self.snake)

        def in_order(x: jax.Array) -> jax.Array:
            return jnp.moveaxis(x[:, orders], 1, 0)

        b_ordered = in_order(b)
        if self.directions:
            theta = self.param("directions", _SMALL, (len(STEPS), states), dtype)
            b_ordered = b_ordered + theta.astype(jnp.float32)[steps][:, None]
        y = selective_scan(
            in_order(u),
            in_order(delta),
            a,
            b_ordered,
            in_order(c),
            skip,
            sequential=self.sequential,
        )
        inverse = np.argsort(orders, axis=1)[:, None, :, None]
        return constrain_batch(jnp.take_along_axis(y, inverse, axis=2).sum(0))
