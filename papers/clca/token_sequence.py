"""How the token sequence of CLCA changes from block to block: reduced by a rule, then extended by
what was cached."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from papers.clca.token_reduction import ReductionRule, number_kept
from vision.train.tower import Tap

Tree = Any


@dataclasses.dataclass(frozen=True)
class TokenSequence:
    """Which blocks reduce the tokens, and after which ones the cached tokens are appended.

    Attributes:
      rule: the token reduction.
      blocks: indices, from 0, of the reducing blocks, rising.
      keep: share of the tokens after the prefix that a reducing block keeps, in (0, 1].
      cache: whether the cache is used.
      depth: number of blocks of the model.
      prefix: number of class and register tokens; the last one is the learned token CLR.
    """

    rule: ReductionRule
    blocks: tuple[int, ...]
    keep: float
    cache: bool
    depth: int
    prefix: int

    @property
    def recoveries(self) -> tuple[int, ...]:
        """The blocks after which the cached tokens are appended."""
        if not self.cache:
            return ()
        return tuple(sorted({*self.blocks, max(self.depth - 2, 0)}))

    def lengths(self, patches: int) -> list[int]:
        """Number of tokens after every block, prefix included, of an image of so many patches."""
        counts, length, cached = [], patches, 0
        for block in range(self.depth):
            if block in self.blocks and (kept := number_kept(length, self.keep)) < length:
                length = kept + self.rule.adds
            if block in self.recoveries:
                length, cached = length + 2 * cached, 0
            cached += 1
            counts.append(self.prefix + length)
        return counts

    def init(self, key: jax.Array, patches: int, width: int) -> dict[str, Tree]:
        """Parameters of the rule in every block that reduces, ``at3`` ..; may have no leaves."""
        lengths = [self.prefix + patches, *self.lengths(patches)]
        learned = {}
        for block in self.blocks:
            length = lengths[block] - self.prefix
            kept = number_kept(length, self.keep)
            if kept < length:
                k_block = jax.random.fold_in(key, block)
                learned[f"at{block}"] = self.rule.init(k_block, width, kept)
        return learned

    def tap(self, learned: Tree) -> Tap | None:
        """Reduces tokens inside blocks and fills and appends the cache between them.

        The tap has state, so every call of the model needs a new one.
        """
        sites = []
        if self.keep < 1:
            parts = ["attention", "middle"] if self.rule.reads_attention else ["middle"]
            sites += [f"block{block:02d}/{part}" for block in self.blocks for part in parts]
        if self.cache:
            sites += [f"block{block:02d}" for block in range(self.recoveries[-1] + 1)]
        if not sites:
            return None
        attention: dict[int, jax.Array] = {}
        cached: list[jax.Array] = []
        pooled: list[int | None] = [None]

        def edit(name: str, x: jax.Array) -> jax.Array:
            site, _, part = name.partition("/")
            block = int(site.removeprefix("block"))
            if part == "attention":
                attention[block] = x
                return x
            if part == "middle":
                length = x.shape[1] - self.prefix
                kept = number_kept(length, self.keep)
                if kept == length:
                    return x
                params = learned.get(f"at{block}", ())
                return self.rule(params, x, attention.get(block), self.prefix, kept)
            if block in self.recoveries:
                # Appended tokens do not count in the mean until the next recovery.
                pooled[0] = x.shape[1]
                x = jnp.concatenate([x, *cached], axis=1)
                cached.clear()
            if block < self.recoveries[-1]:
                mean = x[:, self.prefix : pooled[0]].mean(1, keepdims=True)
                cached.append(jnp.concatenate([mean, x[:, self.prefix - 1 : self.prefix]], 1))
            return x

        return Tap(edit, "|".join(sites))
