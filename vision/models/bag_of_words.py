"""Bag-of-words and bag-of-n-grams text towers, which ignore word order.

They have the interface of the towers in ``vision.models.text``.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import NonEmpty, Positive, Rate, checked
from vision.models.layers import (
    as_output,
    dense,
    dropout,
)
from vision.models.text import Out, check_ids, check_pad_id, embed, end, real_tokens, sum_over
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap


@checked
class BagOfWords(nn.Module):
    """An MLP of two layers on the counts of every id.

    The first layer's product of the counts (B, vocab_size) with its kernel is the sum of the
    kernel's rows at the ids, which is how it is computed. ``stem`` is (B, T, hidden): those rows.

    Attributes:
      vocab_size: ids are 0..vocab_size - 1; an id outside gives NaN.
      width: of the embedding.
      hidden: units between the two layers; None for ``width``.
      pad_id: id of padding, which is not counted; None if there is none.
      dropout: of the hidden units.
      activation: between the layers.
      precision: number formats of parameters, computation and outputs.
    """

    vocab_size: Positive[int]
    width: Positive[int] = 512
    hidden: Positive[int] | None = None
    pad_id: int | None = 0
    dropout: Rate = 0.0
    activation: Literal["relu", "tanh"] = "relu"
    precision: Precision = Precision()

    def __post_init__(self) -> None:
        check_pad_id(self.pad_id, self.vocab_size)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, ids: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, Out]:
        check_ids(ids)
        mask = real_tokens(ids, self.pad_id)
        return _counted(self, ids, self.vocab_size, mask, mask, train, tap)


@checked
class HashedNgrams(nn.Module):
    """An MLP of two layers on the counts of n-grams, hashed into buckets.

    An n-gram is the ids at some distances from a token: ``(0, 1)`` is a bigram, ``(0, 1, 2)`` a
    trigram, ``(0, 2)`` a bigram that skips a token. Every pattern has hash values of its own;
    different n-grams share a bucket by chance. ``stem`` is (B, T x patterns, hidden).

    Attributes:
      buckets: number of hash values.
      patterns: distances, the first of each 0.
      width, hidden, pad_id, dropout, activation, precision: as in ``BagOfWords``. An n-gram that
        reaches into the padding is not counted.
    """

    buckets: Positive[int] = 2**16
    patterns: NonEmpty[tuple[tuple[int, ...], ...]] = ((0, 1), (0, 1, 2))
    width: Positive[int] = 512
    hidden: Positive[int] | None = None
    pad_id: int | None = 0
    dropout: Rate = 0.0
    activation: Literal["relu", "tanh"] = "relu"
    precision: Precision = Precision()

    def __post_init__(self) -> None:
        for pattern in self.patterns:
            if not pattern or pattern[0] != 0 or list(pattern) != sorted(set(pattern)):
                raise ValueError(
                    f"patterns: {pattern} is not a pattern: increasing distances from 0"
                )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, ids: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, Out]:
        check_ids(ids)
        mask = real_tokens(ids, self.pad_id)
        grams = [ngrams(ids, mask, pattern, i) for i, pattern in enumerate(self.patterns)]
        codes = jnp.concatenate([code for code, _ in grams], 1)
        exists = jnp.concatenate([valid for _, valid in grams], 1)
        buckets = (codes % jnp.uint32(self.buckets)).astype(jnp.int32)
        return _counted(self, buckets, self.buckets, exists, mask, train, tap)


def ngrams(
    ids: jax.Array, mask: jax.Array, pattern: tuple[int, ...], salt: int
) -> tuple[jax.Array, jax.Array]:
    """Hash values uint32 (B, T) of the n-gram at every token, and (B, T) bool: which exist."""
    tokens = ids.shape[1]
    code = jnp.full(ids.shape, 0x9E3779B9 * (salt + 1) % 2**32, jnp.uint32)
    exists = jnp.ones(ids.shape, bool)
    for distance in pattern:
        pad = ((0, 0), (0, distance))
        code = _mixed(code ^ jnp.pad(ids, pad)[:, distance:][:, :tokens].astype(jnp.uint32))
        exists &= jnp.pad(mask, pad)[:, distance:][:, :tokens]
    return code, exists


def _mixed(x: jax.Array) -> jax.Array:
    """A bijection of uint32 whose every bit depends on all: the finaliser of MurmurHash3."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _counted(
    tower: BagOfWords | HashedNgrams,
    codes: jax.Array,
    size: int,
    exists: jax.Array,
    mask: jax.Array,
    train: bool,
    tap: Tap | None,
) -> tuple[jax.Array, Out]:
    """The tower's MLP on the counts of the codes 0..size - 1 where ``exists``."""
    precision = tower.precision
    rows = apply_tap(tap, "stem", embed(codes, size, tower.hidden or tower.width, precision))
    x = sum_over(rows, exists)
    bias = tower.param("bias", nn.initializers.zeros, x.shape[-1:], precision.params)
    x = (x + bias).astype(precision.compute)
    key = tower.make_rng("dropout") if train and tower.dropout else None
    x = dropout(nn.relu(x) if tower.activation == "relu" else jnp.tanh(x), key, tower.dropout)
    init = nn.initializers.lecun_normal()
    pooled = dense(x, tower.width, as_output(precision), "fc2", init)
    return end(pooled, {"stem": rows, "mask": mask}, tap, precision)
