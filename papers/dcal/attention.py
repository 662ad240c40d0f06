"""Attention rollout, and the keys and values of a distractor."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from vision.train.tower import Tap


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


def most_reaching(
    tokens: jax.Array, reach: jax.Array, share: float, class_token: bool
) -> jax.Array:
    """(B, share N or 1, D): the patches that reach most, behind the class token if it is asked for.

    Args:
      tokens: (B, T, D), patches last.
      reach: (B, N) of the patches.
      share: of the patches that are taken, at least one.
      class_token: whether token 0 stands before them.
    """
    count, prefix = max(1, round(share * reach.shape[1])), tokens.shape[1] - reach.shape[1]
    chosen = prefix + jax.lax.top_k(reach, count)[1]
    if class_token:
        chosen = jnp.concatenate([jnp.zeros_like(chosen[:, :1]), chosen], 1)
    return jnp.take_along_axis(tokens, chosen[..., None], 1)


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
