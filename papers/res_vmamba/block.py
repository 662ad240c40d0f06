"""The block of VMamba: a selective scan of the plane in four orders, each with its own weights."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vision.blocks.selective_scan import log_rates, scan_orders, selective_scan, step_bias
from vision.models.conv_layers import conv
from vision.models.layers import dense, drop_path, layer_norm
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap

# PyTorch's default for linear layers.
LINEAR = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
ORDERS = 4


def cross_scan(x: jax.Array) -> jax.Array:
    """(B, h, w, C) as sequences (4, B, h w, C): by rows, by columns, and both from the end."""
    batch, rows, columns, channels = x.shape
    orders, _ = scan_orders(rows, columns, snake=False)
    return jnp.moveaxis(x.reshape(batch, rows * columns, channels)[:, orders], 1, 0)


def cross_merge(y: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """The sum (B, h, w, C) of four sequences (4, B, h w, C), each put back in its places."""
    orders, _ = scan_orders(*grid, snake=False)
    inverse = np.argsort(orders, axis=1)[:, None, :, None]
    y = jnp.take_along_axis(y, inverse, axis=2).sum(0)
    return y.reshape(y.shape[0], *grid, y.shape[-1])


class VSSBlock(nn.Module):
    """``x + drop_path(SS2D(norm(x)))`` on maps (B, h, w, C); see ``method``.

    Attributes:
      states: N, states per channel.
      expand: E / C.
      sequential: see ``selective_scan``.
      precision: number formats; the scan itself is float32.
      tap: see ``vision.train.tower.Tap``.
      site: name of the block for the tap.
    """

    states: int
    expand: int
    sequential: bool
    precision: Precision
    tap: Tap | None = None
    site: str = ""

    @nn.compact
    def __call__(
        self, x: jax.Array, key: jax.Array | None = None, rate: jax.Array | None = None
    ) -> jax.Array:
        width, precision = x.shape[-1], self.precision
        inner = self.expand * width
        y = layer_norm(x, precision, "norm")
        y = dense(y, 2 * inner, precision, "in", LINEAR, use_bias=False, shape=(2, inner))
        u, z = y[..., 0, :], y[..., 1, :]
        u = conv(inner, 3, groups=inner, use_bias=True, precision=precision, name="conv")(u)
        y = layer_norm(self._scan(nn.silu(u)).astype(x.dtype), precision, "out_norm")
        y = dense(y * nn.silu(z), width, precision, "out", LINEAR, use_bias=False)
        x = constrain_batch(x + drop_path(y, key, rate))
        return apply_tap(self.tap, self.site, x)

    @nn.nowrap
    def _scan(self, u: jax.Array) -> jax.Array:
        """(B, h, w, E) to float32 of that shape: the sum of the four scans."""
        grid, inner, states = u.shape[1:3], u.shape[-1], self.states
        rank = math.ceil(inner / self.expand / 16)
        dtype = self.precision.params

        def weights(name: str, init: Any, *shape: int) -> jax.Array:
            return self.param(name, init, (ORDERS, *shape), dtype).astype(jnp.float32)

        def one_by_one(init: Any) -> Any:
            def drawn(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
                keys = jax.random.split(key, ORDERS)
                return jnp.stack([init(each, shape[1:], dtype) for each in keys])

            return drawn

        def centred(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -(rank**-0.5), rank**-0.5)

        project = weights("project", one_by_one(LINEAR), inner, rank + 2 * states)
        to_step = weights("dt_kernel", centred, rank, inner)
        bias = weights("dt_bias", step_bias, inner)
        a = -jnp.exp(weights("a_log", log_rates, inner, states))
        skip = weights("skip", nn.initializers.ones, inner)

        sequences = cross_scan(u).astype(jnp.float32)
        projected = jnp.einsum("kble,kef->kblf", sequences, project)
        r, b, c = jnp.split(projected, (rank, rank + states), axis=-1)
        delta = nn.softplus(jnp.einsum("kblr,kre->kble", r, to_step) + bias[:, None, None])

        def scan(*given: jax.Array) -> jax.Array:
            return selective_scan(*given, sequential=self.sequential)

        y = jax.vmap(scan)(sequences, delta, a, b, c, skip)
        return constrain_batch(cross_merge(y, grid))  # pyright: ignore[reportArgumentType]
