"""Queries of conditions that attend to an image's tokens."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.blocks.similarity import unit
from vision.models.cross_attention import CrossBlock
from vision.models.layers import as_output, dense, layer_norm
from vision.train.precision import Precision

_XAVIER = nn.initializers.xavier_uniform()


class ConditionHead(nn.Module):
    """Tokens (B, N, D) to embeddings (B, conditions, width) of length 1, float32.

    Attributes:
      conditions: number of spaces.
      width: of an embedding.
      blocks: conditional blocks.
      heads: of their attention.
      precision: number formats.
    """

    conditions: int
    width: int
    blocks: int
    heads: int
    precision: Precision

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        precision, (batch, _, width) = as_output(self.precision), tokens.shape
        init, shape = nn.initializers.normal(0.02), (self.conditions, width)
        x = self.param("queries", init, shape, precision.params).astype(tokens.dtype)
        x = jnp.broadcast_to(x, (batch, *shape))
        for i in range(self.blocks):
            x = CrossBlock(self.heads, 4 * width, precision, name=f"cross{i}")(x, tokens)
        x = dense(layer_norm(x, precision, "norm"), self.width, precision, "out", _XAVIER)
        return unit(x.astype(jnp.float32))
