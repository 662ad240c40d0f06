"""Subspace attention: groups of channels, each with a map of its own over the positions."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import Positive, checked
from vision.models.conv_layers import batch_norm, conv
from vision.models.convolution import max_pool
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap


@checked
class SubspaceAttention(nn.Module):
    """(B, h, w, C) to the map of that shape and (B, h, w, groups) attention.

    Of every group of C / groups channels: a 1 x 1 depthwise convolution, BatchNorm, ReLU; 3 x 3 max
    pooling; a 1 x 1 convolution to one channel, BatchNorm, ReLU; softmax over the positions gives
    its map A, and the group becomes A x + x. The kernels have 2 C weights for any ``groups``.

    Attributes:
      groups: their number divides C.
      precision: number formats.
      tap: edits the attention, see ``vision.train.tower.Tap``.
      site: its name for the tap.
    """

    groups: Positive[int]
    precision: Precision = Precision()
    tap: Tap | None = None
    site: str = ""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        batch, height, width, channels = x.shape
        if channels % self.groups:
            raise ValueError(f"groups={self.groups} does not divide the {channels} channels")
        precision = self.precision

        def normed(y: jax.Array, features: int, groups: int, name: str) -> jax.Array:
            layer = conv(features, 1, groups=groups, use_bias=True, precision=precision, name=name)
            return nn.relu(batch_norm(layer(y), train, precision, f"{name}_norm"))

        y = normed(x, channels, channels, "depthwise")
        y = max_pool(y, (3, 3), (1, 1), ((1, 1), (1, 1)))
        y = normed(y, self.groups, self.groups, "pointwise").astype(jnp.float32)
        attention = jax.nn.softmax(y.reshape(batch, -1, self.groups), 1)
        attention = attention.reshape(batch, height, width, self.groups)
        attention = apply_tap(self.tap, self.site, attention)
        weights = jnp.repeat(attention.astype(x.dtype), channels // self.groups, -1)
        return weights * x + x, attention
