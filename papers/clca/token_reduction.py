"""Fewer tokens: rules that choose, fuse, merge or gather them.

A rule is a frozen dataclass with ``reads_attention``, ``adds`` (tokens that come on top of those
kept), ``init(key, width, kept) -> params`` and ``rule(params, x, attention, prefix, kept)``:

    params      what it has learned, an empty tuple where it learns nothing
    x           (B, N, D) tokens, those of the prefix first, which no rule touches
    attention   (B, heads, N, N) of the block, class token first; None unless it reads it
    prefix      class token, registers
    kept        how many of the N - prefix others are left

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
    """Bipartite soft matching: ``merged`` tokens at even places become part of odd ones.

    Every even token has a most similar odd one, by cosine; those with the most similar partners
    are averaged into them, weighted by how many tokens they stand for.

    Args:
      x: (B, N, D).
      sizes: (B, N, 1) float, the numbers of tokens that they stand for.
      merged: at most N // 2.

    Returns:
      (B, N - merged, D) and (B, N - merged, 1): even tokens that are left, then odd ones.
    """
    even, odd = x[:, ::2], x[:, 1::2]
    weight, into = sizes[:, ::2], sizes[:, 1::2]
    unit = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6)
    similar = jnp.einsum("bid,bjd->bij", unit[:, ::2], unit[:, 1::2])
    order = jnp.argsort(similar.max(-1), axis=1, descending=True)[..., None]
    gone, rest = order[:, :merged], order[:, merged:]
    partner = jnp.take_along_axis(similar.argmax(-1)[..., None], gone, axis=1)[..., 0]
    moved = jax.nn.one_hot(partner, odd.shape[1], axis=1, dtype=x.dtype)
    lost = jnp.take_along_axis(weight, gone, axis=1)
    total = into + moved @ lost
    odd = (odd * into + moved @ (jnp.take_along_axis(even, gone, axis=1) * lost)) / total
    left = (jnp.take_along_axis(each, rest, axis=1) for each in (even, weight))
    pairs = zip(left, (odd, total), strict=True)
    found, sizes = (jnp.concatenate(pair, axis=1) for pair in pairs)
    return found, sizes


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
        best, rest = top(x[:, prefix:], scores, kept)
        parts = [x[:, :prefix], best]
        if self.fuse:
            weights = top(scores[..., None], scores, kept)[1].astype(x.dtype)
            parts.append(jnp.sum(rest * weights, axis=1, keepdims=True))
        return jnp.concatenate(parts, axis=1)


@dataclasses.dataclass(frozen=True)
class Merged:
    """Averages similar tokens, half of them at most at a time, until ``kept`` are left.

    ToMe (Bolya et al., Token Merging: Your ViT But Faster, 2023), on tokens where the paper
    compares keys, and without its attention in proportion to sizes.
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
        first, rest = x[:, :prefix], x[:, prefix:]
        sizes = jnp.ones((*rest.shape[:2], 1), x.dtype)
        while rest.shape[1] > kept:
            merged = min(rest.shape[1] // 2, rest.shape[1] - kept)
            rest, sizes = merge_pairs(rest, sizes, merged)
        return jnp.concatenate([first, rest], axis=1)


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
        rest = jax.nn.standardize(x[:, prefix:].astype(jnp.float32), epsilon=1e-6)
        rest = rest * params["scale"] + params["bias"]
        shares = jax.nn.softmax(jnp.einsum("kd,bnd->bkn", params["queries"], rest), axis=-1)
        return jnp.concatenate([x[:, :prefix], (shares @ rest).astype(x.dtype)], axis=1)
