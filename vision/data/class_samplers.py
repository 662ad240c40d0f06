"""Orders that know the classes: balanced, stratified, P x K and episodic.

All need one scalar label per record, which they read once when they are bound to a source; see
``vision.data.all_records``. Bound, they hold the label groups in a read-only array and are pure
functions of (seed, epoch, positions) like any other sampler.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Any, Literal

import numpy as np

from vision.config.ranges import Fraction, NonNegative, Positive, checked
from vision.data.all_records import labels_of
from vision.data.samplers import (
    Interleave,
    Keys,
    Sampler,
    integer_weights,
    mixed,
    permute_each,
    stream_key,
)
from vision.data.source import DataError, Source

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Groups:
    """The records of every label.

    Attributes:
      names: labels in ascending order, (C,).
      sizes: records of each, int64 (C,).
      starts: where each label's records begin in ``records``, int64 (C,).
      records: record numbers sorted by label, int32 (N,).
    """

    names: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    records: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray) -> Groups:
        names, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        records = np.argsort(inverse, kind="stable").astype(np.int32)
        return cls(names, sizes, np.cumsum(sizes) - sizes, records)

    def __len__(self) -> int:
        return len(self.names)

    def where(self, keep: np.ndarray) -> Groups:
        """Only the labels for which ``keep`` bool (C,) is True."""
        return Groups(self.names[keep], self.sizes[keep], self.starts[keep], self.records)

    def draw(self, group: np.ndarray, number: np.ndarray, keys: Keys) -> np.ndarray:
        """The ``number``-th draw without replacement from a group: int64 (n,) records.

        When a group is used up it starts again, in another order.

        Args:
          group: int64 (n,).
          number: int64 (n,), 0, 1, ...
          keys: uint64 (n,) or (), of the order; equal for draws that exclude each other.
        """
        sizes = self.sizes[group]
        cycle, visit = np.divmod(number, sizes)
        chosen = permute_each(visit, sizes, mixed(cycle, mixed(group, keys)))
        return self.records[self.starts[group] + chosen].astype(np.int64)


def _classes_of(source: Source, feature: str) -> Groups:
    labels = labels_of(source, feature)
    if labels.dtype.kind in "i" and labels.size and labels.min() < 0:
        index = int(labels.argmin())
        raise DataError(
            f"{source.info.name}: record {source.key(index)} has {feature} {labels[index]}, which "
            "is no class; leave unlabelled records out of the source"
        )
    return Groups.of(labels)


@dataclasses.dataclass(frozen=True)
@checked
class ClassBalanced:
    """Classes equally often, whatever their size.

    Of every C positions (C classes) each class gets exactly one, in an order that changes. Within
    a class records come without replacement until it is used up. With ``power`` q the share of a
    class of n records is proportional to n^q instead: 0 balanced, 0.5 square root, 1 as it is.

    Source: Kang et al., Decoupling representation and classifier, 2020.

    Attributes:
      feature: the label.
      power: q, 0..1.
      length: positions of an epoch; None for the length of the source.
    """

    feature: str = "label"
    power: Fraction = 0.0
    length: Positive[int] | None = None

    def bind(self, source: Source) -> Sampler:
        groups = _classes_of(source, self.feature)
        weights = groups.sizes.astype(np.float64) ** self.power
        return _Proportional(groups, Interleave(integer_weights(tuple(weights))), self.length)


@dataclasses.dataclass(frozen=True)
class StratifiedSampler:
    """Every record once per epoch, and every stretch of it with the strata in their proportions.

    Of the first n positions of an epoch a stratum has its exact share, up to
    ``log2(strata) / 2 + 1`` records plus the shuffling within runs of as many positions as there
    are strata.

    Attributes:
      feature: what to stratify by: a class, a group, a domain; integers or strings.
    """

    feature: str = "label"

    def bind(self, source: Source) -> Sampler:
        groups = Groups.of(labels_of(source, self.feature))
        return _Proportional(groups, Interleave(tuple(groups.sizes.tolist())), None)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Proportional:
    groups: Groups
    interleave: Interleave
    length: int | None

    def epoch_length(self, num_examples: int) -> int:
        return self.length or num_examples

    def __call__(
        self, seed: int, epoch: int, positions: np.ndarray, num_examples: int
    ) -> np.ndarray:
        length = self.epoch_length(num_examples)
        key = stream_key(seed, epoch, 2)
        block, slot = np.divmod(positions, len(self.groups))
        first = block * len(self.groups)
        sizes = np.minimum(len(self.groups), length - first)
        slot = permute_each(slot, sizes, mixed(block, key))
        group, number = self.interleave(first + slot)
        return self.groups.draw(group, number, stream_key(seed, epoch, 3))


@dataclasses.dataclass(frozen=True)
@checked
class PxK:
    """Groups of ``classes`` different classes with ``instances`` different records of each.

    For losses on pairs and triplets within a batch. ``classes * instances`` neighbouring rows
    form a group, class by class. Within an epoch all classes are used once before one comes again,
    and so are the records of a class, also where they do not fill whole groups: a group that two
    rounds share has no class, and no record, twice.

    Source: Hermans et al., In defense of the triplet loss, 2017.

    Attributes:
      classes: P, at least 1.
      instances: K, at least 1.
      feature: the label.
      scarce: classes with fewer than K records: ``raise``, ``repeat`` their records, or
        ``leave_out`` these classes.
    """

    classes: Positive[int] = 8
    instances: Positive[int] = 4
    feature: str = "label"
    scarce: Literal["raise", "repeat", "leave_out"] = "raise"

    @property
    def group(self) -> int:
        return self.classes * self.instances

    def bind(self, source: Source) -> Sampler:
        groups = _classes_of(source, self.feature)
        if self.scarce == "leave_out":
            groups = _large(groups, self.instances, source)
        elif self.scarce == "raise":
            _require_size(groups, self.instances, f"instances={self.instances}", source)
        _require_classes(groups, self.classes, f"classes={self.classes}", source)
        return _PxK(groups, self.classes, self.instances)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _PxK:
    groups: Groups
    classes: int
    instances: int

    def epoch_length(self, num_examples: int) -> int:
        group = self.classes * self.instances
        return max(1, num_examples // group) * group

    def __call__(
        self, seed: int, epoch: int, positions: np.ndarray, num_examples: int
    ) -> np.ndarray:
        visit, instance = np.divmod(positions, self.instances)
        rounds, chosen = _rounds_of_classes(
            visit, len(self.groups), self.classes, stream_key(seed, epoch, 4)
        )
        # A class is visited once in every round.
        sizes = self.groups.sizes[chosen]
        keys = mixed(chosen, stream_key(seed, epoch, 5))
        number = rounds * self.instances + instance
        again, at = np.divmod(number, np.lcm(sizes, self.instances))
        record = permute_each(at % sizes, sizes, mixed(again, keys))
        return self.groups.records[self.groups.starts[chosen] + record].astype(np.int64)


def _rounds_of_classes(
    visits: np.ndarray, count: int, group: int, key: np.uint64
) -> tuple[np.ndarray, np.ndarray]:
    """Round and class, int64 (n,) each, of ``visits`` (n,) to ``count`` classes in rounds.

    Every round is a permutation of the classes; visits are dealt into groups of ``group``, at most
    ``count``. Where a group takes the last classes of a round and the first of the next, these are
    different ones. Any visit is computed by itself.
    """
    rounds, at = np.divmod(visits, count)
    shared = math.gcd(count, group)
    if count < 2 * group - shared:
        # A round that repeats has a group's worth of different classes from any place on; after
        # group / shared rounds the groups begin with a round again, and the order is a new one.
        keys = mixed(rounds // (group // shared), key)
        return rounds, permute_each(at, np.full_like(at, count), keys)
    chosen = np.empty_like(at)
    for number in np.unique(rounds).tolist():
        inside = rounds == number
        chosen[inside] = _round(number, count, group, key)[at[inside]]
    return rounds, chosen


def _round(number: int, count: int, group: int, key: np.uint64) -> np.ndarray:
    """The order of the classes in a round, int64 (count,).

    Which classes are last, in a group that goes on in the next round, is drawn for itself: so the
    round before need not be known to leave its last ones out of the beginning of this one.
    """

    def order(purpose: int, number: int) -> np.ndarray:
        of_round = mixed(np.asarray([2 * number + purpose]), key)
        return np.argsort(mixed(np.arange(count), of_round))

    left_before = number * count % group
    last = order(1, number)[: (number + 1) * count % group]
    kept_out = order(1, number - 1)[:left_before] if left_before else last[:0]
    shuffled = order(0, number)
    first = shuffled[~np.isin(shuffled, last) & ~np.isin(shuffled, kept_out)]
    first = first[: (group - left_before) % group]
    middle = shuffled[~np.isin(shuffled, last) & ~np.isin(shuffled, first)]
    # Within the group that is begun, no class stands out by its place.
    return np.concatenate([first, middle, shuffled[np.isin(shuffled, last)]])


@dataclasses.dataclass(frozen=True)
@checked
class EpisodeSampler:
    """Independent N-way K-shot episodes with queries.

    An episode is ``ways * (shots + queries)`` neighbouring rows: first the support set, way by
    way, then the queries, way by way; ``rows()`` says which is which. Classes and records are
    drawn anew for every episode, without replacement within it.

    Source: Vinyals et al., Matching networks, 2016.

    Attributes:
      ways: N, classes of an episode.
      shots: K, support records per class.
      queries: query records per class.
      feature: the label.
      scarce: classes with fewer than K + Q records: ``raise`` or ``leave_out``.
    """

    ways: Positive[int] = 5
    shots: Positive[int] = 1
    queries: NonNegative[int] = 15
    feature: str = "label"
    scarce: Literal["raise", "leave_out"] = "raise"

    @property
    def group(self) -> int:
        return self.ways * (self.shots + self.queries)

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Of an episode's rows: is it a query, bool (G,); and its way 0..N-1, int32 (G,)."""
        _, way, query = _episode_rows(np.arange(self.group), self.ways, self.shots, self.queries)
        return query, way.astype(np.int32)

    def bind(self, source: Source) -> Sampler:
        groups = _classes_of(source, self.feature)
        needed = self.shots + self.queries
        if self.scarce == "leave_out":
            groups = _large(groups, needed, source)
        _require_size(groups, needed, f"shots + queries = {needed}", source)
        _require_classes(groups, self.ways, f"ways={self.ways}", source)
        return _Episodes(groups, self.ways, self.shots, self.queries)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Episodes:
    groups: Groups
    ways: int
    shots: int
    queries: int

    def epoch_length(self, num_examples: int) -> int:
        group = self.ways * (self.shots + self.queries)
        return max(1, num_examples // group) * group

    def __call__(
        self, seed: int, epoch: int, positions: np.ndarray, num_examples: int
    ) -> np.ndarray:
        episode, row = np.divmod(positions, self.ways * (self.shots + self.queries))
        number, way, _ = _episode_rows(row, self.ways, self.shots, self.queries)
        count = np.full_like(way, len(self.groups))
        chosen = permute_each(way, count, mixed(episode, stream_key(seed, epoch, 6)))
        return self.groups.draw(chosen, number, mixed(episode, stream_key(seed, epoch, 7)))


def _episode_rows(
    row: np.ndarray, ways: int, shots: int, queries: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which record of its class, which way, and whether it is a query."""
    query = row >= ways * shots
    support_way, shot = np.divmod(row, shots)
    query_way, query_shot = np.divmod(row - ways * shots, max(queries, 1))
    number = np.where(query, shots + query_shot, shot)
    return number, np.where(query, query_way, support_way), query


def _large(groups: Groups, needed: int, source: Source) -> Groups:
    keep = groups.sizes >= needed
    if not keep.all():
        log.warning(
            "%s: left out %d of %d classes, which have fewer than %d records: %d records in all",
            source.info.name, (~keep).sum(), len(groups), needed, groups.sizes[~keep].sum(),
        )  # fmt: skip
    return groups.where(keep)


def _require_size(groups: Groups, needed: int, what: str, source: Source) -> None:
    small = np.flatnonzero(groups.sizes < needed)
    if small.size:
        shown = ", ".join(
            f"{_name(groups.names[i], source)} ({groups.sizes[i]})" for i in small[:5]
        )
        more = f" and {small.size - 5} more" if small.size > 5 else ""
        raise DataError(
            f"{source.info.name}: {what}, but {small.size} of {len(groups)} classes have fewer "
            f"records: {shown}{more}; lower it or set scarce"
        )


def _require_classes(groups: Groups, needed: int, what: str, source: Source) -> None:
    if len(groups) < needed:
        raise DataError(
            f"{source.info.name}: {what}, but only {len(groups)} classes can be drawn from"
        )


def _name(label: Any, source: Source) -> str:
    names = source.info.class_names
    if isinstance(label, np.integer) and 0 <= label < len(names):
        return repr(names[int(label)])
    return repr(label.item())
