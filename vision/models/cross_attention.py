"""A transformer block in which given queries attend to other tokens."""

from __future__ import annotations

import flax.linen as nn
import jax

from vision.config.ranges import Positive, checked
from vision.models.attention import attend
from vision.models.layers import Mlp, dense, layer_norm
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision

_XAVIER = nn.initializers.xavier_uniform()


@checked
class CrossBlock(nn.Module):
    """``x = queries + attention(norm_q(queries), norm_kv(tokens))``, then ``x + mlp(norm2(x))``.

    Attributes:
      heads: of the attention; their number divides D.
      mlp_dim: hidden width of the MLP.
      precision: number formats.
    """

    heads: Positive[int]
    mlp_dim: Positive[int]
    precision: Precision

    @nn.compact
    def __call__(self, queries: jax.Array, tokens: jax.Array) -> jax.Array:
        """(B, Q, D) from queries (B, Q, D) and tokens (B, N, D)."""
        batch, count, width = queries.shape
        if width % self.heads:
            raise ValueError(f"heads={self.heads} does not divide the width {width}")
        precision, shape = self.precision, (self.heads, width // self.heads)
        x = layer_norm(queries, precision, "norm_q")
        y = layer_norm(tokens, precision, "norm_kv")
        q, k, v = (
            dense(of, width, precision, name, _XAVIER, shape=shape, tensor=2)
            for name, of in (("q", x), ("k", y), ("v", y))
        )
        x = constrain_batch(attend(q, k, v, precision, None), tensor=2)
        x = queries + dense(x.reshape(batch, count, width), width, precision, "proj", _XAVIER)
        y = layer_norm(x, precision, "norm2")
        return constrain_batch(x + Mlp(self.mlp_dim, _XAVIER, precision, name="mlp")(y))
