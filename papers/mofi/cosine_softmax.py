"""Softmax over the cosines with class vectors, over all classes or over some of very many."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vision.blocks.contrast import NEVER
from vision.blocks.similarity import inner, unit


def cosine_softmax(
    features: jax.Array,
    classes: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    sample: jax.Array,
    scale: jax.Array,
    margin: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy over rows, and the share of rows whose class wins, float32 scalars.

    The classes of the batch compete, and those in ``sample``, each once, for all rows; so a step
    costs B (B + n) products whatever K is. With every class in ``sample`` it is the full softmax.
    Classes that lie in neither have no gradient. Nothing corrects for how often a class competes.

    Args:
      features: unit vectors (B, D), float32.
      classes: (K, D), of any length.
      labels: int (B,), 0..K - 1 where ``valid``.
      valid: bool (B,): rows that count.
      sample: int (n,), 0..K - 1.
      scale: inverse temperature.
      margin: taken from the cosine with a row's own class.
    """
    asked = jnp.concatenate([jnp.where(valid, labels, 0), sample])
    there = jnp.concatenate([valid, jnp.ones(len(sample), bool)])
    columns = jnp.arange(len(asked))
    # Who is asked for more than once competes once, in the first column.
    place = jnp.full(len(classes), len(asked)).at[jnp.where(there, asked, len(classes))]
    first = place.min(columns, mode="drop")
    competes = there & (first[asked] == columns)
    own = first[asked[: len(labels)]][:, None] == columns
    cosines = inner("bd,cd->bc", features, unit(classes[asked].astype(jnp.float32)))
    logits = jnp.where(competes, scale * (cosines - margin * own), NEVER)
    true = jnp.sum(jnp.where(own, logits, 0.0), 1)
    weight = valid / jnp.maximum(jnp.sum(valid), 1)
    losses = jax.nn.logsumexp(logits, 1) - true
    return jnp.sum(losses * weight), jnp.sum((true >= jnp.max(logits, 1)) * weight)
