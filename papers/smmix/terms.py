"""The two terms of SMMix beside the cross-entropy: a second linear head for groups of tokens, and
the gap between the prediction for a mixture and the mixture of predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def init_token_head(key: jax.Array, width: int, classes: int) -> dict[str, jax.Array]:
    """``kernel`` (width, classes), of deviation 0.02, and ``bias``, zeros."""
    kernel = 0.02 * jax.random.truncated_normal(key, -2, 2, (width, classes))
    return {"kernel": kernel, "bias": jnp.zeros(classes)}


def group_losses(
    head: Tree,
    tokens: jax.Array,
    pasted: jax.Array,
    targets: tuple[jax.Array, jax.Array],
    entropy: Callable[[jax.Array, jax.Array], jax.Array],
) -> jax.Array:
    """Cross-entropies of the remaining and of the pasted tokens, added (B,).

    Args:
      head: ``kernel`` and ``bias``.
      tokens: (B, h, w, D).
      pasted: bool (B, h, w); where there is none, the second term is 0.
      targets: (B, K) of the image and of its partner.
      entropy: of logits and targets, both (B, K).
    """

    def logits(group: jax.Array) -> jax.Array:
        summed = (tokens.astype(jnp.float32) * group[..., None]).sum((1, 2))
        mean = summed / jnp.maximum(group.sum((1, 2)), 1)[:, None]
        return mean @ head["kernel"] + head["bias"]

    of_pasted = entropy(logits(pasted), targets[1])
    return entropy(logits(~pasted), targets[0]) + jnp.where(pasted.any((1, 2)), of_pasted, 0.0)


def mixture_gap(mixed_logits: jax.Array, logits: jax.Array) -> jax.Array:
    """KL(softmax(mixed_logits) || softmax(logits)), of (B, K) to (B,)."""
    expected = jax.nn.log_softmax(mixed_logits)
    return jnp.sum(jnp.exp(expected) * (expected - jax.nn.log_softmax(logits)), -1)
