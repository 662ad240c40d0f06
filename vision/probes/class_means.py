"""Means of classes that grow record by record: sums and counts, in any order, from any stream."""

from __future__ import annotations

from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp

from vision.blocks.similarity import inner, unit

Metric = Literal["euclidean", "cosine"]


@flax.struct.dataclass
class ClassMeans:
    """What is kept of all features seen: (C + 1) D numbers, whatever their number.

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
    def there(self) -> jax.Array:
        """bool (C,): classes with a record."""
        return self.count > 0


def empty_means(num_classes: int, width: int) -> ClassMeans:
    """The state before the first record."""
    return ClassMeans(jnp.zeros((num_classes, width)), jnp.zeros(num_classes, jnp.int32))


@jax.jit
def update(state: ClassMeans, x: jax.Array, labels: jax.Array) -> ClassMeans:
    """The state after features x (N, D) of classes labels int (N,), -1 being none."""
    row = jnp.where(labels >= 0, labels, len(state.count))
    return ClassMeans(
        state.sum.at[row].add(x.astype(jnp.float32), mode="drop"),
        state.count.at[row].add(1, mode="drop"),
    )


def merge(first: ClassMeans, second: ClassMeans) -> ClassMeans:
    """The state of one who has seen what both have seen."""
    return jax.tree.map(jnp.add, first, second)


@jax.jit(static_argnames="metric")
def closeness(
    x: jax.Array, means: jax.Array, present: jax.Array, metric: Metric = "euclidean"
) -> jax.Array:
    """float32 (N, C), whose largest is the nearest mean; minus infinity where there is none.

    Args:
      x: features (N, D).
      means: (C, D).
      there: bool (C,): classes that can be an answer.
      metric: ``euclidean`` gives minus half the squared distance, up to a constant of each row;
        ``cosine`` the cosine.
    """
    if metric == "cosine":
        scores = inner("nd,cd->nc", unit(x), unit(means))
    else:
        # From where the means lie: far from the origin their differences would be rounded away.
        centre = jnp.sum(means * present[:, None], 0) / jnp.maximum(present.sum(), 1)
        centred = means - centre
        products = inner("nd,cd->nc", x - centre, centred)
        scores = products - jnp.sum(centred**2, -1) / 2
    return jnp.where(present, scores, -jnp.inf)
