"""Transformer blocks, the loop over them, and attention pooling."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.models.attention import Attend, attend, attention_weights, weighted_mean
from vision.models.layers import (
    Activation,
    Initializer,
    LayerScale,
    Mlp,
    Remat,
    dense,
    drop_path,
    drop_path_rates,
    dropout,
    layer_norm,
    query_key_value,
    rematerialise,
)
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, Tree, apply_tap, wants

MlpKind = Literal["gelu", "gelu_tanh", "quick_gelu", "swiglu"]

# Key and drop-path rate of one block or, with a leading axis, of a stack of them.
Noise = tuple[jax.Array, jax.Array | None]

_XAVIER = nn.initializers.xavier_uniform()
_NEARLY_ZERO = nn.initializers.normal(1e-6)


def _qkv_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    # Xavier's bound for three (D, D) kernels, which happen to be stored as one.
    bound = (3 / shape[0]) ** 0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


@dataclasses.dataclass(frozen=True)
class BlockInit:
    """Initialisers of a block's kernels and of the biases of its MLP; other biases are zero.

    Attributes:
      qkv, proj: kernels of the attention.
      fc1, fc2: kernels of the MLP.
      mlp_bias: biases of the MLP.
    """

    qkv: Initializer = _qkv_init
    proj: Initializer = _XAVIER
    fc1: Initializer = _XAVIER
    fc2: Initializer = _XAVIER
    mlp_bias: Initializer = _NEARLY_ZERO


XAVIER = BlockInit()


def clip_init(width: int, depth: int) -> BlockInit:
    """Normal kernels; those that add to the residual stream are scaled down with the depth.

    Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.
    """
    normal = nn.initializers.normal
    added = normal((2 * width * depth) ** -0.5)
    return BlockInit(
        qkv=normal(width**-0.5),
        proj=added,
        fc1=normal((2 * width) ** -0.5),
        fc2=added,
        mlp_bias=nn.initializers.zeros,
    )


class Attention(nn.Module):
    """Multi-head self-attention.

    The kernel of ``qkv`` is (D, 3 D). Its columns are q, k and v of the first head, then of the
    second, and so on: each device has complete heads (Shoeybi et al.,
    Megatron-LM, 2019).

    Attributes:
      heads: their number divides D.
      qkv_bias: q, k and v have biases.
      precision: number formats.
      implementation: of fused attention; None lets XLA choose.
      kernels: how they start.
      causal: tokens look at those before them only.
    """

    heads: int
    qkv_bias: bool
    precision: Precision
    implementation: Attend | None
    kernels: BlockInit = XAVIER
    causal: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, tap: Tap | None, site: str, mask: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        batch, tokens, width = x.shape
        q, k, v = query_key_value(
            x, self.heads, self.precision, self.kernels.qkv, use_bias=self.qkv_bias
        )
        out = {}
        if wants(tap, site):
            logits_dtype = self.precision.attention_logits
            weights = attention_weights(q, k, logits_dtype, mask, self.causal)
            weights = out["attention"] = apply_tap(tap, site, weights)
            x = weighted_mean(weights, v)
        else:
            x = attend(q, k, v, self.precision, self.implementation, mask, self.causal)
        x = constrain_batch(x, tensor=2).reshape(batch, tokens, width)
        return dense(x, width, self.precision, "proj", self.kernels.proj), out


class GatedMlp(nn.Module):
    """``fc2(silu(gate) * value)``, where ``fc1`` gives gate and value: the MLP of SwiGLU.

    Shazeer, GLU Variants Improve Transformer, 2020. The columns of the kernel of ``fc1``,
    (D, 2 hidden), are gate and value of the first hidden unit, then of the second, and so on:
    each device has complete units.

    Attributes:
      hidden: units.
      kernels: how they start.
      precision: number formats.
      dropout: of the hidden units and the result.
      norm_epsilon: of a LayerNorm ``norm`` on the hidden units; None for none.
    """

    hidden: int
    kernels: BlockInit
    precision: Precision
    dropout: float = 0.0
    norm_epsilon: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        keys = (None, None) if key is None else tuple(jax.random.split(key))
        width, kernels, precision = x.shape[-1], self.kernels, self.precision
        biases = kernels.mlp_bias
        split: Mapping[str, Any] = {"shape": (self.hidden, 2), "tensor": -2}
        x = dense(x, 2 * self.hidden, precision, "fc1", kernels.fc1, biases, **split)
        x = dropout(nn.silu(x[..., 0]) * x[..., 1], keys[0], self.dropout)
        if self.norm_epsilon is not None:
            x = layer_norm(x, precision, "norm", self.norm_epsilon)
        x = dense(x, width, precision, "fc2", kernels.fc2, biases)
        return dropout(x, keys[1], self.dropout)


class Block(nn.Module):
    """Transformer block: ``x + attn(norm1(x))``, then ``x + mlp(norm2(x))``.

    With ``post_norm`` it is ``norm1(x + attn(x))``, then ``norm2(x + mlp(x))`` (Vaswani et al.,
    Attention Is All You Need, 2017).

    Returns the new tokens and, under ``""``, ``attn``, ``mlp`` and perhaps ``attention`` and
    ``middle``, entries of ``out`` below the name of the block. Taps see the sites below the name
    ``site``.
    ``mask`` (B, N) bool: the tokens that can be attended to.

    Attributes:
      heads: of the attention.
      mlp_dim: hidden width of the MLP.
      dropout: of both branches.
      layer_scale: initial factor of both branches; None for none.
      qkv_bias: q, k and v have biases.
      precision: number formats.
      attention: see ``Attention.implementation``.
      kernels: how they start.
      causal: tokens look at those before them only.
      activation: of the MLP; ``swiglu`` gates it.
      norm_epsilon: of LayerNorm.
      post_norm: norms stand after the sums.
      tap: see ``vision.train.tower.Tap``.
      site: name of the block for the tap.
    """

    heads: int
    mlp_dim: int
    dropout: float
    layer_scale: float | None
    qkv_bias: bool
    precision: Precision
    attention: Attend | None
    kernels: BlockInit = XAVIER
    causal: bool = False
    activation: MlpKind = "gelu"
    norm_epsilon: float = 1e-6
    post_norm: bool = False
    tap: Tap | None = None
    site: str = ""

    @nn.compact
    def __call__(
        self, x: jax.Array, noise: Noise | None, mask: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        tap, site = self.tap, self.site
        key, rate = (None, None) if noise is None else noise
        keys = (None,) * 4 if key is None else tuple(jax.random.split(key, 4))

        def scaled(branch: jax.Array, name: str) -> jax.Array:
            if self.layer_scale is None:
                return branch
            return LayerScale(self.layer_scale, self.precision, name=name)(branch)

        def normed(x: jax.Array, name: str, apply_norm: bool) -> jax.Array:
            return layer_norm(x, self.precision, name, self.norm_epsilon) if apply_norm else x

        y = normed(x, "norm1", not self.post_norm)
        y, out = self._attention()(y, tap, f"{site}/attention", mask)
        y = scaled(dropout(y, keys[0], self.dropout), "ls1")
        out["attn"] = apply_tap(tap, f"{site}/attn", drop_path(y, keys[1], rate))
        x = normed(x + out["attn"], "norm1", self.post_norm)
        if wants(tap, f"{site}/middle"):
            x = out["middle"] = apply_tap(tap, f"{site}/middle", x)

        y = normed(x, "norm2", not self.post_norm)
        y = scaled(self._mlp()(y, keys[2]), "ls2")
        out["mlp"] = apply_tap(tap, f"{site}/mlp", drop_path(y, keys[3], rate))
        x = normed(constrain_batch(x + out["mlp"]), "norm2", self.post_norm)
        x = out[""] = apply_tap(tap, site, x)
        return x, out

    @nn.nowrap
    def _attention(self) -> nn.Module:
        return Attention(
            self.heads,
            self.qkv_bias,
            self.precision,
            self.attention,
            self.kernels,
            self.causal,
            name="attn",
        )

    @nn.nowrap
    def _mlp(self) -> Mlp | GatedMlp:
        if self.activation == "swiglu":
            return GatedMlp(self.mlp_dim, self.kernels, self.precision, self.dropout, name="mlp")
        return Mlp(
            self.mlp_dim,
            self.kernels.fc1,
            self.precision,
            self.kernels.mlp_bias,
            self.dropout,
            self.activation,
            self.kernels.fc2,
            name="mlp",
        )


def run_blocks(
    module: nn.Module,
    block_type: type[nn.Module],
    fields: Mapping[str, Any],
    x: jax.Array,
    *,
    depth: int,
    scan: bool,
    remat: Remat,
    key: jax.Array | None = None,
    drop_path: float = 0.0,
    tap: Tap | None = None,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Runs the blocks of a tower: the last one's tokens, and the entries of ``out``.

    Args:
      module: the tower that calls it; the parameters are its ``blocks`` or ``block00`` and so on.
      block_type: ``Block``, or one with its fields and what it returns.
      fields: of the blocks.
      x: (B, N, D) tokens.
      depth: number of blocks.
      scan: blocks are one scan over stacked parameters. A tap that matches a site of any block
        runs the stacked blocks one by one.
      remat: see ``rematerialise``.
      key: of the noise; None for none.
      drop_path: rate of the last block; it rises linearly from 0 at the first.
      tap: applied to the sites of the blocks.
      mask: (B, N) bool, the tokens that can be attended to; None for all. Blocks of another kind
        may take another array here.
    """
    noise: Noise | None = None
    if key is not None:
        rates = drop_path_rates(drop_path, depth) if drop_path else None
        noise = jax.random.split(key, depth), rates
    names = [f"block{i:02d}" for i in range(depth)]
    stacked = scan and (module.is_initializing() or not _taps_blocks(tap, names))
    block = rematerialise(block_type, remat, scanned=stacked)
    outs = []
    if stacked:
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast),  # pyright: ignore[reportArgumentType]
            length=depth,
        )
        x, stacked_out = stack(**fields, name="blocks")(x, noise, mask)
        outs = [layer_of(stacked_out, i) for i in range(depth)]
    else:
        for i, name in enumerate(names):
            if scan:
                params = layer_of(module.get_variable("params", "blocks"), i)
                run = functools.partial(
                    block(**fields, tap=tap, site=name, parent=None).apply, {"params": params}
                )
            else:
                run = block(**fields, tap=tap, site=name, name=name)
            x, block_out = run(x, layer_of(noise, i), mask)
            outs.append(block_out)
    out = {}
    for name, block_out in zip(names, outs, strict=True):
        out |= {f"{name}/{site}".rstrip("/"): value for site, value in block_out.items()}
    return x, out


