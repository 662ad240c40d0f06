"""Masking inside the ViT: masked positions get a learned token, dropped ones leave the sequence."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vision.train.tower import Tap


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
