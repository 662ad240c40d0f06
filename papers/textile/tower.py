"""ConvNeXt on a texture laid side by side, with residual linear attention before late stages."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import NonNegative, Positive, Unique, checked
from vision.models.convnext import ConvNeXt
from vision.models.layers import check_images, dense, layer_norm
from vision.train.precision import Precision
from vision.train.tower import Tap, layers_above


class ResidualLinearAttention(nn.Module):
    """x + gamma LayerNorm(W_o attention(x)) of a map (B, h, w, C), linear in its positions.

    Queries are a softmax over the channels of a head, keys over the positions:

        attention = softmax_d(q) (softmax_n(k)^T v)

    Attributes:
      heads: of attention.
      head_width: channels of each.
      precision: number formats.
      gamma: initial factor of every channel.
    """

    heads: int
    head_width: int
    precision: Precision
    gamma: float = 0.01

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, channels = len(x), x.shape[-1]
        inner = self.heads * self.head_width
        init = nn.initializers.xavier_uniform()
        tokens = x.reshape(batch, -1, channels)
        parts = [dense(tokens, inner, self.precision, name, init) for name in ("q", "k", "v")]
        q, k, v = (part.reshape(batch, -1, self.heads, self.head_width) for part in parts)
        q = jax.nn.softmax(q.astype(jnp.float32), -1).astype(v.dtype)
        k = jax.nn.softmax(k.astype(jnp.float32), 1).astype(v.dtype)
        mixed = jnp.einsum("bnhd,bhde->bnhe", q, jnp.einsum("bnhd,bnhe->bhde", k, v))
        y = dense(mixed.reshape(batch, -1, inner), channels, self.precision, "proj", init)
        y = layer_norm(y, self.precision, "norm", 1e-5)
        constant = nn.initializers.constant(self.gamma)
        gamma = self.param("gamma", constant, (channels,), self.precision.params)
        return x + (gamma * y).reshape(x.shape).astype(x.dtype)


def lay(x: jax.Array, tiles: int) -> jax.Array:
    """``tiles`` by ``tiles`` copies of images (B, H, W, C) side by side."""
    return jnp.tile(x, (1, tiles, tiles, 1))


@checked
class AttentiveConvNeXt(ConvNeXt):
    """``vision.models.ConvNeXt`` with residual linear attention before some stages.

    Attributes:
      attention: numbers of these stages, from 0.
      heads: of attention.
      head_width: of a head; None for a quarter of the channels.
    """

    attention: Unique[tuple[NonNegative[int], ...]] = (2, 3)
    heads: Positive[int] = 16
    head_width: Positive[int] | None = None

    def __post_init__(self) -> None:
        stages = len(self.resolved()[0])
        for stage in self.attention:
            if stage >= stages:
                raise ValueError(f"attention={stage}, but there are {stages} stages, from 0")
        super().__post_init__()

    @nn.nowrap
    def before_stage(self, stage: int, x: jax.Array) -> jax.Array:
        if stage not in self.attention:
            return x
        width = self.head_width or max(1, x.shape[-1] // 4)
        name = f"stage{stage}_attention"
        return ResidualLinearAttention(self.heads, width, self.precision, name=name)(x)


@checked
class Laid(nn.Module):
    """A tower that is shown copies of images (B, H, W, C) side by side.

    Attributes:
      tower: any tower.
      tiles: copies along each axis; 1 for the image alone.
      size: side in pixels to which what is laid is resized; None keeps it.
    """

    tower: nn.Module
    tiles: Positive[int] = 2
    size: Positive[int] | None = None

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        return layers_above(self.tower, path[1:])

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        x = lay(x, self.tiles)
        if self.size is not None:
            x = jax.image.resize(x, (len(x), self.size, self.size, x.shape[-1]), "bilinear")
        return self.tower(x, train=train, tap=tap)  # pyright: ignore[reportCallIssue]
