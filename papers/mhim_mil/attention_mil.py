"""Attention pooling over bags of instances: attention-based multiple instance learning."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import NonNegative, Positive, Rate, checked
from vision.models.layers import (
    classify,
    dense,
    dropout,
)
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap


@checked
class AttentionMIL(nn.Module):
    """Attention-based multiple instance learning (ABMIL): Ilse et al., 2018.

    h_i = relu(fc(x_i)), a = softmax_i(w tanh(V h_i)), z = sum_i a_i h_i.

    Called with bags (B, N, ...), whatever is behind N flattened, it returns ``(embedding, out)``:
    ``tokens`` (B, N, width) the h; ``attention`` (B, N) float32, which sums to one; ``pooled`` and
    ``embedding`` (B, width) the z; ``logits`` (B, num_classes) where there is a head.

    ``mask`` (B, N) bool marks valid instances; None for all. A bag without any gives NaN.

    Attributes:
      width: of the h.
      hidden: rows of V.
      num_classes: of the head; None for none.
      dropout: of the h.
      head_zero_init: head's kernel starts at zero.
      precision: number formats.
    """

    width: Positive[int] = 512
    hidden: Positive[int] = 128
    num_classes: NonNegative[int] | None = None
    dropout: Rate = 0.25
    head_zero_init: bool = False
    precision: Precision = Precision()

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool = False,
        tap: Tap | None = None,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        if x.ndim < 3 or not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"bags are {x.dtype}{list(x.shape)}, expected floats [B, N, ...]")
        x = x.reshape(*x.shape[:2], -1)
        xavier, precision = nn.initializers.xavier_normal(), self.precision
        x = nn.relu(dense(x, self.width, precision, "fc", xavier))
        key = self.make_rng("dropout") if train and self.dropout else None
        x = constrain_batch(dropout(x, key, self.dropout))
        out = {"tokens": apply_tap(tap, "tokens", x)}
        x = out["tokens"]
        hidden = nn.tanh(dense(x, self.hidden, precision, "attend", xavier))
        scores = dense(hidden, 1, precision, "score", xavier)[..., 0].astype(jnp.float32)
        if mask is not None:
            scores = jnp.where(mask, scores, -jnp.inf)
        weights = out["attention"] = apply_tap(tap, "attention", jax.nn.softmax(scores, axis=-1))
        pooled = jnp.einsum("bn,bnd->bd", weights, x.astype(jnp.float32))
        pooled = out["pooled"] = apply_tap(tap, "pooled", pooled.astype(precision.output))
        return classify(pooled, out, tap, self.num_classes, self.head_zero_init, precision)
