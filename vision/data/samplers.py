"""Which record comes when: pure functions of the seed, the epoch and the position in it."""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import numpy as np


class Sampler(Protocol):
    """A frozen dataclass. It keeps nothing, so that any position can be asked for at any time."""

    def epoch_length(self, num_examples: int) -> int:
        """How many positions an epoch over ``num_examples`` records has."""
        ...

    def __call__(
        self, seed: int, epoch: int, positions: np.ndarray, num_examples: int
    ) -> np.ndarray:
        """The records at ``positions`` of ``epoch``.

        Args:
          seed: of the run.
          epoch: 0, 1, ...
          positions: int64 (n,), each in 0..epoch_length - 1.
          num_examples: length of the source.

        Returns:
          int64 (n,), each in 0..num_examples - 1.
        """
        ...


@dataclasses.dataclass(frozen=True)
class InOrder:
    """The source's own order, again in every epoch."""

    def epoch_length(self, num_examples: int) -> int:
        return num_examples

    def __call__(
        self, seed: int, epoch: int, positions: np.ndarray, num_examples: int
    ) -> np.ndarray:
        return positions


@dataclasses.dataclass(frozen=True)
class Shuffle:
    """Every record once per epoch, in an order that differs between epochs and seeds.

    The permutation is computed, not stored: an alternating unbalanced Feistel network over
    a x b >= n with a, b near the square root of n, walked again for the few values that fall
    outside. Any position of a set of billions costs the same few microseconds, without memory.

    Source: Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002.
    """

    def epoch_length(self, num_examples: int) -> int:
        return num_examples

    def __call__(
        self, seed: int, epoch: int, positions: np.ndarray, num_examples: int
    ) -> np.ndarray:
        round_keys = np.random.SeedSequence([seed, epoch]).generate_state(8, np.uint64)
        return permute(positions, num_examples, round_keys)


def permute(positions: np.ndarray, n: int, round_keys: np.ndarray) -> np.ndarray:
    """``positions`` under the permutation of 0..n-1 that ``round_keys`` (uint64) choose."""
    rows = math.isqrt(n - 1) + 1
    columns = -(-n // rows)
    values = _rounds(np.asarray(positions, np.uint64), rows, columns, round_keys)
    outside = np.flatnonzero(values >= n)
    while outside.size:
        values[outside] = _rounds(values[outside], rows, columns, round_keys)
        outside = outside[values[outside] >= n]
    return values.astype(np.int64)


def _rounds(values: np.ndarray, rows: int, columns: int, round_keys: np.ndarray) -> np.ndarray:
    left, right = np.divmod(values, np.uint64(columns))
    for i, key in enumerate(round_keys):
        if i % 2:
            right = (right + _hash(left, key) % np.uint64(columns)) % np.uint64(columns)
        else:
            left = (left + _hash(right, key) % np.uint64(rows)) % np.uint64(rows)
    return left * np.uint64(columns) + right


def _hash(values: np.ndarray, key: np.uint64) -> np.ndarray:
    """splitmix64's finaliser of ``values`` xor ``key``."""
    x = values ^ key
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
