"""MaxViT: convolutions, attention in windows, and attention over grids, in every block."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import NonEmpty, NonNegative, Positive, Rate, checked
from vision.models.attention import attention_logits, softmax_mean, weighted_mean
from vision.models.conv_layers import batch_norm, conv
from vision.models.layers import (
    Mlp,
    Remat,
    activate,
    block_keys,
    check_images,
    classify,
    dense,
    drop_path,
    drop_path_rates,
    layer_norm,
    rematerialise,
    spatial_sites,
)
from vision.models.relative_bias import bias_of, offset_rows
from vision.models.swin import Pair, from_windows, to_windows
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above, wants

_INIT = nn.initializers.truncated_normal(0.02)
_BATCH_EPSILON, _LAYER_EPSILON = 1e-3, 1e-5


def to_grids(x: jax.Array, grid: Pair) -> jax.Array:
    """(B, h, w, C) to (B, grids, N, C): tokens as far apart as ``grid`` of them cover the map."""
    (batch, height, width, channels), (a, b) = x.shape, grid
    x = x.reshape(batch, a, height // a, b, width // b, channels).transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(batch, -1, a * b, channels)


def from_grids(x: jax.Array, grid: Pair, size: Pair) -> jax.Array:
    """Undoes ``to_grids`` of a map of that size."""
    (height, width), (a, b) = size, grid
    x = x.reshape(x.shape[0], height // a, width // b, a, b, x.shape[-1]).transpose(
        0, 3, 1, 4, 2, 5
    )
    return x.reshape(x.shape[0], height, width, x.shape[-1])


class PartAttention(nn.Module):
    """Self-attention within each part of the tokens, with a bias per head and offset.

    The columns of ``qkv`` are in the order of ``vision.models.transformer.Attention``; the bias is
    ``bias_table`` (2 rows - 1, 2 columns - 1, heads).

    Attributes:
      heads: of the attention.
      window: rows and columns of a part, in tokens.
      precision: number formats.
    """

    heads: int
    window: Pair
    precision: Precision

    @nn.compact
    def __call__(
        self, x: jax.Array, tap: Tap | None, site: str
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(B, parts, N, C), and the attention weights (B, parts, heads, N, N) if tapped."""
        width = x.shape[-1]
        shape = (self.heads, 3, width // self.heads)
        qkv = dense(x, 3 * width, self.precision, "qkv", _INIT, shape=shape, tensor=3)
        q, k, v = qkv[..., 0, :], qkv[..., 1, :], qkv[..., 2, :]
        rows, columns = self.window
        table_shape = (2 * rows - 1, 2 * columns - 1, self.heads)
        table = self.param("bias_table", _INIT, table_shape, self.precision.params)
        table = table.reshape(-1, self.heads).astype(jnp.float32)
        logits = attention_logits(q, k, self.precision.attention_logits)
        bias = bias_of(table, offset_rows(self.window, self.window))
        logits = logits * q.shape[-1] ** -0.5 + bias
        out = {}
        if wants(tap, site):
            out["attention"] = apply_tap(tap, site, jax.nn.softmax(logits, axis=-1))
            x = weighted_mean(out["attention"], v)
        else:
            x = softmax_mean(logits, v)
        x = constrain_batch(x, tensor=3).reshape(*x.shape[:3], width)
        return dense(x, width, self.precision, "proj", _INIT), out


class PartBlock(nn.Module):
    """``x + attn(norm1(x))`` in windows or over grids, then ``x + mlp(norm2(x))``.

    Attributes:
      heads: of the attention.
      window: rows and columns of a window or a grid, in tokens.
      over_grids: tokens of a part are far apart.
      mlp_ratio: hidden width of the MLP over the width.
      precision: number formats.
      tap: see ``vision.train.tower.Tap``.
      site: name of the block for the tap.
    """

    heads: int
    window: Pair
    over_grids: bool
    mlp_ratio: float
    precision: Precision
    tap: Tap | None
    site: str

    @nn.compact
    def __call__(
        self, x: jax.Array, key: jax.Array | None, rate: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        tap, site, precision = self.tap, self.site, self.precision
        keys = (None, None) if key is None else tuple(jax.random.split(key))
        size = (x.shape[1], x.shape[2])
        part, whole = (to_grids, from_grids) if self.over_grids else (to_windows, from_windows)
        y = part(layer_norm(x, precision, "norm1", _LAYER_EPSILON), self.window)
        attention = PartAttention(self.heads, self.window, precision, name="attn")
        y, out = attention(y, tap, f"{site}/attention")
        y = whole(y, self.window, size)
        out["attn"] = apply_tap(tap, f"{site}/attn", drop_path(y, keys[0], rate))
        x = x + out["attn"]
        y = layer_norm(x, precision, "norm2", _LAYER_EPSILON)
        hidden = int(x.shape[-1] * self.mlp_ratio)
        y = Mlp(hidden, _INIT, precision, activation="gelu_tanh", name="mlp")(y)
        out["mlp"] = apply_tap(tap, f"{site}/mlp", drop_path(y, keys[1], rate))
        return constrain_batch(x + out["mlp"]), out


class MaxVitBlock(nn.Module):
    """An inverted bottleneck with squeeze-and-excitation, then a ``PartBlock`` of each kind.

    Returns, and has sites, for (B, h, w, C): ``blockNN/conv``, before the sum, and those of
    ``vision.models.transformer.Block`` below ``blockNN/window`` and ``blockNN/grid``.

    Attributes:
      width: channels of the result.
      stride: of the convolutions, 1 or 2.
      heads: of both attentions.
      window: rows and columns of windows and grids, in tokens.
      mlp_ratio: hidden width of the MLPs over the width.
      precision: number formats.
      tap: see ``vision.train.tower.Tap``.
      site: name of the block for the tap.
    """

    width: int
    stride: int
    heads: int
    window: Pair
    mlp_ratio: float
    precision: Precision
    tap: Tap | None = None
    site: str = ""

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, key: jax.Array | None, rate: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        tap, site = self.tap, self.site
        keys = (None,) * 3 if key is None else tuple(jax.random.split(key, 3))
        out = {}
        y = self._convolutions(x, train)
        out["conv"] = apply_tap(tap, f"{site}/conv", drop_path(y, keys[0], rate))
        x = constrain_batch(self._shortcut(x) + out["conv"])
        for name, at in (("window", 1), ("grid", 2)):
            block = PartBlock(
                self.heads,
                self.window,
                name == "grid",
                self.mlp_ratio,
                self.precision,
                tap,
                f"{site}/{name}",
                name=name,
            )
            x, part_out = block(x, keys[at], rate)
            out |= {f"{name}/{key}": value for key, value in part_out.items()}
        x = out[""] = apply_tap(tap, site, x)
        return x, out

    @nn.nowrap
    def _shortcut(self, x: jax.Array) -> jax.Array:
        if self.stride == 1:
            return x
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))
        if channels == self.width:
            return x
        return dense(x, self.width, self.precision, "shortcut", _INIT)

    @nn.nowrap
    def _convolutions(self, x: jax.Array, train: bool) -> jax.Array:
        precision, hidden = self.precision, 4 * self.width

        def norm(x: jax.Array, name: str) -> jax.Array:
            return batch_norm(x, train, precision, name, epsilon=_BATCH_EPSILON)

        x = norm(x, "pre_norm")
        x = conv(hidden, 1, precision=precision, name="conv1")(x)
        x = activate(norm(x, "conv1_norm"), "gelu_tanh")
        options = {"groups": hidden, "padding": "SAME", "precision": precision}
        x = conv(hidden, 3, self.stride, **options, name="conv2")(x)
        x = activate(norm(x, "conv2_norm"), "gelu_tanh")
        y = jnp.mean(x, (1, 2), keepdims=True, dtype=jnp.float32).astype(x.dtype)
        y = nn.silu(dense(y, self.width // 4, precision, "se_fc1", _INIT))
        x = x * nn.sigmoid(dense(y, hidden, precision, "se_fc2", _INIT))
        return conv(self.width, 1, use_bias=True, precision=precision, name="conv3")(x)


@checked
class MaxVit(nn.Module):
    """MaxViT (Tu et al., 2022), as Google trained it: timm's ``maxvit_*_tf_*``.

    Called with (B, h, w, C) floating-point images it returns ``(embedding, out)`` as documented in
    ``vision.train.tower``. Blocks count through all stages; ``stem``, blocks and branches are
    (B, h, w, C). ``map`` is the last block's output, ``pooled`` its mean after a LayerNorm, and
    ``embedding`` a dense layer and a tanh after that. The sides of the images are multiples of 4,
    8, 16 or 32, and of the window, in tokens, in every stage.

    Attributes:
      widths, depths: channels and blocks of each stage.
      stem_width: channels of the stem.
      head_width: heads have so many channels.
      embedding_width: of the embedding.
      window: rows and columns of the windows, and of the grids: those of the images over 32.
      mlp_ratio: of the hidden layer's width to the width, of a multiple of it.
      num_classes: classes of the head; None and 0 both mean no head.
      drop_path: stochastic depth of the last block; the rate rises linearly from 0 at the first.
      remat, precision, head_zero_init: as in ``vision.models.swin.Swin``.
    """

    widths: NonEmpty[tuple[Positive[int], ...]]
    depths: NonEmpty[tuple[Positive[int], ...]]
    stem_width: Positive[int] = 64
    head_width: Positive[int] = 32
    embedding_width: Positive[int] = 512
    window: tuple[Positive[int], Positive[int]] = (7, 7)
    mlp_ratio: Positive[float] = 4.0
    num_classes: NonNegative[int] | None = None
    drop_path: Rate = 0.0
    remat: Remat = "none"
    precision: Precision = Precision()
    head_zero_init: bool = True

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.depths):
            raise ValueError(f"widths={self.widths} and depths={self.depths} are not as many")
        for width in self.widths:
            if width % self.head_width or width % 4:
                raise ValueError(f"{self.head_width} and 4 have to divide width {width}")
        super().__post_init__()

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        return chain_layers_above(path[0], sum(self.depths), ("stem",))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        self._check(x.shape[1:3])
        total, precision = sum(self.depths), self.precision
        keys = block_keys(self, self.drop_path, total, train)
        rates = drop_path_rates(self.drop_path, total)
        options = {"padding": "SAME", "use_bias": True, "precision": precision}
        x = conv(self.stem_width, 3, 2, **options, name="stem_conv1")(x)
        x = batch_norm(x, train, precision, "stem_norm", epsilon=_BATCH_EPSILON)
        x = conv(self.stem_width, 3, **options, name="stem_conv2")(activate(x, "gelu_tanh"))
        x = apply_tap(tap, "stem", constrain_batch(x))
        out = {"stem": x}
        block_type = rematerialise(MaxVitBlock, self.remat, static=(2,))
        i = 0
        for width, depth in zip(self.widths, self.depths, strict=True):
            for place in range(depth):
                site = f"block{i:02d}"
                block = block_type(
                    width,
                    2 if place == 0 else 1,
                    width // self.head_width,
                    self.window,
                    self.mlp_ratio,
                    precision,
                    tap,
                    site,
                    name=site,
                )
                x, block_out = block(x, train, keys[i], rates[i])
                out |= {f"{site}/{name}".rstrip("/"): value for name, value in block_out.items()}
                i += 1
        x, out = spatial_sites(x, out, tap)
        pooled = x.mean(axis=(1, 2), dtype=jnp.float32)
        pooled = layer_norm(pooled, precision, "fc_norm", _LAYER_EPSILON)
        pooled = out["pooled"] = apply_tap(tap, "pooled", pooled.astype(precision.output))
        embedding = jnp.tanh(dense(pooled, self.embedding_width, precision, "pre_logits", _INIT))
        return classify(embedding, out, tap, self.num_classes, self.head_zero_init, precision)

    @nn.nowrap
    def _check(self, size: Sequence[int]) -> None:
        for side, window in zip(size, self.window, strict=True):
            unit = 2 ** (len(self.depths) + 1) * window
            if side % unit:
                raise ValueError(
                    f"images of {size[0]}x{size[1]} are not divided by windows of "
                    f"{self.window[0]}x{self.window[1]} in the last stage: sides are multiples of "
                    f"{unit} there, or set window, whose biases init_from resamples"
                )
