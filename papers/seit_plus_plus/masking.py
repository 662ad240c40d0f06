"""How much is masked, how dropped positions leave the ViT's sequence, and scores of masked ids."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from vision.train.tower import Tap


def dropped_count(positions: int, dropped: float) -> int:
    """Number of dropped positions: a share of all, rounded up."""
    return math.ceil(dropped * positions)


def masked_count(
    key: jax.Array, positions: int, dropped: float, mean: float, deviation: float
) -> jax.Array:
    """Number of masked positions, int32, at least the number of dropped ones.

    Args:
      key: of the draw.
      positions: of an image.
      dropped: share that is not given at all, and minimum of the masked.
      mean: of the masked share before it is truncated to ``dropped`` .. 1.
      deviation: of the same.
    """
    low, high = ((x - mean) / deviation for x in (dropped, 1.0))
    share = mean + deviation * jax.random.truncated_normal(key, low, high)
    count = jnp.ceil(share * positions).astype(jnp.int32)
    return jnp.clip(count, dropped_count(positions, dropped), positions)


def masking_tap(replacement: jax.Array, masked: jax.Array, visible: jax.Array) -> Tap:
    """A tap of ``stem``, after which the patch tokens are those of ``visible``, in its order.

    Args:
      replacement: (1, N, D), the token of every position where it is masked.
      masked: bool (B, N).
      visible: int (B, n), the positions that stay.
    """

    def hide(_: str, x: jax.Array) -> jax.Array:
        prefix = x.shape[1] - masked.shape[1]
        patches = jnp.where(masked[..., None], replacement.astype(x.dtype), x[:, prefix:])
        kept = jnp.take_along_axis(patches, visible[..., None], axis=1)
        return jnp.concatenate([x[:, :prefix], kept], axis=1)

    return Tap(hide, "stem")


def id_scores(values: jax.Array, codebook: jax.Array, masking: Any) -> jax.Array:
    """Logits (..., K) of a decoder's outputs (..., d) by codebook (K, d).

    ``masking`` has ``norm_scale`` and ``norm_bias`` (d,), and ``bias`` (K,).
    """
    x = jax.nn.gelu(values, approximate=False)
    centred = x - x.mean(-1, keepdims=True)
    x = centred * jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5)
    return (x * masking["norm_scale"] + masking["norm_bias"]) @ codebook.T + masking["bias"]
