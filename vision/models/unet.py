"""The U-Net of diffusion models: from images and their time step to the predicted noise."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import NonEmpty, Positive, Rate, checked
from vision.models.conv_layers import conv
from vision.models.layers import (
    Remat,
    as_output,
    check_images,
    dense,
    dropout,
    pooled_map,
    rematerialise,
    spatial_sites,
)
from vision.models.transformer import Attention, BlockInit
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap

_ZEROS = nn.initializers.zeros
_LECUN = nn.initializers.lecun_normal()


def time_embedding(time: jax.Array, width: int) -> jax.Array:
    """float32 (B, width): cosines, then sines, of steps (B,) at periods of 2 pi to 20,000 pi."""
    half = width // 2
    frequency = jnp.exp(-math.log(10_000) * jnp.arange(half) / half)
    angle = time.astype(jnp.float32)[:, None] * frequency
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


@checked
class UNet(nn.Module):
    """Ho et al., 2020, with the changes of Dhariwal and Nichol, 2021.

    Called with images (B, H, W, C) and ``time`` int (B,), it returns ``(embedding, out)``. Every
    residual block is scaled and shifted by the time; it is one ``blockNN``, (B, h, w, width times
    the level's multiplier), with the self-attention that follows it where there is one. They count
    through the encoder (``depth`` per level), the middle (one, of two residual blocks around
    attention), and the decoder (``depth + 1`` per level). The decoder reads the outputs of the
    stem, every block and every downsampling of the encoder. Sides are halved between levels; those
    of images are multiples of ``patch * 2 ** (levels - 1)``.

    ``map`` and ``tokens`` are the last block's after the norm, ``pooled`` and ``embedding`` its
    mean over positions, and ``noise`` (B, H, W, C) the prediction: zero at initialisation.

    Attributes:
      width: channels of the first level.
      multipliers: of the width, one per level from fine to coarse.
      depth: residual blocks per level of the encoder.
      patch: side of the patches that are the positions of the finest level; 1 for pixels.
      attention: levels with self-attention, counted from 0, the finest.
      heads: of attention.
      groups: of the norms; they divide all numbers of channels.
      dropout: within residual blocks.
      remat: what a block keeps for the backward pass: ``none`` keeps all, ``full`` only its
        input, ``dots`` also the results of convolutions and of products with parameters.
      precision: number formats.
    """

    width: Positive[int] = 128
    multipliers: NonEmpty[tuple[Positive[int], ...]] = (1, 2, 2, 2)
    depth: Positive[int] = 2
    patch: Positive[int] = 1
    attention: tuple[int, ...] = (1,)
    heads: Positive[int] = 1
    groups: Positive[int] = 32
    dropout: Rate = 0.0
    remat: Remat = "none"
    precision: Precision = Precision()

    def __post_init__(self) -> None:
        if self.width % self.groups or self.width % (2 * self.heads):
            raise ValueError(f"width={self.width} is a multiple of groups and of 2 * heads")
        if wrong := [i for i in self.attention if not 0 <= i < len(self.multipliers)]:
            raise ValueError(f"attention={self.attention}: there is no level {wrong[0]}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: jax.Array, time: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        levels, channels = len(self.multipliers), x.shape[-1]
        least = self.patch * 2 ** (levels - 1)
        if x.shape[1] % least or x.shape[2] % least:
            raise ValueError(
                f"images of {x.shape[1]} x {x.shape[2]} for {levels} levels of patch={self.patch}: "
                f"both sides have to be multiples of {least}"
            )
        widths = [self.width * m for m in self.multipliers]
        condition = time_embedding(time, self.width).astype(self.precision.compute)
        for i in range(2):
            condition = dense(
                nn.silu(condition) if i else condition,
                4 * self.width,
                self.precision,
                f"time{i}",
                _LECUN,
            )
        condition = nn.silu(condition)
        out: dict[str, jax.Array] = {}
        number = 0

        def site(x: jax.Array) -> jax.Array:
            nonlocal number
            name = f"block{number:02d}"
            number += 1
            out[name] = apply_tap(tap, name, constrain_batch(x))
            return out[name]

        def block(x: jax.Array, level: int) -> jax.Array:
            name = f"block{number:02d}"

            def layers(self: UNet, x: jax.Array, condition: jax.Array) -> jax.Array:
                x = self._residual(x, condition, widths[level], name, train)
                return self._attend(x, f"{name}_attn") if level in self.attention else x

            return rematerialise(layers, self.remat)(self, x, condition)

        x = self._conv(folded(x, self.patch), self.width, "stem")
        x = out["stem"] = apply_tap(tap, "stem", x)
        skips = [x]
        for level in range(levels):
            if level:
                x = self._conv(x, widths[level - 1], f"downsample{level}", stride=2)
                skips.append(x)
            for _ in range(self.depth):
                x = site(block(x, level))
                skips.append(x)
        name = f"block{number:02d}"
        x = self._residual(x, condition, widths[-1], name, train)
        x = self._attend(x, f"{name}_attn")
        x = site(self._residual(x, condition, widths[-1], f"{name}_last", train))
        for level in reversed(range(levels)):
            for _ in range(self.depth + 1):
                x = site(block(jnp.concatenate([x, skips.pop()], axis=-1), level))
            if level:
                x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
                x = self._conv(x, widths[level], f"upsample{level}")
        x, out = spatial_sites(nn.silu(self._norm(x, "norm")), out, tap)
        noise = conv(
            channels * self.patch**2,
            3,
            use_bias=True,
            precision=as_output(self.precision),
            name="noise",
            kernel_init=_ZEROS,
        )(x)
        out["noise"] = apply_tap(tap, "noise", constrain_batch(unfolded(noise, self.patch)))
        out["pooled"] = pooled_map(x, tap, self.precision)
        out["embedding"] = apply_tap(tap, "embedding", out["pooled"])
        return out["embedding"], out

    @nn.nowrap
    def _conv(
        self, x: jax.Array, channels: int, name: str, stride: int = 1, zero: bool = False
    ) -> jax.Array:
        init = _ZEROS if zero else _LECUN
        layer = conv(
            channels,
            3,
            stride,
            use_bias=True,
            precision=self.precision,
            name=name,
            kernel_init=init,
        )
        return constrain_batch(layer(x))

    @nn.nowrap
    def _norm(self, x: jax.Array, name: str) -> jax.Array:
        return nn.GroupNorm(
            num_groups=self.groups,
            dtype=self.precision.compute,
            param_dtype=self.precision.params,
            name=name,
        )(x)

    @nn.nowrap
    def _residual(
        self, x: jax.Array, about: jax.Array, channels: int, name: str, train: bool
    ) -> jax.Array:
        key = self.make_rng("dropout") if train and self.dropout else None
        y = self._conv(nn.silu(self._norm(x, f"{name}_norm1")), channels, f"{name}_conv1")
        change = dense(about, 2 * channels, self.precision, f"{name}_time", _LECUN)
        scale, shift = jnp.split(change[:, None, None], 2, axis=-1)
        y = nn.silu(self._norm(y, f"{name}_norm2") * (1 + scale) + shift)
        y = self._conv(dropout(y, key, self.dropout), channels, f"{name}_conv2", zero=True)
        if x.shape[-1] != channels:
            x = dense(x, channels, self.precision, f"{name}_skip", _LECUN)
        return x + y

    @nn.nowrap
    def _attend(self, x: jax.Array, name: str) -> jax.Array:
        tokens = self._norm(x, f"{name}_norm").reshape(x.shape[0], -1, x.shape[-1])
        kernels = BlockInit(proj=_ZEROS)
        layer = Attention(self.heads, True, self.precision, None, kernels, name=name)
        return x + layer(tokens, None, name)[0].reshape(x.shape)


def folded(x: jax.Array, patch: int) -> jax.Array:
    """(B, h, w, C) to (B, h / patch, w / patch, patch patch C)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // patch, patch, width // patch, patch, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height // patch, width // patch, -1)


def unfolded(x: jax.Array, patch: int) -> jax.Array:
    """The inverse of ``folded``."""
    batch, rows, columns, _ = x.shape
    x = x.reshape(batch, rows, columns, patch, patch, -1).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, rows * patch, columns * patch, -1)
