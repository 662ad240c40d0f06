"""k-means: Lloyd's iterations from k-means++ seeds.

Arthur and Vassilvitskii, k-means++: The Advantages of Careful Seeding, 2007.
"""

from __future__ import annotations

import functools

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Clustering:
    """Centres (K, D) float32, the nearest one (N,) int32 of every point, and the sum of squared
    distances to them, a scalar.

    Attributes:
      centres: (K, D) float32.
      assignment: (N,) int32, the nearest centre of every point.
      inertia: sum of squared distances of points to their centres, a scalar.
    """

    centres: jax.Array
    assignment: jax.Array
    inertia: jax.Array


@functools.partial(jax.jit, static_argnames=("clusters",))
def seeds(x: jax.Array, clusters: int, key: jax.Array) -> jax.Array:
    """``clusters`` of the points x (N, D), (K, D): the first at random, each next one with a
    probability in proportion to its squared distance from the nearest so far."""
    k_first, k_rest = jax.random.split(key)
    first = x[jax.random.randint(k_first, (), 0, len(x))]

    def add(nearest: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        # If all points coincide with chosen ones, any of them can be drawn.
        logits = jnp.where(jnp.any(nearest > 0), jnp.log(nearest), 0.0)
        centre = x[jax.random.categorical(key, logits)]
        return jnp.minimum(nearest, jnp.sum((x - centre) ** 2, -1)), centre

    nearest = jnp.sum((x - first) ** 2, -1)
    _, others = jax.lax.scan(add, nearest, jax.random.split(k_rest, clusters - 1))
    return jnp.concatenate([first[None], others])


@functools.partial(jax.jit, static_argnames=("iterations",))
def lloyd(x: jax.Array, centres: jax.Array, iterations: int = 100) -> Clustering:
    """Moves centres (K, D) to the means of the points x (N, D) nearest to them, until no point
    changes its centre or ``iterations`` times. A centre without points stays where it is."""

    def assign(centres: jax.Array) -> tuple[jax.Array, jax.Array]:
        distances = jnp.sum(x * x, -1)[:, None] - 2 * x @ centres.T + jnp.sum(centres * centres, -1)
        return jnp.argmin(distances, 1).astype(jnp.int32), jnp.sum(
            jnp.maximum(jnp.min(distances, 1), 0)
        )

    def move(state: tuple) -> tuple:
        centres, previous, _, count = state
        sums = jax.ops.segment_sum(x, previous, len(centres))
        sizes = jax.ops.segment_sum(jnp.ones(len(x)), previous, len(centres))[:, None]
        centres = jnp.where(sizes > 0, sums / jnp.maximum(sizes, 1), centres)
        current, _ = assign(centres)
        return centres, current, jnp.any(current != previous), count + 1

    first, _ = assign(centres)
    start = (centres, first, jnp.bool_(True), 0)
    centres, *_ = jax.lax.while_loop(lambda s: s[2] & (s[3] < iterations), move, start)
    assignment, inertia = assign(centres)
    return Clustering(centres, assignment, inertia)


def kmeans(
    x: jax.Array, clusters: int, key: jax.Array, *, starts: int = 4, iterations: int = 100
) -> Clustering:
    """The best of ``starts`` clusterings of points x (N, D), by inertia.

    Raises:
      ValueError: more clusters than points, or no cluster.
    """
    if not 1 <= clusters <= len(x):
        raise ValueError(
            f"clusters={clusters} of {len(x)} points: must be from 1 to the number of points"
        )
    x = jnp.asarray(x, jnp.float32)
    clusterings = [
        lloyd(x, seeds(x, clusters, each), iterations) for each in jax.random.split(key, starts)
    ]
    return min(clusterings, key=lambda each: float(each.inertia))
