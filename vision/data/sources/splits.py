"""Parts of a source, and the rules that deal its records out to them."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import functools
import hashlib
from collections.abc import Sequence, Sized
from typing import Any, ClassVar, Protocol

import numpy as np

from vision.config.ranges import NonEmpty, Unique, checked
from vision.data.all_records import feature_of, names_of
from vision.data.fingerprint import content
from vision.data.source import DataError, Source, SourceInfo
from vision.data.table import fields_only


class SplitRule(Protocol):
    """A frozen dataclass; what it decides depends on the records alone, not on their order."""

    def __call__(self, source: Source, shares: np.ndarray) -> np.ndarray:
        """The part, 0..P-1, of every record: int (N,), given the parts' shares (P,)."""
        ...


@dataclasses.dataclass(frozen=True)
class StratifiedSplit:
    """The same shares of every class; within a class by the hash of the records' keys.

    A class of P records or more has at least one in each of the P parts. A record that is added
    moves few others.

    Attributes:
      by: the feature that tells the classes; empty deals out all records alike.
      seed: another seed, another split.
    """

    by: str = "label"
    seed: int = 0

    def __call__(self, source: Source, shares: np.ndarray) -> np.ndarray:
        classes = collections.defaultdict(list)
        labels = feature_of(source, self.by) if self.by else [0] * len(source)
        for index, label in enumerate(labels):
            classes[_plain(label)].append(index)
        parts = np.empty(len(source), np.int64)
        for members in classes.values():
            members.sort(key=lambda i: _hash(self.seed, source.key(i)))
            parts[members] = np.repeat(np.arange(len(shares)), _counts(len(members), shares))
        return parts


@dataclasses.dataclass(frozen=True)
class GroupHash:
    """All records of a group (patient, video) in one part, chosen by the hash of its name.

    A group's part depends on nothing else, so it stays when others come or go; the shares hold
    on average over many groups.

    Attributes:
      by: the feature that tells the groups.
      seed: another seed, another split.
    """

    by: str = "group"
    seed: int = 0

    def __call__(self, source: Source, shares: np.ndarray) -> np.ndarray:
        words = names_of(source, self.by)
        values = [_plain(value) for value in feature_of(source, self.by)]
        # A group's number changes when groups are added; its name does not.
        places = {v: _hash(self.seed, str(words[v] if words else v)) for v in set(values)}
        shares_of_2_64 = np.asarray([places[v] for v in values], np.uint64) / 2.0**64
        parts = np.searchsorted(np.cumsum(shares), shares_of_2_64, side="right")
        return np.minimum(parts, len(shares) - 1)


@dataclasses.dataclass(frozen=True)
class Chronological:
    """The earliest records in the first part, the latest in the last.

    Records of the same time are never parted: they go where the first of them goes.

    Attributes:
      by: the feature with the times: numbers, dates, or ISO 8601 texts (with or without a zone,
        but all alike).
    """

    by: str = "time"

    def __call__(self, source: Source, shares: np.ndarray) -> np.ndarray:
        times = [_time(v, source.key(i)) for i, v in enumerate(feature_of(source, self.by))]
        try:
            order = sorted(range(len(times)), key=lambda i: times[i])
        except TypeError as error:
            raise DataError(
                f"{source.info.name}: times in {self.by!r} do not compare: {error}"
            ) from None
        ends = np.cumsum(_counts(len(order), shares))
        parts = np.empty(len(order), np.int64)
        for rank, index in enumerate(order):
            same = rank and times[order[rank - 1]] == times[index]
            parts[index] = (
                parts[order[rank - 1]] if same else np.searchsorted(ends, rank, side="right")
            )
        return parts


class Selected:
    """A source of some of the records of ``source``, for dataclasses that know which.

    Attributes:
      source: where they are.
      chosen: their positions in it, int64 (N,).
    """

    source: Source
    chosen: ClassVar[functools.cached_property[np.ndarray]]

    def __getstate__(self) -> dict[str, Any]:
        return fields_only(self)

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[int(self.chosen[valid_index(index, self)])]

    def column(self, feature: str) -> list[Any]:
        """A feature of all records."""
        return at_indices(feature_of(self.source, feature), self.chosen)

    def names(self, feature: str) -> tuple[str, ...]:
        """The names of a class, group or label feature, in the order of their numbers."""
        return names_of(self.source, feature)

    def fingerprint(self) -> str:
        """Changes with the arguments and with the source's content."""
        return content(self)

    def key(self, index: int) -> str:
        return self.source.key(int(self.chosen[index]))


