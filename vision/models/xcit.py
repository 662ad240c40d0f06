"""XCiT: attention between channels instead of tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vision.config.ranges import NonNegative, Positive, Rate, checked
from vision.models.attention import attend
from vision.models.conv_layers import batch_norm, conv
from vision.models.layers import (
    LayerScale,
    Mlp,
    Remat,
    activate,
    block_keys,
    check_images,
    classify,
    dense,
    drop_path,
    layer_norm,
    rematerialise,
)
from vision.models.patches import spatial_tokens
from vision.models.posemb import Grid
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above, wants

_INIT = nn.initializers.truncated_normal(0.02)
_EPSILON = 1e-6
_WAVES = 32  # numbers per axis that positions are made of


def fourier_positions(grid: Grid) -> np.ndarray:
    """(rows, columns, 64) float32: sines and cosines of the row, then of the column.

    Rows and columns count from 1, and the last is at nearly 2 pi, whatever their number.
    """
    frequencies = 10_000.0 ** (-2 * (np.arange(_WAVES) // 2) / _WAVES)
    axes = []
    for count in grid:
        angles = (np.arange(1, count + 1) / (count + 1e-6) * 2 * math.pi)[:, None] * frequencies
        axes.append(np.where(np.arange(_WAVES) % 2, np.cos(angles), np.sin(angles)))
    rows = np.broadcast_to(axes[0][:, None], (*grid, _WAVES))
    columns = np.broadcast_to(axes[1][None], (*grid, _WAVES))
    return np.concatenate([rows, columns], -1).astype(np.float32)


class ChannelAttention(nn.Module):
    """Attention of the channels of a head to one another, by cosines over the tokens.

    The columns of ``qkv`` are in the order of ``vision.models.transformer.Attention``.

    Attributes:
      heads: of the attention.
      precision: number formats.
    """

    heads: int
    precision: Precision

    @nn.compact
    def __call__(
        self, x: jax.Array, tap: Tap | None, site: str
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(B, N, D), and the attention weights (B, heads, D / heads, D / heads) if tapped."""
        width = x.shape[-1]
        shape = (self.heads, 3, width // self.heads)
        qkv = dense(x, 3 * width, self.precision, "qkv", _INIT, shape=shape, tensor=2)
        q, k, v = qkv[..., 0, :], qkv[..., 1, :], qkv[..., 2, :]
        q, k = (_unit(y.astype(jnp.float32)) for y in (q, k))
        scale = self.param("scale", nn.initializers.ones, (self.heads,), self.precision.params)
        logits = jnp.einsum("bnhc,bnhd->bhcd", q, k, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits * scale.astype(jnp.float32)[:, None, None], axis=-1)
        out = {}
        if wants(tap, site):
            weights = out["attention"] = apply_tap(tap, site, weights)
        x = jnp.einsum("bhcd,bnhd->bnhc", weights.astype(v.dtype), v)
        x = constrain_batch(x, tensor=2).reshape(*x.shape[:2], width)
        return dense(x, width, self.precision, "proj", _INIT), out


def _unit(x: jax.Array) -> jax.Array:
    """Length 1 over the tokens."""
    return x / jnp.maximum(jnp.sqrt(jnp.sum(x * x, 1, keepdims=True)), 1e-12)


class XcitBlock(nn.Module):
    """``x + attn(norm1(x))`` between channels, ``x + local(norm3(x))``, ``x + mlp(norm2(x))``.

    ``local`` is two depthwise convolutions over neighbouring patches. Returns, and has sites, as
    ``vision.models.transformer.Block``, and ``blockNN/local``.

    Attributes:
      heads: of the attention.
      mlp_dim: hidden width of the MLP.
      layer_scale: initial factor of the branches.
      precision: number formats.
      tap: see ``vision.train.tower.Tap``.
      site: name of the block for the tap.
    """

    heads: int
    mlp_dim: int
    layer_scale: float
    precision: Precision
    tap: Tap | None = None
    site: str = ""

    @nn.compact
    def __call__(
        self, x: jax.Array, grid: Grid, train: bool, key: jax.Array | None, rate: float
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        tap, site, precision = self.tap, self.site, self.precision
        keys = (None,) * 3 if key is None else tuple(jax.random.split(key, 3))

        def added(x: jax.Array, y: jax.Array, name: str, scale: str, at: int) -> jax.Array:
            y = LayerScale(self.layer_scale, precision, name=scale)(y)
            out[name] = apply_tap(tap, f"{site}/{name}", drop_path(y, keys[at], rate))
            return x + out[name]

        y = layer_norm(x, precision, "norm1", _EPSILON)
        y, out = ChannelAttention(self.heads, precision, name="attn")(y, tap, f"{site}/attention")
        x = added(x, y, "attn", "ls1", 0)
        y = layer_norm(x, precision, "norm3", _EPSILON)
        x = added(x, self._local(y, grid, train), "local", "ls3", 1)
        y = layer_norm(x, precision, "norm2", _EPSILON)
        x = added(x, Mlp(self.mlp_dim, _INIT, precision, name="mlp")(y), "mlp", "ls2", 2)
        x = out[""] = apply_tap(tap, site, constrain_batch(x))
        return x, out

    @nn.nowrap
    def _local(self, x: jax.Array, grid: Grid, train: bool) -> jax.Array:
        shape, width, precision = x.shape, x.shape[-1], self.precision
        x = x.reshape(-1, *grid, width)
        options = {"groups": width, "use_bias": True, "precision": precision}
        x = activate(conv(width, 3, **options, name="local_conv1")(x), "gelu")
        x = batch_norm(x, train, precision, "local_norm")
        return conv(width, 3, **options, name="local_conv2")(x).reshape(shape)


class ClassBlock(nn.Module):
    """Class attention (Touvron et al., CaiT, 2021): only the class token looks at the others.

    As the published weights were trained, the other tokens change too: their normalised values are
    added, and they are doubled. Nothing reads them later but the next such block.

    Attributes:
      heads: of the attention.
      mlp_dim: hidden width of the MLP.
      layer_scale: initial factor of both branches.
      tokens_norm: all tokens are normalised before the MLP, not the class token alone.
      precision: number formats.
    """

    heads: int
    mlp_dim: int
    layer_scale: float
    tokens_norm: bool
    precision: Precision

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width, precision = x.shape[-1], self.precision
        split = {"shape": (self.heads, width // self.heads), "tensor": 2}
        y = layer_norm(x, precision, "norm1", _EPSILON)
        q = dense(y[:, :1], width, precision, "q", _INIT, **split)
        k = dense(y, width, precision, "k", _INIT, **split)
        v = dense(y, width, precision, "v", _INIT, **split)
        z = attend(q, k, v, precision, None).reshape(x.shape[0], 1, width)
        z = dense(z, width, precision, "proj", _INIT)
        z = jnp.concatenate([z, y[:, 1:]], 1)
        x = x + LayerScale(self.layer_scale, precision, name="ls1")(z)
        normed = layer_norm(x if self.tokens_norm else x[:, :1], precision, "norm2", _EPSILON)
        cls, others = normed[:, :1], (normed if self.tokens_norm else x)[:, 1:]
        y = Mlp(self.mlp_dim, _INIT, precision, name="mlp")(cls)
        cls = cls + LayerScale(self.layer_scale, precision, name="ls2")(y)
        return constrain_batch(jnp.concatenate([cls, 2 * others], 1))


@checked
class Xcit(nn.Module):
    """XCiT (El-Nouby et al., Cross-Covariance Image Transformers, 2021).

    Called, and with sites, as ``vision.models.vit.ViT``. Blocks are ``depth`` of attention between
    channels, without a class token, then ``class_depth`` of class attention with it, of which
    ``blockNN`` is the only site. ``blockNN/attention`` is (B, heads, D / heads, D / heads);
    ``blockNN/local`` is the branch of the convolutions. Images have sides that are multiples of
    the patch, of any size.

    Attributes:
      width, depth, heads: sizes.
      patch: 16 or 8: four or three convolutions of stride 2 make the patches.
      class_depth: number of class attention blocks.
      mlp_dim: hidden width of the MLPs; None for four times the width.
      num_classes: classes of the head; None and 0 both mean no head.
      layer_scale: initial value of a learned factor on every branch.
      tokens_norm: class attention normalises all tokens before its MLP, not the class token alone.
      drop_path: stochastic depth, of the same rate in all blocks before class attention.
      remat, precision, head_zero_init: as in ``ViT``.
    """

    width: Positive[int]
    depth: Positive[int]
    heads: Positive[int]
    patch: Literal[8, 16] = 16
    class_depth: Positive[int] = 2
    mlp_dim: Positive[int] | None = None
    num_classes: NonNegative[int] | None = None
    layer_scale: float = 1.0
    tokens_norm: bool = False
    drop_path: Rate = 0.0
    remat: Remat = "none"
    precision: Precision = Precision()
    head_zero_init: bool = True

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 8:
            raise ValueError(f"heads={self.heads} and 8 have to divide width={self.width}")
        super().__post_init__()

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        stem = ("patch_embed", "positions", "cls_token")
        return chain_layers_above(path[0], self.depth + self.class_depth, stem)

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        keys = block_keys(self, self.drop_path, self.depth, train)
        x, grid = self._embed(x, train)
        out = {"stem": apply_tap(tap, "stem", x)}
        x, precision = out["stem"], self.precision
        sizes = (self.heads, self.mlp_dim or 4 * self.width, self.layer_scale)
        block_type = rematerialise(XcitBlock, self.remat, static=(2, 3, 5))
        for i in range(self.depth):
            site = f"block{i:02d}"
            block = block_type(*sizes, precision, tap, site, name=site)
            x, block_out = block(x, grid, train, keys[i], self.drop_path)
            out |= {f"{site}/{name}".rstrip("/"): value for name, value in block_out.items()}
        shape = (1, 1, self.width)
        cls = self.param("cls_token", _INIT, shape, precision.params).astype(x.dtype)
        x = jnp.concatenate([jnp.broadcast_to(cls, (x.shape[0], 1, self.width)), x], 1)
        class_type = rematerialise(ClassBlock, self.remat)
        for i in range(self.depth, self.depth + self.class_depth):
            site = f"block{i:02d}"
            x = class_type(*sizes, self.tokens_norm, precision, name=site)(x)
            x = out[site] = apply_tap(tap, site, x)
        x = layer_norm(x, precision, "norm", _EPSILON)
        x = out["tokens"] = apply_tap(tap, "tokens", x)
        spatial_tokens(x, 1, grid, out, tap)
        pooled = out["pooled"] = apply_tap(tap, "pooled", x[:, 0].astype(precision.output))
        return classify(pooled, out, tap, self.num_classes, self.head_zero_init, precision)

    @nn.nowrap
    def _embed(self, x: jax.Array, train: bool) -> tuple[jax.Array, Grid]:
        height, columns = x.shape[1:3]
        if height % self.patch or columns % self.patch:
            raise ValueError(
                f"image of {height}x{columns} is not divisible by the patch "
                f"{self.patch}x{self.patch}: resize the images"
            )
        steps = 4 if self.patch == 16 else 3
        for i in range(steps):
            width = self.width // 2 ** (steps - 1 - i)
            name = f"patch_embed{i + 1}"
            x = conv(width, 3, 2, precision=self.precision, name=name)(x)
            x = batch_norm(x, train, self.precision, f"{name}_norm")
            x = activate(x, "gelu") if i < steps - 1 else x
        grid = (x.shape[1], x.shape[2])
        places = jnp.asarray(fourier_positions(grid), x.dtype)
        x = x + dense(places[None], self.width, self.precision, "positions", _INIT)
        return constrain_batch(x.reshape(x.shape[0], -1, self.width)), grid
