"""The block of GLNet: convolutions on the grid beside attention among a few slots."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vision.blocks.similarity import unit
from vision.models.conv_layers import conv
from vision.models.layers import LayerScale, activate, drop_path, layer_norm
from vision.models.transformer import Attention
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap

_SMALL = nn.initializers.truncated_normal(0.02)


def average_windows(size: int, bins: int) -> np.ndarray:
    """(bins, size) float32, rows that sum to 1: windows from floor(i size / bins) to
    ceil((i + 1) size / bins), which overlap where ``bins`` does not divide ``size``."""
    windows = np.zeros((bins, size), np.float32)
    for i in range(bins):
        first, last = i * size // bins, -(-(i + 1) * size // bins)
        windows[i, first:last] = 1 / (last - first)
    return windows


def pooled_slots(x: jax.Array, slots: int) -> jax.Array:
    """Means of (B, h, w, C) over a square grid of windows: (B, slots, C) float32."""
    side = round(slots**0.5)
    rows, columns = (average_windows(size, side) for size in x.shape[1:3])
    pooled = jnp.einsum("ih,bhwc,jw->bijc", rows, x.astype(jnp.float32), columns)
    return pooled.reshape(x.shape[0], slots, -1)


def soft_clusters(slots: jax.Array, x: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weights of tokens in slots and of slots in tokens, from scaled cosines.

    Args:
      slots: (B, S, C).
      x: (B, N, C).
      scale: scalar.

    Returns:
      float32 (B, S, N), whose rows sum to 1 over the tokens: what a slot is the mean of; and
      (B, N, S), whose rows sum to 1 over the slots: what a token is given of each.
    """
    logits = scale.astype(jnp.float32) * jnp.einsum("bsc,bnc->bsn", unit(slots), unit(x))
    return jax.nn.softmax(logits, -1), jax.nn.softmax(logits.swapaxes(1, 2), -1)


@dataclasses.dataclass(frozen=True)
class Mixing:
    """What the blocks of a tower have in common.

    Attributes:
      slots: their number, a square.
      learned_slots: slots start from learned vectors in the place of means over windows.
      local: side of the depthwise kernel beside the slots; 0 for no convolutions.
      attend: slots attend to each other.
      position: side of a depthwise kernel before the block, which says where tokens are; 0 for
        none.
      mlp_ratio: hidden width of the MLP over C.
      mlp_local: a depthwise 3 x 3 convolution is added to its hidden map.
      head: channels of an attention head.
      layer_scale: initial factor of both branches; None for none.
    """

    slots: int = 64
    learned_slots: bool = False
    local: int = 5
    attend: bool = True
    position: int = 0
    mlp_ratio: int = 4
    mlp_local: bool = False
    head: int = 32
    layer_scale: float | None = None


class MixBlock(nn.Module):
    """``x + mix(norm(x))``, then ``x + mlp(norm(x))`` on (B, h, w, C), with LayerNorms.

    ``mix`` is that of the paper or, with ``plain``, attention among all tokens.
    Returns the map and, under ``""``, ``mix``, ``mlp``, and ``assignment`` (B, h, w, slots), the
    entries of ``out`` below the name of the block; the last only with slots.

    Attributes:
      mixing: see there.
      plain: attention among all tokens in the place of slots and convolutions.
      precision: number formats.
      tap: see ``vision.train.tower.Tap``.
      site: name of the block for the tap.
    """

    mixing: Mixing
    plain: bool
    precision: Precision
    tap: Tap | None = None
    site: str = ""

    @nn.compact
    def __call__(
        self, x: jax.Array, key: jax.Array | None, rate: jax.Array | float
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        mixing, precision = self.mixing, self.precision
        keys = (None, None) if key is None else tuple(jax.random.split(key))
        given = x
        if mixing.position:
            x = x + self._depthwise(x, mixing.position, "position")
        out: dict[str, jax.Array] = {}
        y = layer_norm(x, precision, "norm1")
        if self.plain:
            y = self._attention(y.reshape(x.shape[0], -1, x.shape[-1])).reshape(x.shape)
        else:
            y, out = self._mix(y, given)
        y = self._scaled(y, "ls1")
        out["mix"] = apply_tap(self.tap, f"{self.site}/mix", drop_path(y, keys[0], rate))
        x = x + out["mix"]
        y = self._scaled(self._mlp(layer_norm(x, precision, "norm2")), "ls2")
        out["mlp"] = apply_tap(self.tap, f"{self.site}/mlp", drop_path(y, keys[1], rate))
        x = out[""] = apply_tap(self.tap, self.site, constrain_batch(x + out["mlp"]))
        return x, out

    @nn.nowrap
    def _mix(self, x: jax.Array, given: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Slots start from ``given``, the block's input, gather ``x`` and give it back."""
        mixing, (batch, height, width, channels) = self.mixing, x.shape
        tokens, stored = x.reshape(batch, -1, channels), self.precision.params
        if mixing.learned_slots:
            shape = (1, mixing.slots, channels)
            start = self.param("slots", nn.initializers.normal(0.02), shape, stored)
            start = jnp.broadcast_to(start, (batch, *shape[1:]))
        else:
            start = pooled_slots(given, mixing.slots)
        init = nn.initializers.constant(channels**-0.5)
        gather, give = soft_clusters(start, tokens, self.param("scale", init, (), stored))
        slots = gather.astype(x.dtype) @ tokens
        if mixing.attend:
            slots = self._attention(slots)
        y = (give.astype(x.dtype) @ slots).reshape(x.shape)
        if mixing.local:
            z = self._pointwise(x, channels, "local1")
            z = self._depthwise(z, mixing.local, "local2")
            y = y + self._pointwise(z, channels, "local3")
        return y, {"assignment": give.reshape(batch, height, width, -1)}

    @nn.nowrap
    def _attention(self, x: jax.Array) -> jax.Array:
        heads = x.shape[-1] // self.mixing.head
        return Attention(heads, True, self.precision, None, name="attn")(x, None, "")[0]

    @nn.nowrap
    def _mlp(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        y = self._pointwise(x, self.mixing.mlp_ratio * channels, "fc1")
        if self.mixing.mlp_local:
            y = y + self._depthwise(y, 3, "fc_local")
        return self._pointwise(activate(y, "gelu"), channels, "fc2")

    @nn.nowrap
    def _scaled(self, x: jax.Array, name: str) -> jax.Array:
        scale = self.mixing.layer_scale
        return x if scale is None else LayerScale(scale, self.precision, name=name)(x)

    @nn.nowrap
    def _pointwise(self, x: jax.Array, channels: int, name: str) -> jax.Array:
        layer = conv(
            channels, 1, use_bias=True, precision=self.precision, name=name, kernel_init=_SMALL
        )
        return layer(x)

    @nn.nowrap
    def _depthwise(self, x: jax.Array, size: int, name: str) -> jax.Array:
        channels = x.shape[-1]
        return conv(
            channels, size, groups=channels, use_bias=True, precision=self.precision, name=name
        )(x)
