"""Which record comes when: pure functions of the seed, the epoch and the position in it.

Samplers that look at labels are in ``vision.data.class_samplers``.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Annotated, Protocol

import numpy as np

from vision.config.ranges import NonEmpty, Positive, Rule, checked
from vision.data import files
from vision.data.source import DataError, Source

Keys = np.ndarray | np.uint64
_SORTED = 16  # so many and fewer are permuted by sorting random keys


class Sampler(Protocol):
    """A frozen dataclass. It keeps nothing, so that any position can be asked for at any time.

    A sampler whose rows belong together (the K instances of a class) has a property ``group``:
    how many positions, counted from the start of every epoch, form one group. Batches must hold
    whole groups.
    """

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


class SourceSampler(Protocol):
    """A description of an order that depends on what is in the source, labels for example."""

    def bind(self, source: Source) -> Sampler:
        """The sampler for this source. Reads what it needs, once.

        Raises:
          DataError: the source does not have what the sampler needs.
        """
        ...


def bound(sampler: Sampler | SourceSampler | None, source: Source) -> Sampler:
    """``sampler`` ready for ``source``; ``Shuffle()`` for None."""
    if sampler is None:
        return Shuffle()
    bind = getattr(sampler, "bind", None)
    return sampler if bind is None else bind(source)  # pyright: ignore[reportReturnType]


def group_of(sampler: Sampler | SourceSampler | None) -> int:
    """How many consecutive rows a batch must not tear apart."""
    return getattr(sampler, "group", 1)


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
    Such a network cannot reach all permutations alike (where a and b are odd, it makes even ones
    only), which shows where n is small: up to 16 records are sorted by random keys instead, so
    that every order is equally likely. Beyond, every record, and every pair, is equally likely in
    any place.

    Source: Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002.
    """

    def epoch_length(self, num_examples: int) -> int:
        return num_examples

    def __call__(
        self, seed: int, epoch: int, positions: np.ndarray, num_examples: int
    ) -> np.ndarray:
        round_keys = np.random.SeedSequence([seed, epoch]).generate_state(8, np.uint64)
        return permute(positions, num_examples, round_keys)


@dataclasses.dataclass(frozen=True)
@checked
class Repeated:
    """Every record of another order ``times`` times in a row: repeated augmentation.

    The copies stand in neighbouring rows of one batch and are augmented independently. An epoch
    is ``times`` as long, so that every record is still in it.

    Source: Hoffer et al., Augment your batch, 2020; Berman et al., MultiGrain, 2019.

    Attributes:
      times: how often in a row.
      sampler: order of the records; None for a new shuffle every epoch.
    """

    times: Positive[int] = 3
    sampler: Sampler | SourceSampler | None = None

    @property
    def group(self) -> int:
        return self.times * group_of(self.sampler)

    def bind(self, source: Source) -> Sampler:
        return _Repeated(self.times, bound(self.sampler, source))


