"""PlainMamba: blocks of one width whose tokens are scanned along continuous paths over the image.

Yang et al., PlainMamba: Improving Non-Hierarchical Mamba in Visual Recognition, 2024. A block is
``x + mamba(norm(x))``, with E = 2 D channels and N states of each inside:

    u, z = in(x);  u = silu(conv7x7(u));  r, B, C = project(u);  delta = softplus(dt(r))
    h_t = exp(delta_t A) h_{t-1} + delta_t (B_t + theta_step(t)) u_t,  y_t = C_t h_t + D u_t
    mamba = out(silu(z) * sum of y over four orders, each put back into its place)

The orders are snakes over rows and over columns, and both backwards, so that what follows in the
sequence is a neighbour in the image; ``theta`` (5, N) says in which direction the step went.

The authors' code permutes ``u`` alone, while delta, B and C keep the order of the rows, and adds
the bias of ``dt`` twice; here all four go along and the bias is added once. Its smallest variant
also has a depthwise convolution after the first block, which is left out here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from papers.plain_mamba.selective_scan import STEPS, scan_orders, selective_scan
from vision.config.ranges import NonNegative, Odd, Positive, Rate, checked, one_of
from vision.models.conv_layers import batch_norm, conv
from vision.models.layers import (
    Remat,
    check_images,
    classify,
    dense,
    drop_path,
    layer_norm,
    spatial_sites,
)
from vision.models.posemb import Grid, resample_posemb
from vision.models.transformer import Noise, run_blocks
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above

Stem = Literal["convolutions", "patches"]

# name: width, depth, 3x3 convolutions of the stem.
SIZES: Mapping[str, tuple[int, int, int]] = {
    "L1": (192, 24, 1),
    "L2": (384, 24, 2),
    "L3": (448, 36, 2),
}
_STEM_WIDTH = 64
_SMALL = nn.initializers.truncated_normal(0.02)
# PyTorch's default for linear layers, which Mamba starts from; 0.02 is nothing to a narrow tower.
_LINEAR = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _rates(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """``log(-A)`` for A = -1, -2, .., -N in every channel."""
    return jnp.broadcast_to(jnp.log(jnp.arange(1, shape[1] + 1, dtype=dtype)), shape)


def _step_bias(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Whose softplus is log-uniform in [1e-3, 0.1]."""
    low, high = math.log(1e-3), math.log(0.1)
    delta = jnp.exp(jax.random.uniform(key, shape, dtype, low, high))
    return delta + jnp.log(-jnp.expm1(-delta))


