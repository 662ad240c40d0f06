"""Pre-norm transformer blocks and attention pooling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.core.mesh import constrain_batch
from vision.core.net import Tap, touch, wants
from vision.core.precision import Precision
from vision.models.layers import LayerScale, Mlp, dense, drop_path, dropout, layer_norm

Attend = Literal["xla", "cudnn"]

# Key and drop-path rate of one block or, with a leading axis, of a stack of them.
Noise = tuple[jax.Array, jax.Array | None]

_MLP_INIT: Mapping[str, Any] = {
    "kernel_init": nn.initializers.xavier_uniform(),
    "bias_init": nn.initializers.normal(1e-6),
}


def _qkv_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    # Xavier's bound for three (D, D) kernels, which happen to be stored as one.
    bound = (3 / shape[0]) ** 0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def attention_weights(q: jax.Array, k: jax.Array, logits_dtype: str = "float32") -> jax.Array:
    """softmax(q k^T / sqrt(d)) of (B, N, heads, d) arrays: (B, heads, N, N) float32.

    ``logits_dtype`` is that of the products; the softmax over them is float32.
    """
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.dtype(logits_dtype))
    return jax.nn.softmax(logits.astype(jnp.float32) * q.shape[-1] ** -0.5, axis=-1)


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, precision: Precision, implementation: Attend | None
) -> jax.Array:
    """Attention of (B, N, heads, d) arrays without a trace of its weights."""
    if precision.attention_logits == "float32":
        return jax.nn.dot_product_attention(q, k, v, implementation=implementation)
    weights = attention_weights(q, k, precision.attention_logits)
    return jnp.einsum("bhqk,bkhd->bqhd", weights.astype(v.dtype), v)


class Attention(nn.Module):
    """Multi-head self-attention.

    The kernel of ``qkv`` is (D, 3 D). Its columns are q, k and v of the first head, then of the
    second, and so on: parts of them on several devices are whole heads (Shoeybi et al.,
    Megatron-LM, 2019).
    """

    heads: int
    qkv_bias: bool
    precision: Precision
    implementation: Attend | None

    @nn.compact
    def __call__(
        self, x: jax.Array, tap: Tap | None, site: str
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        batch, tokens, width = x.shape
        qkv = dense(
            x,
            3 * width,
            self.precision,
            "qkv",
            _qkv_init,
            use_bias=self.qkv_bias,
            shape=(self.heads, 3, width // self.heads),
            tensor=2,
        )
        q, k, v = qkv[..., 0, :], qkv[..., 1, :], qkv[..., 2, :]
        out = {}
        if wants(tap, site):
            weights = attention_weights(q, k, self.precision.attention_logits)
            weights = out["attention"] = touch(tap, site, weights)
            x = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(v.dtype), v)
        else:
            x = attend(q, k, v, self.precision, self.implementation)
        x = constrain_batch(x, tensor=2).reshape(batch, tokens, width)
        return dense(x, width, self.precision, "proj", nn.initializers.xavier_uniform()), out


class Block(nn.Module):
    """Pre-norm transformer block: ``x + attn(norm1(x))``, then ``x + mlp(norm2(x))``.

    Returns the new tokens and, under ``""``, ``attn``, ``mlp`` and perhaps ``attention``, what
    belongs into ``out`` below the name of the block. Sites are touched below the name ``site``.
    """

    heads: int
    mlp_dim: int
    dropout: float
    layer_scale: float | None
    qkv_bias: bool
    precision: Precision
    attention: Attend | None
    tap: Tap | None = None
    site: str = ""

    @nn.compact
    def __call__(self, x: jax.Array, noise: Noise | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        tap, site = self.tap, self.site
        key, rate = (None, None) if noise is None else noise
        keys = (None,) * 4 if key is None else tuple(jax.random.split(key, 4))

        def scaled(branch: jax.Array, name: str) -> jax.Array:
            if self.layer_scale is None:
                return branch
            return LayerScale(self.layer_scale, self.precision, name=name)(branch)

        y = layer_norm(x, self.precision, "norm1")
        attention = Attention(
            self.heads, self.qkv_bias, self.precision, self.attention, name="attn"
        )
        y, out = attention(y, tap, f"{site}/attention")
        y = scaled(dropout(y, keys[0], self.dropout), "ls1")
        out["attn"] = touch(tap, f"{site}/attn", drop_path(y, keys[1], rate))
        x = x + out["attn"]

        y = layer_norm(x, self.precision, "norm2")
        mlp = Mlp(
            self.mlp_dim, precision=self.precision, dropout=self.dropout, name="mlp", **_MLP_INIT
        )
        y = scaled(mlp(y, keys[2]), "ls2")
        out["mlp"] = touch(tap, f"{site}/mlp", drop_path(y, keys[3], rate))
        x = out[""] = touch(tap, site, constrain_batch(x + out["mlp"]))
        return x, out


class MAPHead(nn.Module):
    """Multi-head attention pooling: a learned probe attends over the tokens, then an MLP.

    Zhai et al., Scaling Vision Transformers, 2022. (B, N, D) to (B, D).
    """

    heads: int
    mlp_dim: int
    precision: Precision
    attention: Attend | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, _, width = x.shape
        init = nn.initializers.xavier_uniform()
        probe = self.param("probe", init, (1, 1, width), self.precision.params)
        probe = probe.astype(self.precision.compute)
        probe = jnp.broadcast_to(probe, (batch, 1, width))
        split: Mapping[str, Any] = {"shape": (self.heads, width // self.heads), "tensor": 2}
        q = dense(probe, width, self.precision, "q", init, **split)
        k = dense(x, width, self.precision, "k", init, **split)
        v = dense(x, width, self.precision, "v", init, **split)
        x = constrain_batch(attend(q, k, v, self.precision, self.attention), tensor=2)
        x = dense(x.reshape(batch, width), width, self.precision, "proj", init)
        y = layer_norm(x, self.precision, "norm")
        return x + Mlp(self.mlp_dim, precision=self.precision, name="mlp", **_MLP_INIT)(y)