@dataclasses.dataclass(frozen=True)
class _Repeated:
    times: int
    sampler: Sampler

    def epoch_length(self, num_examples: int) -> int:
        return self.times * self.sampler.epoch_length(num_examples)

    def __call__(
        self, seed: int, epoch: int, positions: np.ndarray, num_examples: int
    ) -> np.ndarray:
        return self.sampler(seed, epoch, positions // self.times, num_examples)


@dataclasses.dataclass(frozen=True, eq=False)
@checked
class WeightedSampler:
    """Records as often as their weights say: hard examples, curation scores, importance.

    Systematic sampling: of ``n`` positions an epoch, a record of weight w gets ``n w / sum``,
    rounded down or up (at random, with that mean), in an order that is shuffled anew in every
    epoch. Weight 0 is never drawn.

    Attributes:
      weights: one finite, non-negative number per record: a path of a ``.npy`` file, a tuple or
        an array (N,).
      length: positions of an epoch; None for the length of the source.
    """

    weights: str | tuple[float, ...] | np.ndarray
    length: Positive[int] | None = None

    def bind(self, source: Source) -> Sampler:
        where = "weights"
        if isinstance(self.weights, str):
            where = f"weights in {self.weights}"
            try:
                with files.opened(self.weights) as file:
                    weights = np.load(file, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise DataError(f"{self.weights}: no readable .npy array: {error}") from error
        else:
            weights = np.asarray(self.weights)
        if weights.shape != (len(source),) or weights.dtype.kind not in "iufb":
            raise DataError(
                f"{where}: {weights.dtype}{list(weights.shape)}, but {source.info.name} has "
                f"{len(source)} records; give one number for each"
            )
        weights = weights.astype(np.float64)
        invalid = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
        if invalid.size:
            raise DataError(
                f"{where}: {weights[invalid[0]]} for record {source.key(int(invalid[0]))}; weights "
                "must be finite and not negative"
            )
        if not weights.any():
            raise DataError(f"{where}: all are 0, so that there is nothing to draw")
        return _Weighted(np.cumsum(weights), self.length)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Weighted:
    ends: np.ndarray  # float64 (N,), running sums
    length: int | None

    def epoch_length(self, num_examples: int) -> int:
        return self.length or num_examples

    def __call__(
        self, seed: int, epoch: int, positions: np.ndarray, num_examples: int
    ) -> np.ndarray:
        length = self.epoch_length(num_examples)
        state = np.random.SeedSequence([seed, epoch, 1]).generate_state(9, np.uint64)
        start = float(state[8] >> np.uint64(11)) / 2**53
        ticks = (permute(positions, length, state[:8]) + start) * (self.ends[-1] / length)
        # Rounding may reach the very end, where no record is: the last one with a weight is meant.
        last = np.searchsorted(self.ends, self.ends[-1])
        return np.minimum(np.searchsorted(self.ends, ticks, side="right"), last)


_SUM = Rule("a sum below 2^31", lambda weights: sum(weights) < 2**31)


@dataclasses.dataclass(frozen=True)
@checked
class Interleave:
    """Deals positions to parts in exact proportions, evenly spread, without a table.

    Halving the parts again and again, each half gets ``round(n a / b)`` of the first n positions
    that reach it. Of any n positions from the start a part has its exact share up to
    ``ceil(log2(parts)) / 2``, and after ``sum(weights)`` positions precisely its weight. Any
    position costs ``log2(parts)`` integer operations.

    Attributes:
      weights: positive integers, together less than 2^31; see ``integer_weights``.
    """

    weights: Annotated[NonEmpty[tuple[Positive[int], ...]], _SUM]

    def __call__(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions int64 (n,), at least 0, to parts (n,) and positions within them (n,)."""
        within = np.asarray(positions, np.int64)
        if len(self.weights) == 1:
            return np.zeros_like(within), within
        ends = np.cumsum([0, *self.weights])
        low = np.zeros_like(within)
        high = np.full_like(within, len(self.weights))
        for _ in range((len(self.weights) - 1).bit_length()):
            middle = (low + high) // 2
            a, b = ends[middle] - ends[low], ends[high] - ends[low]
            before = _share(within, a, b)
            first = _share(within + 1, a, b) > before
            within = np.where(first, before, within - before)
            low, high = np.where(first, low, middle), np.where(first, middle, high)
        return low, within

    def counts(self, positions: int) -> tuple[int, ...]:
        """How many of the first ``positions`` positions each part gets."""

        def split(weights: tuple[int, ...], n: int) -> tuple[int, ...]:
            if len(weights) == 1:
                return (n,)
            middle = len(weights) // 2
            a, b = sum(weights[:middle]), sum(weights)
            left = (n * a + b // 2) // b
            return split(weights[:middle], left) + split(weights[middle:], n - left)

        return split(self.weights, positions)


def _share(n: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``(n a + b // 2) // b``, which is n a / b to the nearest integer, without overflow."""
    quotient, remainder = np.divmod(n, b)
    return quotient * a + (remainder * a + b // 2) // b


def integer_weights(weights: tuple[float, ...]) -> tuple[int, ...]:
    """Integers in the proportions of positive ``weights``, as they are written in decimal.

    (0.5, 0.3, 0.2) gives (5, 3, 2). Proportions that would need a sum of 2^31 or more are
    rounded to one part in 2^30.
    """
    exact = [Fraction(repr(float(w))) for w in weights]
    scale = math.lcm(*(w.denominator for w in exact))
    integers = [int(w * scale) for w in exact]
    divisor = math.gcd(*integers)
    if sum(integers) // divisor < 2**31:
        return tuple(w // divisor for w in integers)
    return tuple(max(1, round(w / sum(exact) * 2**30)) for w in exact)


def permute(positions: np.ndarray, n: int, round_keys: np.ndarray) -> np.ndarray:
    """``positions`` under the permutation of 0..n-1 that ``round_keys`` (uint64) choose."""
    if n <= _SORTED:
        return np.argsort(_hash(np.arange(n, dtype=np.uint64), round_keys[0]))[positions]
    side = math.isqrt(n - 1) + 1
    rows, columns = np.uint64(side), np.uint64(-(-n // side))
    values = _rounds(np.asarray(positions, np.uint64), rows, columns, round_keys)
    outside = np.flatnonzero(values >= n)
    while outside.size:
        values[outside] = _rounds(values[outside], rows, columns, round_keys)
        outside = outside[values[outside] >= n]
    return values.astype(np.int64)


def permute_each(positions: np.ndarray, sizes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Position i under the permutation of 0..sizes[i]-1 that keys[i] chooses.

    Args:
      positions: int64 (n,), 0 <= positions < sizes.
      sizes: int64 (n,), below 2^52.
      keys: uint64 (n,).
    """
    few = np.asarray(sizes) <= _SORTED
    if few.all():
        return _sorted_each(positions, sizes, keys)
    if few.any():
        result = np.empty(len(positions), np.int64)
        for part, permuted in ((few, _sorted_each), (~few, permute_each)):
            result[part] = permuted(positions[part], sizes[part], keys[part])
        return result
    sizes = np.asarray(sizes, np.uint64)
    rows = np.ceil(np.sqrt(sizes)).astype(np.uint64)
    columns = (sizes + rows - np.uint64(1)) // rows
    round_keys = np.stack([_hash(keys, np.uint64(i + 1)) for i in range(8)])
    values = _rounds(np.asarray(positions, np.uint64), rows, columns, round_keys)
    outside = np.flatnonzero(values >= sizes)
    while outside.size:
        values[outside] = _rounds(
            values[outside], rows[outside], columns[outside], round_keys[:, outside]
        )
        outside = outside[values[outside] >= sizes[outside]]
    return values.astype(np.int64)


def _sorted_each(positions: np.ndarray, sizes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """As ``permute_each``, by sorting random keys: for small sizes."""
    if not len(positions):
        return np.zeros(0, np.int64)
    numbers = np.arange(int(np.max(sizes)), dtype=np.uint64)
    order = _hash(numbers[None], _hash(keys, np.uint64(1))[:, None])
    order[numbers[None] >= np.asarray(sizes, np.uint64)[:, None]] = np.iinfo(np.uint64).max
    return np.argsort(order, axis=1)[np.arange(len(positions)), positions]


def stream_key(seed: int, *purpose: int) -> np.uint64:
    """A key for ``mixed`` that only this seed and purpose (non-negative integers) have."""
    return np.random.SeedSequence([seed, *purpose]).generate_state(1, np.uint64)[0]


def mixed(values: np.ndarray, keys: Keys) -> np.ndarray:
    """Non-negative integers (n,) under keys (n,) or () to keys uint64 (n,)."""
    return _hash(np.asarray(values, np.uint64), keys)


def _rounds(values: np.ndarray, rows: Keys, columns: Keys, round_keys: np.ndarray) -> np.ndarray:
    left, right = np.divmod(values, columns)
    for i, key in enumerate(round_keys):
        if i % 2:
            right = (right + _hash(left, key) % columns) % columns
        else:
            left = (left + _hash(right, key) % rows) % rows
    return left * columns + right


def _hash(values: np.ndarray, key: Keys) -> np.ndarray:
    """splitmix64's finaliser of ``values`` xor ``key``."""
    x = values ^ key
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