def _taps_blocks(tap: Tap | None, names: list[str]) -> bool:
    sites = ("", "/attn", "/mlp", "/attention", "/middle", "/mix")
    return any(wants(tap, name + site) for name in names for site in sites)


def layer_of(stacked: Tree, i: int) -> Tree:
    """Layer ``i`` of a tree of arrays with a leading axis of layers."""
    return jax.tree.map(lambda leaf: leaf[i], stacked)


class MAPHead(nn.Module):
    """Multi-head attention pooling: a learned probe attends over the tokens, then an MLP.

    Zhai et al., Scaling Vision Transformers, 2022. (B, N, D) to (B, D). ``mask`` (B, N) bool marks
    the tokens to attend to.

    Attributes:
      heads: of the attention.
      mlp_dim: hidden width of the MLP.
      precision: number formats.
      attention: see ``Attention.implementation``.
      activation: of the MLP.
      norm_epsilon: of LayerNorm.
    """

    heads: int
    mlp_dim: int
    precision: Precision
    attention: Attend | None
    activation: Activation = "gelu"
    norm_epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        batch, _, width = x.shape
        init = _XAVIER
        probe = self.param("probe", init, (1, 1, width), self.precision.params)
        probe = probe.astype(self.precision.compute)
        probe = jnp.broadcast_to(probe, (batch, 1, width))
        split: Mapping[str, Any] = {"shape": (self.heads, width // self.heads), "tensor": 2}
        q = dense(probe, width, self.precision, "q", init, **split)
        k = dense(x, width, self.precision, "k", init, **split)
        v = dense(x, width, self.precision, "v", init, **split)
        x = attend(q, k, v, self.precision, self.attention, mask)
        x = constrain_batch(x, tensor=2)
        x = dense(x.reshape(batch, width), width, self.precision, "proj", init)
        y = layer_norm(x, self.precision, "norm", self.norm_epsilon)
        mlp = Mlp(
            self.mlp_dim,
            XAVIER.fc1,
            self.precision,
            XAVIER.mlp_bias,
            activation=self.activation,
            name="mlp",
        )
        return x + mlp(y)
