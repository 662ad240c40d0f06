"""Dot-product attention of queries, keys and values: the weights, or only the output."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from vision.parallel.mesh import platform
from vision.train.precision import Precision

Attend = Literal["xla", "cudnn"]
# What a rematerialisation policy calls the output: to compute it again would take the weights.
ATTENTION = "attention"
# And its arguments, where they are arrays of their own and not parts of a product.
QUERY_KEY_VALUE = "query_key_value"


def attention_logits(q: jax.Array, k: jax.Array, dtype: str = "float32") -> jax.Array:
    """The products (..., heads, Q, K), float32, of (..., Q, heads, d) and (..., K, heads, d).

    ``dtype`` is that of the products.
    """
    # Heads before tokens: as one product with two batch dimensions apart from each other, a CPU
    # takes each of the two products of a ViT-S/16 twice as long.
    q, k = q.swapaxes(-3, -2), k.swapaxes(-3, -2)
    logits = jnp.einsum("...qd,...kd->...qk", q, k, preferred_element_type=jnp.dtype(dtype))
    return logits.astype(jnp.float32)


def weighted_mean(weights: jax.Array, v: jax.Array) -> jax.Array:
    """Means (..., Q, heads, d) of values (..., K, heads, d), by weights (..., heads, Q, K)."""
    means = jnp.einsum("...qk,...kd->...qd", weights.astype(v.dtype), v.swapaxes(-3, -2))
    return means.swapaxes(-3, -2)


def softmax_mean(logits: jax.Array, v: jax.Array) -> jax.Array:
    """``weighted_mean(softmax(logits), v)``, which does not write the quotients of the softmax.

    Its gradient, too, takes the quotient of (..., Q, heads, d) instead of (..., heads, Q, K).
    """
    weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
    total = weights.sum(axis=-1)[..., None].swapaxes(-3, -2)
    v32 = {"preferred_element_type": jnp.float32}
    sums = jnp.einsum("...qk,...kd->...qd", weights.astype(v.dtype), v.swapaxes(-3, -2), **v32)
    return (sums.swapaxes(-3, -2) / total).astype(v.dtype)


def attention_weights(
    q: jax.Array,
    k: jax.Array,
    logits_dtype: str = "float32",
    mask: jax.Array | None = None,
    causal: bool = False,
    bias: jax.Array | None = None,
) -> jax.Array:
    """softmax(q k^T / sqrt(d)) of (B, N, heads, d) arrays: (B, heads, N, N) float32.

    ``logits_dtype`` is that of the products; the softmax over them is float32. See ``attend``
    for ``mask``, ``causal`` and ``bias``.
    """
    return jax.nn.softmax(_visible_logits(q, k, mask, bias, logits_dtype, causal), axis=-1)


def _visible_logits(
    q: jax.Array,
    k: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    dtype: str,
    causal: bool,
) -> jax.Array:
    logits = attention_logits(q, k, dtype) * q.shape[-1] ** -0.5
    if bias is not None:
        logits = logits + bias.astype(jnp.float32)
    visible = None if mask is None else mask[:, None, None, :]
    if causal:
        earlier = jnp.tri(q.shape[1], k.shape[1], dtype=bool)
        visible = earlier if visible is None else visible & earlier
    if visible is not None:
        # Finite, so that a row without visible keys has uniform weights instead of NaN.
        logits = jnp.where(visible, logits, -0.7 * jnp.finfo(jnp.float32).max)
    return logits


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    precision: Precision,
    implementation: Attend | None,
    mask: jax.Array | None = None,
    causal: bool = False,
    bias: jax.Array | None = None,
) -> jax.Array:
    """Attention output of (B, N, heads, d) arrays, without storing the weights.

    Only the arguments are kept for the backward pass (Dao et al., FlashAttention, 2022).
    Self-attention on a TPU is a kernel of its own (``vision.models.attention_tpu``), which has no
    forward-mode derivative.

    Args:
      implementation: None for the platform's own, ``xla`` for the plain form, ``cudnn``.
      mask: (B, N) bool, the keys that can be attended to; None for all.
      causal: token i attends only to tokens up to i.
      bias: (heads, N, N) added to the logits.
    """
    if implementation is None and platform() == "tpu" and bias is None:
        out = _kernel(q, k, v, precision, mask, causal)
        if out is not None:
            return out
    if implementation == "cudnn":
        out = _cudnn(q, k, v, mask, bias, causal)
        return checkpoint_name(out, ATTENTION)
    # The weights are computed again in the backward pass: a hundredth of a block's arithmetic
    # against an array of (B, heads, N, N) that would be written, kept and read.
    attention = functools.partial(_xla, dtype=precision.attention_logits, causal=causal)
    return checkpoint_name(jax.checkpoint(attention)(q, k, v, mask, bias), ATTENTION)


def _kernel(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    precision: Precision,
    mask: jax.Array | None,
    causal: bool,
) -> jax.Array | None:
    if precision.attention_logits != "float32":
        return None
    # Imports the languages of kernels, which other platforms can do without.
    from vision.models import attention_tpu

    return attention_tpu.attention(q, k, v, mask, causal, name=ATTENTION)


def _xla(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    dtype: str,
    causal: bool,
) -> jax.Array:
    return softmax_mean(_visible_logits(q, k, mask, bias, dtype, causal), v)


def _cudnn(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    causal: bool,
) -> jax.Array:
    if mask is not None:
        mask = jnp.broadcast_to(mask[:, None, None], (q.shape[0], 1, q.shape[1], k.shape[1]))
    if bias is not None:
        bias = bias[None]
    call = functools.partial(jax.nn.dot_product_attention, is_causal=causal, implementation="cudnn")
    if q.shape[1] % 2 or k.shape[1] % 2:
        return even_tokens(call, q, k, v, mask, bias)
    return call(q, k, v, bias=bias, mask=mask)


def even_tokens(
    call: Callable[..., jax.Array],
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
) -> jax.Array:
    """Attention of odd numbers of tokens by a function of even ones.

    JAX refuses to differentiate cuDNN's attention of, say, 196 patches and a class token. A token
    is added that nobody looks at, and its output dropped.

    Args:
      call: like ``jax.nn.dot_product_attention``.
      q, k, v: (B, N, heads, d), keys and values of their own N.
      mask: bool, broadcasts to (B, heads, N, N).
      bias: likewise.
    """
    rows, columns = q.shape[1], k.shape[1]
    more = (rows % 2, columns % 2)

    def padded(x: jax.Array, tokens: int) -> jax.Array:
        return jnp.pad(x, ((0, 0), (0, tokens), (0, 0), (0, 0)))

    weights = ((0, 0), (0, 0), (0, more[0]), (0, more[1]))
    out = call(
        padded(q, more[0]),
        padded(k, more[1]),
        padded(v, more[1]),
        mask=None if mask is None else jnp.pad(mask, weights),
        bias=None if bias is None else jnp.pad(bias, weights),
        query_seq_lengths=jnp.full(q.shape[0], rows, jnp.int32),
        key_value_seq_lengths=jnp.full(q.shape[0], columns, jnp.int32),
    )
    return out[:, :rows]
