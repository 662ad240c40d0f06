"""Cosine softmax over all classes, or over a sample of very many classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vision.blocks.contrast import NEVER
from vision.blocks.similarity import inner, unit
from vision.train.objective import masked_mean

Tree = Any


def init_classifier(keys: Sequence[jax.Array], features: int, width: int, classes: int) -> Tree:
    """``projection``, a kernel (features, width), and ``classes`` (classes, width), normal."""

    def normal(key: jax.Array, shape: tuple[int, int], fan: int) -> jax.Array:
        return jax.random.normal(key, shape, jnp.float32) * fan**-0.5

    return {
        "projection": {"kernel": normal(keys[0], (features, width), features)},
        "classes": normal(keys[1], (classes, width), width),
    }


def projected(pooled: jax.Array, classifier: Tree) -> jax.Array:
    """Unit vectors (B, width) of pooled features (B, features)."""
    return unit(pooled @ classifier["projection"]["kernel"])


def cosine_softmax(
    features: jax.Array,
    classes: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    sample: jax.Array,
    scale: jax.Array,
    margin: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy over rows and top-1 accuracy, float32 scalars.

    The softmax is over the classes of the batch and those in ``sample``, each once, for all rows,
    so that a step costs B (B + n) products for any K. With every class in ``sample`` it is the full
    softmax. Other classes have no gradient. There is no correction for the sampling probabilities.

    Args:
      features: unit vectors (B, D), float32.
      classes: (K, D), of any length.
      labels: int (B,), 0..K - 1 where ``valid``.
      valid: bool (B,): rows that count.
      sample: int (n,), 0..K - 1.
      scale: inverse temperature.
      margin: subtracted from the cosine with a row's own class.
    """
    candidates = jnp.concatenate([jnp.where(valid, labels, 0), sample])
    present = jnp.concatenate([valid, jnp.ones(len(sample), bool)])
    columns = jnp.arange(len(candidates))
    # A repeated candidate is used once, in its first column.
    first_column = jnp.full(len(classes), len(candidates)).at[
        jnp.where(present, candidates, len(classes))
    ]
    first = first_column.min(columns, mode="drop")
    unique = present & (first[candidates] == columns)
    positive = first[candidates[: len(labels)]][:, None] == columns
    cosines = inner("bd,cd->bc", features, unit(classes[candidates].astype(jnp.float32)))
    logits = jnp.where(unique, scale * (cosines - margin * positive), NEVER)
    true = jnp.sum(jnp.where(positive, logits, 0.0), 1)
    losses = jax.nn.logsumexp(logits, 1) - true
    return masked_mean(losses, valid), masked_mean(true >= jnp.max(logits, 1), valid)
