"""FreeNet's encoder and decoder, all of whose layers see the whole scene."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import NonEmpty, NonNegative, Positive, checked
from vision.models.conv_layers import conv
from vision.models.layers import check_images, dense
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap

_LINEAR = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's default


@checked
class FreeNet(nn.Module):
    """The tower of ``method``. Called with cubes (B, H, W, bands), floating-point.

    ``block00`` and so on are the levels of the encoder, ``map`` is what the logits (B, H, W, K) are
    computed from, ``embedding`` (B, D) its mean.

    Attributes:
      widths: channels of the levels; a single one reads a window of 7 x 7 pixels.
      depths: gates and convolutions of every level.
      inner: channels of the decoder.
      groups: of GroupNorm, and what the gates divide the channels by.
      gates: whether there are any; they see the whole scene.
      num_classes: K.
      precision: number formats.
    """

    widths: NonEmpty[tuple[Positive[int], ...]] = (96, 128, 192, 256)
    depths: tuple[Positive[int], ...] = (1, 1, 1, 1)
    inner: Positive[int] = 128
    groups: Positive[int] = 16
    gates: bool = True
    num_classes: NonNegative[int] | None = None
    precision: Precision = Precision()

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.depths):
            raise ValueError(f"{len(self.widths)} widths, but {len(self.depths)} depths")
        for width in self.widths:
            if width % self.groups:
                raise ValueError(f"groups={self.groups} does not divide the width {width}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        multiple = 2 ** (len(self.widths) - 1)
        if x.shape[1] % multiple or x.shape[2] % multiple:
            raise ValueError(
                f"cube of {x.shape[1]}x{x.shape[2]} pixels: sides have to be multiples of "
                f"{multiple}; LabelledPixels pads to them"
            )
        if self.has_variable("params", "stem"):
            bands = self.get_variable("params", "stem")["kernel"].shape[2]
            if bands != x.shape[-1]:
                raise ValueError(f"cube of {x.shape[-1]} bands for a network of {bands} bands")
        out: dict[str, jax.Array] = {}
        x = self._normed(x, self.widths[0], "stem")
        for level, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            if level:
                x = nn.relu(self._conv(x, width, 3, f"down{level}", stride=2))
            for i in range(depth):
                if self.gates:
                    x = self._gated(x, f"gate{level}_{i}")
                x = self._normed(x, width, f"conv{level}_{i}")
            x = out[f"block{level:02d}"] = apply_tap(tap, f"block{level:02d}", x)
        top: Any = None
        for level in reversed(range(len(self.widths))):
            y = self._conv(out[f"block{level:02d}"], self.inner, 1, f"lateral{level}")
            if top is not None:
                y = y + jnp.repeat(jnp.repeat(top, 2, 1), 2, 2)
            top = self._conv(y, self.inner, 3, f"fuse{level}")
        out["map"] = apply_tap(tap, "map", top)
        embedding = out["map"].mean((1, 2), dtype=jnp.float32)
        out["embedding"] = embedding
        if self.num_classes:
            logits = self._conv(out["map"], self.num_classes, 1, "head")
            out["logits"] = apply_tap(tap, "logits", logits.astype(self.precision.output))
        return embedding, out

    @nn.nowrap
    def _conv(self, x: jax.Array, width: int, kernel: int, name: str, stride: int = 1) -> jax.Array:
        layer = conv(
            width, kernel, stride, use_bias=True, precision=self.precision, name=name,
            kernel_init=_LINEAR,
        )  # fmt: skip
        return layer(x)

    @nn.nowrap
    def _normed(self, x: jax.Array, width: int, name: str) -> jax.Array:
        norm = nn.GroupNorm(
            self.groups,
            epsilon=1e-5,
            dtype=self.precision.compute,
            param_dtype=self.precision.params,
            name=f"{name}_norm",
        )
        return nn.relu(norm(self._conv(x, width, 3, name)))

    @nn.nowrap
    def _gated(self, x: jax.Array, name: str) -> jax.Array:
        """Channels times gates in 0..1 that are computed from their means over the scene."""
        width, pooled = x.shape[-1], x.mean((1, 2))
        hidden = dense(pooled, max(width // self.groups, 1), self.precision, f"{name}_in", _LINEAR)
        gate = dense(nn.relu(hidden), width, self.precision, f"{name}_out", _LINEAR)
        return x * nn.sigmoid(gate)[:, None, None]