class MambaBlock(nn.Module):
    """``x + mamba(norm(x))`` on tokens (B, rows * columns, D); see the module.

    Returns the new tokens and, under ``""``, what belongs into ``out``.

    Attributes:
      grid: rows and columns of the tokens.
      states: of the recurrence, per channel.
      expand: inner width over D.
      kernel: side of the depthwise convolution.
      snake: paths turn at the ends of rows; otherwise they jump back.
      directions: a learned term tells the direction of every step.
      sequential: one path after the other, for comparison; see ``PlainMamba``.
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
        """(B, L, E) to float32: the sum of four scans."""
        inner, states, dtype = u.shape[-1], self.states, self.precision.params
        rank = math.ceil(inner / self.expand / 16)
        given = dense(u, rank + 2 * states, self.precision, "project", _LINEAR, use_bias=False)
        r, b, c = jnp.split(given.astype(jnp.float32), (rank, rank + states), axis=-1)
        spread = nn.initializers.uniform(2 * rank**-0.5)

        def centred(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
            return spread(key, shape, dtype) - jnp.asarray(rank**-0.5, dtype)

        delta = dense(r.astype(u.dtype), inner, self.precision, "dt", centred, _step_bias)
        delta = nn.softplus(delta.astype(jnp.float32))
        a = -jnp.exp(self.param("a_log", _rates, (inner, states), dtype).astype(jnp.float32))
        skip = self.param("skip", nn.initializers.ones, (inner,), dtype)
        orders, steps = scan_orders(*self.grid, snake=self.snake)

        def along(x: jax.Array) -> jax.Array:
            return jnp.moveaxis(x[:, orders], 1, 0)

        written = along(b)
        if self.directions:
            theta = self.param("directions", _SMALL, (len(STEPS), states), dtype)
            written = written + theta.astype(jnp.float32)[steps][:, None]
        y = selective_scan(
            along(u), along(delta), a, written, along(c), skip, sequential=self.sequential
        )
        places = np.argsort(orders, axis=1)[:, None, :, None]
        return constrain_batch(jnp.take_along_axis(y, places, axis=2).sum(0))


@checked
class PlainMamba(nn.Module):
    """See the module. Called with (B, h, w, C) float images whose sides the patch divides.

    Returns ``(embedding, out)`` as ``vision.train.tower`` says, without prefix tokens: ``stem`` and
    the blocks are (B, N, D), ``pooled`` is the mean of ``map``.

    Attributes:
      variant: ``L1``, ``L2`` or ``L3``.
      width, depth, stem_convs: override the variant, or stand without one.
      patch: side in pixels; even with the stem of convolutions.
      num_classes: classes of the head; None and 0 both mean no head.
      stem: ``convolutions``: 7 x 7 of stride 2, then ``stem_convs`` of 3 x 3, each with BatchNorm
        and ReLU, then patches of what is left; ``patches``: of the image itself.
      states: N of every channel.
      expand: E / D.
      kernel: side of the depthwise convolution; 1 leaves only the scan to mix places.
      snake: continuous orders; else every row and column is read from the same side.
      directions: whether the recurrence knows the direction of its step.
      sequential: see ``selective_scan``; what a CPU computes faster.
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
        if x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise ValueError(
                f"image of {x.shape[1]}x{x.shape[2]} is not divisible by the patch "
                f"{self.patch}x{self.patch}: resize the images or choose another patch"
            )
        grid = (x.shape[1] // self.patch, x.shape[2] // self.patch)
        sizes = SIZES.get(self.variant or "", (0, 0, 1))
        width, depth = self.width or sizes[0], self.depth or sizes[1]
        convs = sizes[2] if self.stem_convs is None else self.stem_convs

        x = self._embed(x.astype(self.precision.compute), width, convs, train)
        x = x + self._positions(grid, width).astype(x.dtype)
        x = x.reshape(-1, grid[0] * grid[1], width)
        x = apply_tap(tap, "stem", constrain_batch(x))
        fields = {
            "grid": grid,
            "states": self.states,
            "expand": self.expand,
            "kernel": self.kernel,
            "snake": self.snake,
            "directions": self.directions,
            "sequential": self.sequential,
            "precision": self.precision,
        }
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
        y = layer_norm(y, self.precision, "norm")
        y, out = spatial_sites(y.reshape(-1, *grid, width), {"stem": x, **out}, tap)
        pooled = y.mean((1, 2), dtype=jnp.float32).astype(self.precision.output)
        pooled = out["pooled"] = apply_tap(tap, "pooled", pooled)
        return classify(pooled, out, tap, self.num_classes, self.head_zero_init, self.precision)

    @nn.nowrap
    def _embed(self, x: jax.Array, width: int, convs: int, train: bool) -> jax.Array:
        """(B, h, w, C) to (B, rows, columns, D)."""
        patch, precision = self.patch, self.precision
        if self.stem == "convolutions":
            patch //= 2
            for i, (kernel, stride) in enumerate([(7, 2), *[(3, 1)] * convs]):
                x = conv(_STEM_WIDTH, kernel, stride, precision=precision, name=f"stem_conv{i}")(x)
                x = nn.relu(batch_norm(x, train, precision, f"stem_norm{i}"))
        return conv(
            width, patch, patch, padding=0, use_bias=True, precision=precision, name="patch_embed"
        )(x)

    @nn.nowrap
    def _positions(self, grid: Grid, width: int) -> jax.Array:
        if not self.has_variable("params", "pos_embed"):
            init = nn.initializers.normal(width**-0.5)
            return self.param("pos_embed", init, (*grid, width), self.precision.params)
        pos = self.get_variable("params", "pos_embed")
        return resample_posemb(pos, pos.shape[:2], grid)
