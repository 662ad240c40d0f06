"""Token reduction rules for vision transformers: select, fuse, merge or gather tokens.

A rule is a frozen dataclass with ``reads_attention``, ``adds`` (tokens returned beyond those
kept), ``init(key, width, kept) -> params`` and ``rule(params, x, attention, prefix, kept)``:

    params      learned parameters, an empty tuple where there are none
    x           (B, N, D) tokens, the prefix first, which no rule changes
    attention   (B, heads, N, N) of the block, class token first; None unless the rule reads it
    prefix      number of class and register tokens
    kept        how many of the N - prefix patch tokens are kept

The result is (B, prefix + kept + adds, D). All are traceable, and differentiable in ``x``.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp

Tree = Any


class ReductionRule(Protocol):
    reads_attention: ClassVar[bool]

    @property
    def adds(self) -> int: ...

    def init(self, key: jax.Array, width: int, kept: int) -> Tree: ...

    def __call__(
        self, params: Tree, x: jax.Array, attention: jax.Array | None, prefix: int, kept: int
    ) -> jax.Array: ...


def number_kept(tokens: int, keep: float) -> int:
    """``ceil(keep * tokens)``, at least one."""
    return max(1, math.ceil(keep * tokens - 1e-9))


def top(x: jax.Array, scores: jax.Array, kept: int) -> tuple[jax.Array, jax.Array]:
    """The ``kept`` tokens of highest score, best first, and the others: (B, ., D) each."""
    order = jnp.argsort(scores, axis=1, descending=True)
    x = jnp.take_along_axis(x, order[..., None], axis=1)
    return x[:, :kept], x[:, kept:]


def merge_pairs(x: jax.Array, sizes: jax.Array, merged: int) -> tuple[jax.Array, jax.Array]:
    """Bipartite soft matching: ``merged`` tokens at even positions are merged into odd ones.

    Every even token is matched to its most similar odd one, by cosine; the ``merged`` best matches
    are averaged, weighted by the number of original tokens that each represents.

    Args:
      x: (B, N, D).
      sizes: (B, N, 1) float, the number of original tokens that each represents.
      merged: at most N // 2.

    Returns:
      (B, N - merged, D) and (B, N - merged, 1): the unmerged even tokens, then the odd ones.
    """
    even, odd = x[:, ::2], x[:, 1::2]
    even_sizes, odd_sizes = sizes[:, ::2], sizes[:, 1::2]
    unit = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6)
    similarity = jnp.einsum("bid,bjd->bij", unit[:, ::2], unit[:, 1::2])
    order = jnp.argsort(similarity.max(-1), axis=1, descending=True)[..., None]
    sources, unmerged = order[:, :merged], order[:, merged:]
    partner = jnp.take_along_axis(similarity.argmax(-1)[..., None], sources, axis=1)[..., 0]
    assignment = jax.nn.one_hot(partner, odd.shape[1], axis=1, dtype=x.dtype)
    source_sizes = jnp.take_along_axis(even_sizes, sources, axis=1)
    total = odd_sizes + assignment @ source_sizes
    odd = (
        odd * odd_sizes + assignment @ (jnp.take_along_axis(even, sources, axis=1) * source_sizes)
    ) / total
    remaining = (jnp.take_along_axis(array, unmerged, axis=1) for array in (even, even_sizes))
    pairs = zip(remaining, (odd, total), strict=True)
    tokens, sizes = (jnp.concatenate(pair, axis=1) for pair in pairs)
    return tokens, sizes


@dataclasses.dataclass(frozen=True)
class Attended:
    """Keeps the tokens that the class token attends to most, averaged over heads.

    With ``fuse`` the others become one token, their sum weighted by that attention: EViT (Liang et
    al., Not All Patches are What You Need, 2022); without it, Top-K.

    Attributes:
      fuse: the other tokens become one.
    """

    fuse: bool = True

    reads_attention: ClassVar[bool] = True

    @property
    def adds(self) -> int:
        return int(self.fuse)

    def init(self, key: jax.Array, width: int, kept: int) -> Tree:
        return ()

    def __call__(
        self, params: Tree, x: jax.Array, attention: jax.Array | None, prefix: int, kept: int
    ) -> jax.Array:
        assert attention is not None
        scores = attention[:, :, 0, prefix:].mean(1)
        best, others = top(x[:, prefix:], scores, kept)
        parts = [x[:, :prefix], best]
        if self.fuse:
            weights = top(scores[..., None], scores, kept)[1].astype(x.dtype)
            parts.append(jnp.sum(others * weights, axis=1, keepdims=True))
        return jnp.concatenate(parts, axis=1)


@dataclasses.dataclass(frozen=True)
class Merged:
    """Averages similar tokens, at most half of them per round, until ``kept`` are left.

    ToMe (Bolya et al., Token Merging: Your ViT But Faster, 2023). Differences: tokens are compared,
    not keys, and there is no proportional attention.
    """

    reads_attention: ClassVar[bool] = False

    @property
    def adds(self) -> int:
        return 0

    def init(self, key: jax.Array, width: int, kept: int) -> Tree:
        return ()

    def __call__(
        self, params: Tree, x: jax.Array, attention: jax.Array | None, prefix: int, kept: int
    ) -> jax.Array:
        prefix_tokens, tokens = x[:, :prefix], x[:, prefix:]
        sizes = jnp.ones((*tokens.shape[:2], 1), x.dtype)
        while tokens.shape[1] > kept:
            merged = min(tokens.shape[1] // 2, tokens.shape[1] - kept)
            tokens, sizes = merge_pairs(tokens, sizes, merged)
        return jnp.concatenate([prefix_tokens, tokens], axis=1)


@dataclasses.dataclass(frozen=True)
class Gathered:
    """Learned queries, each of which gathers a convex combination of the normalised tokens.

    Renggli et al., Learning to Merge Tokens in Vision Transformers (PatchMerger), 2022.
    """

    reads_attention: ClassVar[bool] = False

    @property
    def adds(self) -> int:
        return 0

    def init(self, key: jax.Array, width: int, kept: int) -> Tree:
        queries = jax.random.normal(key, (kept, width)) * width**-0.5
        return {"queries": queries, "scale": jnp.ones(width), "bias": jnp.zeros(width)}

    def __call__(
        self, params: Tree, x: jax.Array, attention: jax.Array | None, prefix: int, kept: int
    ) -> jax.Array:
        tokens = jax.nn.standardize(x[:, prefix:].astype(jnp.float32), epsilon=1e-6)
        tokens = tokens * params["scale"] + params["bias"]
        weights = jax.nn.softmax(jnp.einsum("kd,bnd->bkn", params["queries"], tokens), axis=-1)
        return jnp.concatenate([x[:, :prefix], (weights @ tokens).astype(x.dtype)], axis=1)
