"""Pooling by learned queries that attend to the tokens, as in open_clip's CoCa."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.models.attention import Attend, attend
from vision.models.layers import dense, layer_norm
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision

_XAVIER = nn.initializers.xavier_uniform()


class QueryPool(nn.Module):
    """(B, N, D) to (B, queries, width): attention of learned queries to all tokens.

    Yu et al., CoCa, 2022, as open_clip has it.

    Attributes:
      queries: their number.
      width: of the result.
      heads: of the attention; they divide the width.
      norm_epsilon: of the LayerNorms of queries and tokens.
      precision: number formats.
      attention: implementation; see ``vision.models.transformer.Attention``.
    """

    queries: int
    width: int
    heads: int
    norm_epsilon: float
    precision: Precision
    attention: Attend | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, width, precision = x.shape[0], self.width, self.precision
        shape = (self.heads, width // self.heads)
        normal = nn.initializers.normal(1.0)
        queries = self.param("queries", normal, (self.queries, width), precision.params)
        queries = jnp.broadcast_to(queries.astype(x.dtype), (batch, self.queries, width))
        y = layer_norm(queries, precision, "norm_q", self.norm_epsilon)
        x = layer_norm(x, precision, "norm_k", self.norm_epsilon)
        q = dense(y, width, precision, "q", _XAVIER, shape=shape, tensor=2)
        k = dense(x, width, precision, "k", _XAVIER, shape=shape, tensor=2)
        v = dense(x, width, precision, "v", _XAVIER, shape=shape, tensor=2)
        x = constrain_batch(attend(q, k, v, precision, self.attention), tensor=2)
        return dense(x.reshape(batch, self.queries, width), width, precision, "proj", _XAVIER)
