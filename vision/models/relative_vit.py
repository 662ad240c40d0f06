"""Vision transformers whose attention knows offsets: EVA, EVA-02, DINOv3, BEiT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import NonNegative, Positive, Rate, checked
from vision.models.attention import Attend, attend, attention_weights, weighted_mean
from vision.models.layers import (
    Mlp,
    Remat,
    check_images,
    classify,
    dense,
    dropout,
    layer_norm,
    query_key_value,
)
from vision.models.patches import embed_patches, spatial_tokens
from vision.models.posemb import Grid, resample_posemb
from vision.models.relative_bias import bias_of, class_token_rows
from vision.models.rope import Rope
from vision.models.transformer import XAVIER, Block, BlockInit, GatedMlp, MlpKind, run_blocks
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above, wants

Bias = Literal["none", "block", "shared"]
QkvBias = Literal["all", "qv", "none"]
_SMALL = nn.initializers.normal(0.02)


class RelativeAttention(nn.Module):
    """Multi-head self-attention with rotary positions, or with a bias per head and offset.

    Parameters ``qkv`` and ``proj`` are those of ``vision.models.transformer.Attention``.

    Attributes:
      heads: their number divides D.
      grid: rows and columns of the tokens after the first ``prefix``.
      prefix: number of tokens without a place.
      rope: of queries and keys; None for none.
      own_bias: biases by offset, ``bias_table``, and with the class token, ``bias_class``.
      qkv_bias: which of q, k and v have a bias; ``qv`` as ``q_bias`` and ``v_bias``.
      norm_epsilon: of a LayerNorm ``norm`` before ``proj``; None for none.
      precision, implementation, kernels: as in ``Attention``.
    """

    heads: int
    grid: Grid
    prefix: int
    rope: Rope | None
    own_bias: bool
    qkv_bias: QkvBias
    norm_epsilon: float | None
    precision: Precision
    implementation: Attend | None
    kernels: BlockInit

    @nn.compact
    def __call__(
        self, x: jax.Array, tap: Tap | None, site: str, bias: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(B, N, D); ``bias`` (heads, N, N) is added to the logits."""
        batch, tokens, width = x.shape
        shape = (self.heads, width // self.heads)
        q, k, v = query_key_value(
            x, self.heads, self.precision, self.kernels.qkv, use_bias=self.qkv_bias == "all"
        )
        if self.qkv_bias == "qv":
            q, v = (
                y
                + self.param(name, nn.initializers.zeros, (width,), self.precision.params)
                .astype(y.dtype)
                .reshape(shape)
                for name, y in (("q_bias", q), ("v_bias", v))
            )
        if self.rope is not None:
            self._check(tokens)
            q, k = (self.rope.turn(y, self.grid, self.prefix) for y in (q, k))
        if self.own_bias:
            self._check(tokens)
            own = biases(self, self.grid, self.heads, self.precision)
            bias = own if bias is None else bias + own
        out = {}
        if wants(tap, site):
            logits_dtype = self.precision.attention_logits
            weights = attention_weights(q, k, logits_dtype, bias=bias)
            weights = out["attention"] = apply_tap(tap, site, weights)
            x = weighted_mean(weights, v)
        else:
            x = attend(q, k, v, self.precision, self.implementation, bias=bias)
        x = constrain_batch(x, tensor=2).reshape(batch, tokens, width)
        if self.norm_epsilon is not None:
            x = layer_norm(x, self.precision, "norm", self.norm_epsilon)
        return dense(x, width, self.precision, "proj", self.kernels.proj), out

    @nn.nowrap
    def _check(self, tokens: int) -> None:
        if tokens != self.prefix + self.grid[0] * self.grid[1]:
            raise ValueError(
                f"{tokens} tokens, but those of a grid of {self.grid[0]} x {self.grid[1]} and "
                f"{self.prefix} before them have places: a tap may not change their number here"
            )


def biases(module: nn.Module, grid: Grid, heads: int, precision: Precision) -> jax.Array:
    """(heads, 1 + N, 1 + N) float32, from ``bias_table`` and ``bias_class`` of a module.

    Raises:
      ValueError: they were made for another grid.
    """
    shape = (2 * grid[0] - 1, 2 * grid[1] - 1, heads)
    if module.has_variable("params", "bias_table"):
        table = module.get_variable("params", "bias_table")
    else:
        table = module.param("bias_table", _SMALL, shape, precision.params)
    if table.shape != shape:
        raise ValueError(
            f"biases by offset of shape {table.shape[:2]} are not those of {grid[0]} x {grid[1]} "
            "patches: a tower with biases takes images of the size that it was made with, and "
            "init_from resamples the biases when they are read"
        )
    others = module.param("bias_class", _SMALL, (3, heads), precision.params)
    rows = jnp.concatenate([table.reshape(-1, heads), others]).astype(jnp.float32)
    return bias_of(rows, class_token_rows(grid))


class RelativeBlock(Block):
    """``vision.models.transformer.Block`` with ``RelativeAttention``.

    Its ``mask`` is the bias (heads, N, N) that all blocks share, or None.

    Attributes:
      grid, prefix, rope, own_bias: as in ``RelativeAttention``.
      biases: which of q, k and v have a bias.
      attention_norm, mlp_norm: a LayerNorm before the last layer of a branch; in an MLP of
        ``swiglu`` only.
    """

    grid: Grid = (1, 1)
    prefix: int = 0
    rope: Rope | None = None
    own_bias: bool = False
    biases: QkvBias = "all"
    attention_norm: bool = False
    mlp_norm: bool = False

    @nn.nowrap
    def _attention(self) -> nn.Module:
        return RelativeAttention(
            self.heads,
            self.grid,
            self.prefix,
            self.rope,
            self.own_bias,
            self.biases,
            self.norm_epsilon if self.attention_norm else None,
            self.precision,
            self.attention,
            self.kernels,
            name="attn",
        )

    @nn.nowrap
    def _mlp(self) -> Mlp | GatedMlp:
        if not self.mlp_norm:
            return super()._mlp()
        return GatedMlp(
            self.mlp_dim,
            self.kernels,
            self.precision,
            self.dropout,
            self.norm_epsilon,
            name="mlp",
        )


@checked
class RelativeViT(nn.Module):
    """Vision transformer whose attention knows the offsets between patches.

    With ``bias`` it is BEiT (Bao et al., 2022); with ``rope`` EVA-02 (Fang et al., 2023), DINOv3
    (Simeoni et al., 2025) and others; with neither EVA (Fang et al., 2022). It is called, and its
    sites are, as ``vision.models.vit.ViT``; ``vision.models.vit.TENSOR_PARALLEL`` lays it out.
    Images have any size with ``rope``; with ``bias`` the one that the parameters are made for.

    Attributes:
      width, depth, heads, patch: sizes.
      mlp_dim: hidden width of the MLPs; None for four times the width.
      num_classes: classes of the head; None and 0 both mean no head.
      pool: class token, or mean over patches.
      class_token: whether there is one.
      registers: further learned tokens that nothing reads.
      posemb: learned positions: ``none``, of ``patches``, or of all ``tokens``, so that class
        token and registers have some, ``prefix_pos_embed``, too.
      rope: rotary positions of the patches; None for none.
      bias: biases by the offset of two patches: of every ``block``, or one for all (``shared``).
      qkv_bias: which of q, k and v have a bias.
      layer_scale: initial value of a learned factor on every branch; None for none.
      activation: of the MLPs; ``swiglu`` has ``mlp_dim`` gated units.
      attention_norm: a LayerNorm before the last layer of every attention.
      mlp_norm: the same of every MLP, which has to be ``swiglu``.
      pre_norm, norm_pooled, norm_epsilon, scan, remat, drop_path, dropout: as in ``ViT``.
      precision, head_zero_init, attention: as in ``ViT``.
    """

    width: Positive[int]
    depth: Positive[int]
    heads: Positive[int]
    patch: Positive[int]
    mlp_dim: Positive[int] | None = None
    num_classes: NonNegative[int] | None = None
    pool: Literal["cls", "mean"] = "cls"
    class_token: bool = True
    registers: NonNegative[int] = 0
    posemb: Literal["none", "patches", "tokens"] = "none"
    rope: Rope | None = None
    bias: Bias = "none"
    qkv_bias: QkvBias = "all"
    layer_scale: float | None = None
    activation: MlpKind = "gelu"
    attention_norm: bool = False
    mlp_norm: bool = False
    pre_norm: bool = False
    norm_pooled: bool = False
    norm_epsilon: Positive[float] = 1e-6
    scan: bool = True
    remat: Remat = "none"
    drop_path: Rate = 0.0
    dropout: Rate = 0.0
    precision: Precision = Precision()
    head_zero_init: bool = True
    attention: Attend | None = None

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} does not divide width={self.width}")
        if self.pool == "cls" and not self.class_token:
            raise ValueError("pool='cls' needs class_token=True")
        if self.rope is not None and (self.width // self.heads) % 4:
            raise ValueError(
                f"rope needs heads of a multiple of 4, not {self.width // self.heads} numbers"
            )
        if self.bias != "none" and (self.registers or not self.class_token):
            raise ValueError("bias needs one class token and no registers before the patches")
        if self.mlp_norm and self.activation != "swiglu":
            raise ValueError("mlp_norm=True needs activation='swiglu'")
        super().__post_init__()

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        stem = ("patch_embed", "pos_embed", "prefix_", "cls_", "registers", "norm_pre", "bias_")
        return chain_layers_above(path[0], self.depth, stem)

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        key = self.make_rng("dropout") if train and (self.dropout or self.drop_path) else None
        stem_key, block_key = (None, None) if key is None else jax.random.split(key)
        x, grid = self._embed(x)
        x = constrain_batch(dropout(x, stem_key, self.dropout))
        out = {"stem": apply_tap(tap, "stem", x)}
        x = out["stem"]
        if self.pre_norm:
            x = layer_norm(x, self.precision, "norm_pre", self.norm_epsilon)
        prefix = self.class_token + self.registers
        fields: Mapping[str, Any] = {
            "heads": self.heads,
            "mlp_dim": self.mlp_dim or 4 * self.width,
            "dropout": self.dropout,
            "layer_scale": self.layer_scale,
            "qkv_bias": self.qkv_bias == "all",
            "precision": self.precision,
            "attention": self.attention,
            "kernels": XAVIER,
            "activation": self.activation,
            "norm_epsilon": self.norm_epsilon,
            "grid": grid,
            "prefix": prefix,
            "rope": self.rope,
            "own_bias": self.bias == "block",
            "biases": self.qkv_bias,
            "attention_norm": self.attention_norm,
            "mlp_norm": self.mlp_norm,
        }
        shared = None
        if self.bias == "shared":
            shared = biases(self, grid, self.heads, self.precision)
        x, blocks = run_blocks(
            self,
            RelativeBlock,
            fields,
            x,
            depth=self.depth,
            scan=self.scan,
            remat=self.remat,
            key=block_key,
            drop_path=self.drop_path,
            tap=tap,
            mask=shared,
        )
        out |= blocks
        if not self.norm_pooled:
            x = layer_norm(x, self.precision, "norm", self.norm_epsilon)
        x = out["tokens"] = apply_tap(tap, "tokens", x)
        patches = spatial_tokens(x, prefix, grid, out, tap)
        pooled = x[:, 0] if self.pool == "cls" else patches.mean(axis=1, dtype=jnp.float32)
        if self.norm_pooled:
            pooled = layer_norm(pooled, self.precision, "fc_norm", self.norm_epsilon)
        pooled = out["pooled"] = apply_tap(tap, "pooled", pooled.astype(self.precision.output))
        return classify(pooled, out, tap, self.num_classes, self.head_zero_init, self.precision)

    @nn.nowrap
    def _embed(self, x: jax.Array) -> tuple[jax.Array, Grid]:
        x = embed_patches(x, self.width, self.patch, self.precision, not self.pre_norm)
        batch, rows, columns, width = x.shape
        grid, dtype = (rows, columns), self.precision.params
        if self.posemb != "none":
            if self.has_variable("params", "pos_embed"):
                pos = self.get_variable("params", "pos_embed")
                pos = resample_posemb(pos, pos.shape[:2], grid)
            else:
                init = nn.initializers.normal(width**-0.5)
                pos = self.param("pos_embed", init, (*grid, width), dtype)
            x = x + pos.astype(x.dtype)
        x = x.reshape(batch, -1, width)
        prefix = []
        if self.class_token:
            prefix.append(self.param("cls_token", nn.initializers.zeros, (1, 1, width), dtype))
        if self.registers:
            shape = (1, self.registers, width)
            prefix.append(self.param("registers", _SMALL, shape, dtype))
        if not prefix:
            return x, grid
        tokens = jnp.concatenate(prefix, 1)
        if self.posemb == "tokens":
            tokens = tokens + self.param("prefix_pos_embed", _SMALL, tokens.shape, dtype)
        tokens = jnp.broadcast_to(tokens, (batch, *tokens.shape[1:])).astype(x.dtype)
        return jnp.concatenate([tokens, x], 1), grid
