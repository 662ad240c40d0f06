"""Attention rollout, a distractor's keys and values, and the block of selected queries."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.models.attention import attention_weights
from vision.models.layers import Mlp, as_output, dense, layer_norm
from vision.train.precision import Precision
from vision.train.tower import Tap

_XAVIER = nn.initializers.xavier_uniform()


def rollout(weights: Sequence[jax.Array]) -> jax.Array:
    """What reaches each token of the last block from each input token, (B, T, T) float32.

    The product over blocks of half the attention, averaged over heads, and half the identity, which
    stands for the residual: rows sum to 1. Abnar and Zuidema, Quantifying Attention Flow in
    Transformers, 2020.

    Args:
      weights: (B, heads, T, T) of every block, from the first.
    """
    total = None
    for each in weights:
        mean = each.astype(jnp.float32).mean(1)
        step = 0.5 * mean + 0.5 * jnp.eye(mean.shape[-1])
        total = step if total is None else step @ total
    assert total is not None
    return total


def with_distractors(other: jax.Array, tokens: int, depth: int) -> Tap:
    """Every image attends to its own tokens and to those of image ``other[i]``, in every block.

    The other's tokens stand behind an image's and attend to themselves only, so that they are what
    they are in that image's own pass. Outputs of blocks hold both; the first ``tokens`` are the
    image's.

    Args:
      other: int (B,) row of each image's distractor.
      tokens: of an image, prefix included.
      depth: number of blocks.
    """

    def edit(name: str, x: jax.Array) -> jax.Array:
        if name == "stem":
            return jnp.concatenate([x, x[other]], 1)
        first = jnp.arange(2 * tokens) < tokens
        x = jnp.where(~first[:, None] & first, 0, x)
        return x / x.sum(-1, keepdims=True)

    sites = "|".join(f"block{i:02d}/attention" for i in range(depth))
    return Tap(edit, f"stem|{sites}")


class SelectedQueries(nn.Module):
    """A transformer block in which a few tokens attend to all: global-local cross-attention.

    Attributes:
      heads: of the attention; their number divides D.
      precision: number formats.
    """

    heads: int
    precision: Precision

    @nn.compact
    def __call__(self, tokens: jax.Array, chosen: jax.Array) -> jax.Array:
        """The new (B, R, D) tokens at ``chosen``, int (B, R), of (B, T, D)."""
        precision = as_output(self.precision)
        batch, _, width = tokens.shape
        picked = jnp.take_along_axis(tokens, chosen[..., None], 1)
        normed = layer_norm(tokens, precision, "norm1")
        local = jnp.take_along_axis(normed, chosen[..., None], 1)
        parts = (("query", local), ("key", normed), ("value", normed))
        q, k, v = (
            dense(x, width, precision, name, _XAVIER).reshape(
                batch, -1, self.heads, width // self.heads
            )
            for name, x in parts
        )
        weights = attention_weights(q, k)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(v.dtype), v)
        x = picked + dense(mixed.reshape(picked.shape), width, precision, "proj", _XAVIER)
        y = layer_norm(x, precision, "norm2")
        return x + Mlp(4 * width, _XAVIER, precision, name="mlp")(y)
