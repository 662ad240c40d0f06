"""Stages of attention among patches, a class token and tokens of metadata."""

from __future__ import annotations

from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vision.models.conv_layers import conv
from vision.models.layers import activate, as_output, dense, layer_norm
from vision.models.posemb import Grid
from vision.models.relative_bias import bias_of, offset_rows
from vision.models.relative_vit import RelativeBlock
from vision.train.precision import Precision
from vision.train.tower import Tap

_SMALL = nn.initializers.truncated_normal(0.02)
_TORCH = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
Noise = tuple[jax.Array | None, jax.Array]


class MetaToken(nn.Module):
    """Numbers (B, M) of a field to a token (B, 1, width).

    A dense layer, ReLU and LayerNorm, then two more of each beside a skip.

    Attributes:
      width: of the token.
      precision: number formats.
    """

    width: int
    precision: Precision

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def layer(x: jax.Array, number: int) -> jax.Array:
            x = nn.relu(dense(x, self.width, self.precision, f"fc{number}", _SMALL))
            return layer_norm(x, self.precision, f"norm{number}", 1e-5)

        x = layer(x.astype(self.precision.compute), 0)
        return (x + layer(layer(x, 1), 2))[:, None]


def rows_of(grid: Grid, extra: int) -> np.ndarray:
    """int (extra + N, extra + N): row of a bias table; the last, after those of the offsets, is
    that of every pair with a token that has no place."""
    last = (2 * grid[0] - 1) * (2 * grid[1] - 1)
    return np.pad(offset_rows(grid, grid), ((extra, 0), (extra, 0)), constant_values=last)


class MetaStages(nn.Module):
    """(B, h, w, C) and fields, a tuple of (B, M), to (B, D) and the map of the last stage.

    Every stage halves the map by a 3 x 3 convolution, puts a class token of its own and the fields,
    encoded anew, before the patches, and has blocks of attention with a bias by offset. The class
    tokens of both stages are mixed by a weight each.

    Attributes:
      widths: of the two stages.
      depths: blocks of each.
      heads: of attention.
      precision: number formats.
      tap: see ``vision.train.tower.Tap``.
      first: number of the first block, for its name.
    """

    widths: tuple[int, int]
    depths: tuple[int, int]
    heads: int
    precision: Precision
    tap: Tap | None = None
    first: int = 0

    @nn.compact
    def __call__(
        self, x: jax.Array, fields: tuple[jax.Array, ...], noise: Iterator[Noise]
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        precision, stored = self.precision, self.precision.params
        out: dict[str, jax.Array] = {}
        classes, number, extra = [], self.first, 1 + len(fields)
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            x = conv(width, 3, 2, use_bias=True, precision=precision, name=f"down{stage}")(x)
            x = layer_norm(x, precision, f"down{stage}_norm", 1e-5)
            batch, grid = len(x), (x.shape[1], x.shape[2])
            token = self.param(f"class{stage}", _SMALL, (1, 1, width), stored).astype(x.dtype)
            tokens = [jnp.broadcast_to(token, (batch, 1, width))]
            for i, field in enumerate(fields):
                tokens.append(MetaToken(width, precision, name=f"meta{stage}_{i}")(field))
            x = jnp.concatenate([*tokens, x.reshape(batch, -1, width)], 1)
            rows = rows_of(grid, extra)
            for _ in range(depth):
                site = f"block{number:02d}"
                shape = (int(rows.max()) + 1, self.heads)
                table = self.param(f"{site}_bias", _SMALL, shape, stored)
                block = RelativeBlock(
                    self.heads, 4 * width, 0.0, None, True, precision, None,
                    norm_epsilon=1e-5, biases="none", tap=self.tap, site=site, name=site,
                )  # fmt: skip
                bias = bias_of(table.astype(jnp.float32), rows)
                x, entries = block(x, next(noise), bias)  # pyright: ignore[reportArgumentType]
                out |= {f"{site}/{key}".rstrip("/"): value for key, value in entries.items()}
                number += 1
            classes.append(x[:, 0])
            x = x[:, extra:].reshape(batch, *grid, width)
        return self._mixed(*classes), x, out

    @nn.nowrap
    def _mixed(self, early: jax.Array, late: jax.Array) -> jax.Array:
        precision, width = as_output(self.precision), late.shape[-1]
        y = layer_norm(early, precision, "early_norm1", 1e-5)
        y = activate(dense(y, early.shape[-1], precision, "early_fc1", _SMALL), "gelu")
        y = layer_norm(
            dense(y, width, precision, "early_fc2", _SMALL), precision, "early_norm2", 1e-5
        )
        both = jnp.stack([y, layer_norm(late, precision, "late_norm", 1e-5)], -1)
        mixed = dense(both, 1, precision, "mix", _TORCH)
        return layer_norm(mixed[..., 0], precision, "norm", 1e-5)