@dataclasses.dataclass(frozen=True)
class Split(Selected):
    """One part of a source; the parts of one rule and shares never overlap and leave none out.

    Attributes:
      source: where the records are.
      part: which part to take.
      parts: (name, share) of all parts, in order; the shares sum to 1.
      rule: how records are dealt out; None for ``Stratified()``.

    Raises:
      DataError: on first use, when the rule lacks a feature, or no record falls into the part.
    """

    source: Source
    part: str = "train"
    parts: tuple[tuple[str, float], ...] = (("train", 0.9), ("val", 0.1))
    rule: SplitRule | None = None

    def __post_init__(self) -> None:
        names = [name for name, _ in self.parts]
        if self.part not in names or len(set(names)) < len(names):
            raise ValueError(f"part={self.part!r}: must be one of parts, {names}, each once")
        shares = [share for _, share in self.parts]
        if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"parts={self.parts}: shares must be more than 0 and sum to 1")

    @functools.cached_property
    def chosen(self) -> np.ndarray:
        rule = StratifiedSplit() if self.rule is None else self.rule
        assigned = rule(self.source, np.asarray([share for _, share in self.parts]))
        number = [name for name, _ in self.parts].index(self.part)
        chosen = np.flatnonzero(assigned == number)
        if not len(chosen):
            raise DataError(
                f"{self.source.info.name}: no record falls into part {self.part!r} by {rule}; "
                "give it a larger share"
            )
        return chosen

    @property
    def info(self) -> SourceInfo:
        info = self.source.info
        return dataclasses.replace(info, name=f"{info.name}/{self.part}", num_examples=len(self))


@dataclasses.dataclass(frozen=True)
@checked
class OfClasses(Selected):
    """The records of some classes, in the order of the source; numbers and names of classes stay.

    Attributes:
      source: where the records are.
      classes: numbers of the classes.
      feature: the label, an integer per record.

    Raises:
      DataError: on first use, when a class has no record.
    """

    source: Source
    classes: Unique[NonEmpty[tuple[int, ...]]]
    feature: str = "label"

    @functools.cached_property
    def chosen(self) -> np.ndarray:
        labels = np.asarray(feature_of(self.source, self.feature))
        if missing := [c for c in self.classes if not np.any(labels == c)]:
            raise DataError(f"{self.source.info.name}: no record of class {missing[0]}")
        return np.flatnonzero(np.isin(labels, self.classes))

    @property
    def info(self) -> SourceInfo:
        info = self.source.info
        name = f"{info.name}/{len(self.classes)} classes"
        return dataclasses.replace(info, name=name, num_examples=len(self))


def at_indices(values: Sequence[Any], chosen: np.ndarray) -> list[Any]:
    return [values[i] for i in chosen.tolist()]


def valid_index(index: int, source: Sized) -> int:
    """``index``; IndexError when the source has no such record."""
    if not 0 <= index < len(source):
        raise IndexError(f"record {index} of {len(source)}")
    return index


def _counts(total: int, shares: np.ndarray) -> np.ndarray:
    """Whole numbers nearest to ``shares * total`` that sum to it; no part empty if possible."""
    exact = shares * total
    counts = np.floor(exact).astype(np.int64)
    for i in np.argsort(counts - exact, kind="stable")[: total - counts.sum()]:
        counts[i] += 1
    if total >= len(shares):
        while (counts == 0).any():
            counts[np.argmax(counts)] -= 1
            counts[np.argmin(counts)] += 1
    return counts


def _hash(seed: int, text: str) -> int:
    digest = hashlib.sha256(f"{seed}\0{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | list):
        value = np.asarray(value)
        return tuple(value.ravel().tolist()) if value.ndim else value.item()
    return value.item() if isinstance(value, np.generic) else value


def _time(value: Any, key: str) -> Any:
    value = _plain(value)
    if isinstance(value, str):
        try:
            return datetime.datetime.fromisoformat(value)
        except ValueError:
            raise DataError(f"{key}: {value!r} is not a time in ISO 8601") from None
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return datetime.datetime(value.year, value.month, value.day)
    if value is None or value != value:
        raise DataError(f"{key}: has no time")
    return value
