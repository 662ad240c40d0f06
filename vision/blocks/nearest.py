"""Exact nearest neighbours by inner product, without a matrix of all queries by all items.

The gallery is multiplied block by block, and of every block only scores above the best so far are
kept, so that the memory is that of one block whatever the gallery's size.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vision.config.errors import UserError

_QUERIES = 1024
_SCORES = 2**22  # scores of one block on the host: 16 MiB
_DEVICE_BLOCK = 8192
_RESCORED = 2**23  # numbers gathered at a time for the final scores


class NearestError(UserError):
    """Queries and gallery cannot be compared."""


def nearest(
    queries: np.ndarray | jax.Array, gallery: np.ndarray | jax.Array, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` items of largest inner product with every query.

    A numpy gallery (also memory-mapped) is searched by the host's BLAS, a JAX array on its
    devices: split along its first dimension, every device searches its part and the best are
    merged. Both multiply in float32 and choose some more than ``k``, whose products are then taken
    in float64. Hence neither blocks nor devices change scores or order, and equal items tie. (The
    one exception: more different items than the spare ones have products at place ``k`` that differ
    by less than float32 rounding.)

    Args:
      queries: (Q, D) float.
      gallery: (N, D) float.
      k: 1..N.

    Returns:
      Scores float32 (Q, k), falling, and indices int64 (Q, k); equal scores by rising index.

    Raises:
      NearestError: shapes that do not match, k out of range, or numbers that are not finite.
    """
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise NearestError(
            f"queries {queries.shape} and gallery {gallery.shape} must be (Q, D) and (N, D)"
        )
    if not 1 <= k <= len(gallery):
        raise NearestError(f"k={k}: must lie in 1..{len(gallery)}, the size of the gallery")
    spare = min(len(gallery), k + max(8, k // 8))
    scores = np.empty((len(queries), k), np.float32)
    indices = np.empty((len(queries), k), np.int64)
    equal = _EqualItems()
    for start in range(0, len(queries), _QUERIES):
        block = np.asarray(queries[start : start + _QUERIES], np.float32)
        if not np.isfinite(block).all():
            raise NearestError("queries hold NaN or infinity; leave these rows out")
        if isinstance(gallery, jax.Array):
            candidates = _on_devices(block, gallery, spare)
        else:
            candidates = _on_host(block, gallery, spare)
        rows = slice(start, start + len(block))
        scores[rows], indices[rows] = _rescored(block, gallery, candidates, k, equal)
    return scores, indices


def _on_host(queries: np.ndarray, gallery: Any, keep: int) -> np.ndarray:
    """Indices (Q, keep) of the best float32 products."""
    best = np.full((len(queries), keep), -np.inf, np.float32)
    indices = np.full((len(queries), keep), -1, np.int64)
    largest_block = max(1024, _SCORES // len(queries))
    products = np.empty(largest_block * len(queries), np.float32)
    # The first blocks are small and grow, so that few scores of a block beat earlier ones.
    start, size = 0, min(largest_block, max(256, keep))
    while start < len(gallery):
        block = np.asarray(gallery[start : start + size], np.float32)
        scores = products[: len(queries) * len(block)].reshape(len(queries), len(block))
        np.matmul(queries, block.T, out=scores)
        largest = scores.max(1)
        if not np.isfinite(largest).all():
            raise NearestError(
                f"the gallery holds NaN or infinity in rows {start}..{start + len(block) - 1}, or "
                "its products do; leave such rows out"
            )
        rows = np.flatnonzero(largest > best[:, -1])
        if rows.size:
            best[rows], indices[rows] = _merged(best[rows], indices[rows], scores[rows], start)
        start += len(block)
        size = min(2 * size, largest_block)
    return indices


def _merged(
    best: np.ndarray, indices: np.ndarray, scores: np.ndarray, start: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best (R, keep) and their indices, updated with scores (R, B) of a later block."""
    keep = best.shape[1]
    row, column = np.divmod(np.flatnonzero(scores > best[:, -1:]), scores.shape[1])
    count = np.bincount(row, minlength=len(best))
    slot = keep + np.arange(len(row)) - (np.cumsum(count) - count)[row]
    padding = ((0, 0), (0, int(count.max())))
    best = np.pad(best, padding, constant_values=-np.inf)
    indices = np.pad(indices, padding, constant_values=-1)
    best[row, slot], indices[row, slot] = scores[row, column], start + column
    order = np.argsort(-best, axis=1, kind="stable")[:, :keep]
    return np.take_along_axis(best, order, 1), np.take_along_axis(indices, order, 1)


def _on_devices(queries: np.ndarray, gallery: jax.Array, keep: int) -> np.ndarray:
    axes, sharding = _split(gallery)
    best, indices = _searcher(sharding, axes, keep)(queries, gallery)
    if not np.isfinite(np.asarray(best)).all():
        raise NearestError("the gallery holds NaN or infinity, or its products do")
    return np.asarray(indices).astype(np.int64)


def _split(gallery: jax.Array) -> tuple[Any, NamedSharding | None]:
    """Mesh axes that split the first dimension, and the sharding; None on a single device."""
    sharding = gallery.sharding
    if not isinstance(sharding, NamedSharding):
        return None, None
    return (sharding.spec[0] if len(sharding.spec) else None), sharding


@functools.lru_cache(maxsize=32)
def _searcher(sharding: NamedSharding | None, axes: Any, keep: int) -> Any:
    """A function from queries and gallery to the best scores and their indices, both (Q, keep)."""

    def search(queries: jax.Array, gallery: jax.Array) -> tuple[jax.Array, jax.Array]:
        best, indices = _scan(queries, gallery, min(keep, len(gallery)))
        if axes is None:
            return best, indices
        indices += jax.lax.axis_index(axes) * len(gallery)
        # Parts come in the order of their indices, so that ties go to the lower one.
        best, indices = (jax.lax.all_gather(x, axes, axis=1, tiled=True) for x in (best, indices))
        return _top(best, indices, keep)

    if sharding is None:
        return jax.jit(search)
    replicated = NamedSharding(sharding.mesh, P())
    if axes is not None:
        specs = (P(), P(axes))
        search = jax.shard_map(
            search, mesh=sharding.mesh, in_specs=specs, out_specs=P(), check_vma=False
        )
    return jax.jit(search, in_shardings=(replicated, sharding), out_shardings=replicated)


def _scan(queries: jax.Array, gallery: jax.Array, keep: int) -> tuple[jax.Array, jax.Array]:
    count = len(gallery)
    size = min(count, max(_DEVICE_BLOCK, keep))

    def step(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        # The last block overlaps the one before; items already scored are masked.
        first = jnp.minimum(i * size, count - size)
        block = jax.lax.dynamic_slice_in_dim(gallery, first, size).astype(jnp.float32)
        scores = jnp.matmul(queries, block.T, precision=jax.lax.Precision.HIGHEST)
        item_indices = first + jnp.arange(size, dtype=jnp.int32)
        scores = jnp.where(
            item_indices >= i * size, jnp.where(jnp.isnan(scores), jnp.inf, scores), -jnp.inf
        )
        scores, chosen = jax.lax.top_k(scores, keep)
        best = jnp.concatenate([carry[0], scores], 1)
        return _top(best, jnp.concatenate([carry[1], item_indices[chosen]], 1), keep)

    shape = (len(queries), keep)
    start = (jnp.full(shape, -jnp.inf), jnp.full(shape, -1, jnp.int32))
    return jax.lax.fori_loop(0, -(-count // size), step, start)


def _top(best: jax.Array, indices: jax.Array, keep: int) -> tuple[jax.Array, jax.Array]:
    best, chosen = jax.lax.top_k(best, keep)
    return best, jnp.take_along_axis(indices, chosen, 1)


def _rescored(
    queries: np.ndarray, gallery: Any, candidates: np.ndarray, k: int, equal: _EqualItems
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` best of ``candidates`` (Q, keep), and of items equal to them, in float64."""
    candidates = np.sort(candidates, 1)
    exact = np.empty(candidates.shape)
    crowded = np.zeros(len(queries), bool)
    rows = max(1, _RESCORED // (candidates.shape[1] * queries.shape[1]))
    for start in range(0, len(queries), rows):
        block = slice(start, start + rows)
        items = np.asarray(_rows(gallery, candidates[block]), np.float64)
        query = queries[block].astype(np.float64)
        exact[block] = np.einsum("qd,qkd->qk", query, items)
        # Whether items that are no candidates can be as good as the one at place k.
        longest = np.sqrt(np.square(items).sum(2).max(1) * np.square(query).sum(1))
        rounding = 4 * queries.shape[1] * np.finfo(np.float32).eps * longest
        kth = np.partition(exact[block], -k, axis=1)[:, -k]
        crowded[block] = exact[block].min(1) >= kth - rounding
    order = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    scores = np.take_along_axis(exact, order, 1)
    indices = np.take_along_axis(candidates, order, 1)
    if candidates.shape[1] < len(gallery):
        for query in np.flatnonzero(crowded).tolist():
            more, which = equal.of(gallery, candidates[query], k)
            values = exact[query][which]
            best = np.lexsort((more, -values))[:k]
            scores[query], indices[query] = values[best], more[best]
    return scores.astype(np.float32), indices


class _EqualItems:
    """Items of a gallery with equal numbers, looked for when a query first needs them."""

    def __init__(self) -> None:
        self.groups: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def of(self, gallery: Any, items: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Up to ``k`` items, the lowest indices, equal to each of ``items``, and to which."""
        if self.groups is None:
            self.groups = _equal_rows(gallery)
        group, order, start = self.groups
        groups, first = np.unique(group[items], return_index=True)
        members = [order[start[g] : min(start[g] + k, start[g + 1])] for g in groups]
        return np.concatenate(members), np.repeat(first, [len(x) for x in members])


def _equal_rows(gallery: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group (N,) of equal rows; items by group, then index (N,); first place of each group."""
    rows = max(1, _RESCORED // gallery.shape[1])
    digests = []
    for start in range(0, len(gallery), rows):
        stop = min(start + rows, len(gallery))
        block = np.asarray(_rows(gallery, np.arange(start, stop)), np.float32) + np.float32(0)
        digests += [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in block]
    _, group = np.unique(np.asarray(digests, "V16"), return_inverse=True)
    start = np.concatenate([[0], np.cumsum(np.bincount(group))])
    return group, np.argsort(group, kind="stable"), start


def _rows(gallery: Any, indices: np.ndarray) -> Any:
    if not isinstance(gallery, jax.Array):
        return gallery[indices]
    _, sharding = _split(gallery)
    return _taker(sharding)(gallery, indices.astype(np.int32))


@functools.lru_cache(maxsize=32)
def _taker(sharding: NamedSharding | None) -> Any:
    def take(gallery: jax.Array, indices: jax.Array) -> jax.Array:
        return gallery[indices]

    if sharding is None:
        return jax.jit(take)
    replicated = NamedSharding(sharding.mesh, P())
    return jax.jit(take, in_shardings=(sharding, replicated), out_shardings=replicated)
