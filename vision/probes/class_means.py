"""Running class means: sums and counts, updated with records in any order."""

from __future__ import annotations

from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp

from vision.blocks.similarity import inner, unit

Metric = Literal["euclidean", "cosine"]


@flax.struct.dataclass
class ClassMeans:
    """Sufficient statistics of the class means.

    Attributes:
      sum: float32 (C, D), of the features of each class.
      count: int32 (C,).
    """

    sum: jax.Array
    count: jax.Array

    @property
    def mean(self) -> jax.Array:
        """float32 (C, D); zeros for a class without records."""
        return self.sum / jnp.maximum(self.count, 1)[:, None]

    @property
    def present(self) -> jax.Array:
        """bool (C,): classes with at least one record."""
        return self.count > 0


def empty_means(num_classes: int, width: int) -> ClassMeans:
    """The state before the first record."""
    return ClassMeans(jnp.zeros((num_classes, width)), jnp.zeros(num_classes, jnp.int32))


@jax.jit
def update(state: ClassMeans, x: jax.Array, labels: jax.Array) -> ClassMeans:
    """The state after features x (N, D) with labels int (N,); -1 is unlabelled and ignored."""
    row = jnp.where(labels >= 0, labels, len(state.count))
    return ClassMeans(
        state.sum.at[row].add(x.astype(jnp.float32), mode="drop"),
        state.count.at[row].add(1, mode="drop"),
    )


def merge(first: ClassMeans, second: ClassMeans) -> ClassMeans:
    """The state after the records of both."""
    return jax.tree.map(jnp.add, first, second)


@jax.jit(static_argnames="metric")
def closeness(
    x: jax.Array, means: jax.Array, present: jax.Array, metric: Metric = "euclidean"
) -> jax.Array:
    """float32 (N, C), the largest for the nearest mean; minus infinity for absent classes.

    Args:
      x: features (N, D).
      means: (C, D).
      present: bool (C,): classes that can be predicted.
      metric: ``euclidean`` gives minus half the squared distance, up to a constant of each row;
        ``cosine`` the cosine.
    """
    if metric == "cosine":
        scores = inner("nd,cd->nc", unit(x), unit(means))
    else:
        # Relative to the means' centre: far from the origin differences would be rounded away.
        centre = jnp.sum(means * present[:, None], 0) / jnp.maximum(present.sum(), 1)
        centred = means - centre
        products = inner("nd,cd->nc", x - centre, centred)
        scores = products - jnp.sum(centred**2, -1) / 2
    return jnp.where(present, scores, -jnp.inf)
