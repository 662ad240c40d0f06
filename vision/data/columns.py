"""Typed columns: from the cells of a table to features of fixed shape.

A manifest, a parquet file and the members of a tar shard are all rows of named cells. A column
type says what a cell means and which features it becomes, and refuses what it cannot mean. Cells
are text (CSV), or what JSON and parquet hold: numbers, lists, mappings. Lists may be written in
text as JSON or with ``separator``, mappings as JSON or as ``a=1|b=0``.

A cell is missing when it is absent, empty, null, or not a number. A type with ``optional=True``
then gives its documented value for "unknown"; without it the record is bad.

Types for texts, hierarchies and attributes are in ``vision.data.descriptions``, for boxes and masks
in ``vision.data.regions``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from vision.config.ranges import NonEmpty, checked
from vision.data.cells import (
    Cell,
    as_list,
    as_mapping,
    as_number,
    is_missing,
    shown,
)
from vision.data.labels import Vocabulary, distinct_names, is_unlabelled
from vision.data.source import DataError

Row = Mapping[str, Cell]
ImageSize = Callable[[], tuple[int, int]]
"""Height and width in pixels of the record's upright image; DataError when it has none."""


class Column(Protocol):
    """A frozen dataclass of plain values that reads one feature, and what belongs to it."""

    def reads(self, feature: str) -> tuple[str, ...]:
        """The table's columns that this one needs."""
        ...

    @property
    def learned(self) -> bool:
        """Whether it can read rows; otherwise ``learn`` must see all cells first."""
        ...

    def learn(self, cells: Iterable[tuple[str, Cell]]) -> Column:
        """A copy whose vocabulary comes from all cells, given as (location, cell)."""
        ...

    def read(self, feature: str, row: Row, size: ImageSize) -> dict[str, Any]:
        """The features of a row. Raises DataError saying what is wrong with the cell."""
        ...

    def describe(self, feature: str) -> dict[str, str]:
        """Feature name to dtype, shape and range."""
        ...


class SingleColumn:
    """Base of the column types that read one cell and need no vocabulary."""

    column: str

    def reads(self, feature: str) -> tuple[str, ...]:
        return (self.column or feature,)

    @property
    def learned(self) -> bool:
        return True

    def learn(self, cells: Iterable[tuple[str, Cell]]) -> Any:
        return self

    def cell(self, feature: str, row: Row) -> Cell:
        return row.get(self.column or feature)


class NamedColumn(SingleColumn):
    """Base of the column types with a vocabulary, ``names``; taken from the cells if not given."""

    names: tuple[str, ...]

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.names)

    @property
    def learned(self) -> bool:
        return bool(self.names)

    def mentioned(self, cell: Cell) -> Iterable[Cell]:
        """The names in one cell."""
        return (cell,)

    def learn(self, cells: Iterable[tuple[str, Cell]]) -> Any:
        def all_names() -> Iterator[tuple[str, Cell]]:
            for place, cell in cells:
                if not is_unlabelled(cell):
                    for name in self.mentioned(cell):
                        if not is_unlabelled(name):
                            yield place, name

        return dataclasses.replace(self, names=distinct_names(all_names()))  # type: ignore[type-var]


@dataclasses.dataclass(frozen=True)
class ClassLabel(NamedColumn):
    """One class: int32, 0..C-1; -1 where there is none and ``optional``.

    A missing cell and -1 are no label. How names are compared: ``vision.data.labels``.

    Attributes:
      names: in label order; empty takes the cells' distinct values in sorted order. Whole numbers
        are then classes of that number and must be 0, 1, ... without a gap. When no name
        is itself a number, cells may also hold the class's number.
      column: in the table; empty when it is called like the feature.
      ordered: the names go from low to high (ordinal regression); they must be given.
      optional: whether a record may have no label.
    """

    names: tuple[str, ...] = ()
    column: str = ""
    ordered: bool = False
    optional: bool = False

    def __post_init__(self) -> None:
        _check_names("names", self.names)
        if self.ordered and not self.names:
            raise ValueError("names=(): give the levels of an ordered label, from low to high")

    def read(self, feature: str, row: Row, size: ImageSize) -> dict[str, Any]:
        cell = self.cell(feature, row)
        if self.optional and is_unlabelled(cell, self.names):
            return {feature: np.int32(-1)}
        return {feature: np.int32(self.vocabulary.index(cell))}

    def describe(self, feature: str) -> dict[str, str]:
        low = -1 if self.optional else 0
        detail = ", ordered" if self.ordered else ""
        detail += ", -1 unknown" if self.optional else ""
        return {feature: f"int32, {low}..{len(self.names) - 1}{detail}"}


@dataclasses.dataclass(frozen=True)
class Group(NamedColumn):
    """What several records share (patient, video, photographer): int32, index in ``names``, which
    are identifiers: ``7k`` and ``7K`` are two, and numbers need not go from 0.

    Attributes:
      names: empty takes the cells' distinct values in sorted order.
      column: in the table; empty when it is called like the feature.
    """

    names: tuple[str, ...] = ()
    column: str = ""

    def learn(self, cells: Iterable[tuple[str, Cell]]) -> Group:
        labelled = ((place, cell) for place, cell in cells if not is_unlabelled(cell))
        return dataclasses.replace(self, names=distinct_names(labelled, ids=True))

    def read(self, feature: str, row: Row, size: ImageSize) -> dict[str, Any]:
        cell = self.cell(feature, row)
        if is_unlabelled(cell, self.names):
            raise DataError("is missing; every record needs a group")
        return {feature: np.int32(self.vocabulary.index(cell, numbers=False))}

    def describe(self, feature: str) -> dict[str, str]:
        return {feature: f"int32, 0..{len(self.names) - 1}, group"}


@dataclasses.dataclass(frozen=True)
class MultiLabel(NamedColumn):
    """Any number of classes at once: float32[C], 1 for those named and 0 for the others.

    Attributes:
      names: as in ``ClassLabel``.
      column: in the table; empty when it is called like the feature. The cell is a list of
        names; an empty list or ``[]`` is none of them, an empty text is missing.
      separator: between names in text.
      none: text that stands for no class at all, for tables that cannot hold an empty list.
    """

    names: tuple[str, ...] = ()
    column: str = ""
    separator: str = "|"
    none: str = "[]"

    def __post_init__(self) -> None:
        _check_names("names", self.names)

    def mentioned(self, cell: Cell) -> Iterable[Cell]:
        return () if cell == self.none else as_list(cell, self.separator)

    def read(self, feature: str, row: Row, size: ImageSize) -> dict[str, Any]:
        cell = self.cell(feature, row)
        if is_unlabelled(cell, self.names):
            raise DataError(f"is missing; write {self.none} for a record of no class")
        hot = np.zeros(len(self.names), np.float32)
        for name in self.mentioned(cell):
            hot[self.vocabulary.index(name)] = 1
        return {feature: hot}

    def describe(self, feature: str) -> dict[str, str]:
        return {feature: f"float32[{len(self.names)}], 0 or 1"}


@dataclasses.dataclass(frozen=True)
class PartialLabels(NamedColumn):
    """Classes of which some are known: float32[C] of 0 and 1, and ``<feature>_known`` bool[C].

    A cell maps class names to 1, 0, or -1 or null for unknown; classes it leaves out are
    unknown. Unknown entries are 0 in the feature.

    Attributes:
      names: as in ``ClassLabel``.
      column: in the table; empty when it is called like the feature.
      wide: every class has a column of its own, with its name, instead; ``names`` are then given.
    """

    names: tuple[str, ...] = ()
    column: str = ""
    wide: bool = False

    def __post_init__(self) -> None:
        _check_names("names", self.names)
        if self.wide and not self.names:
            raise ValueError("names=(): wide=True needs the names, which are the columns")

    def reads(self, feature: str) -> tuple[str, ...]:
        return self.names if self.wide else super().reads(feature)

    def mentioned(self, cell: Cell) -> Iterable[Cell]:
        return as_mapping(cell)

    def read(self, feature: str, row: Row, size: ImageSize) -> dict[str, Any]:
        cell = self.cell(feature, row)
        known = np.zeros(len(self.names), bool)
        value = np.zeros(len(self.names), np.float32)
        if self.wide:
            marks: Mapping[str, Cell] = {name: row.get(name) for name in self.names}
        else:
            marks = {} if is_missing(cell) else as_mapping(cell)
        for name, mark in marks.items():
            number = -1.0 if is_missing(mark) else as_number(mark, flags=True)
            if number not in (-1.0, 0.0, 1.0):
                raise DataError(f"{name!r} is {shown(mark)}; it is 1, 0, or -1 for unknown")
            index = self.vocabulary.index(name)
            if known[index] and value[index] != number:
                raise DataError(f"{self.names[index]!r} is given twice, as 0 and as 1")
            known[index], value[index] = number >= 0, number == 1
        return {feature: value, f"{feature}_known": known}

    def describe(self, feature: str) -> dict[str, str]:
        count = len(self.names)
        return {
            feature: f"float32[{count}], 0 or 1, 0 where unknown",
            f"{feature}_known": f"bool[{count}]",
        }


@dataclasses.dataclass(frozen=True)
@checked
class SoftLabel(SingleColumn):
    """A distribution over classes: float32[C], not negative, sum 1.

    Attributes:
      names: in label order. The cell is a list of C probabilities in this order, or maps names
        to probabilities; names it leaves out have 0.
      column: in the table; empty when it is called like the feature.
      separator: between numbers in text.
    """

    names: NonEmpty[tuple[str, ...]]
    column: str = ""
    separator: str = "|"

    def __post_init__(self) -> None:
        _check_names("names", self.names)

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.names)

    def read(self, feature: str, row: Row, size: ImageSize) -> dict[str, Any]:
        cell, count = self.cell(feature, row), len(self.names)
        if is_missing(cell):
            raise DataError("is missing")
        chances = np.zeros(count, np.float64)
        if isinstance(cell, Mapping) or (isinstance(cell, str) and cell.lstrip().startswith("{")):
            for name, chance in as_mapping(cell).items():
                index = self.vocabulary.index(name)
                if chances[index]:
                    raise DataError(f"{self.names[index]!r} is given twice")
                chances[index] = as_number(chance)
        else:
            numbers = [as_number(x) for x in as_list(cell, self.separator)]
            if len(numbers) != count:
                raise DataError(f"has {len(numbers)} probabilities for {count} classes")
            chances[:] = numbers
        if chances.min() < 0 or abs(chances.sum() - 1) > 1e-3:
            raise DataError(f"{shown(cell)} is no distribution: its sum is {chances.sum():.6g}")
        return {feature: chances.astype(np.float32)}

    def describe(self, feature: str) -> dict[str, str]:
        return {feature: f"float32[{len(self.names)}], 0..1, sum 1"}


@dataclasses.dataclass(frozen=True)
class Number(SingleColumn):
    """A target or measurement: float32 of ``shape``, finite.

    With ``optional`` a second feature ``<feature>_known`` (bool) says whether it was there; the
    number is 0 where it was not.

    Attributes:
      shape: () for one number; (D,) or more for nested lists of numbers.
      low: smallest valid value.
      high: largest valid value.
      column: in the table; empty when it is called like the feature.
      separator: between numbers in text.
      optional: whether a cell may be missing.
    """

    shape: tuple[int, ...] = ()
    low: float | None = None
    high: float | None = None
    column: str = ""
    separator: str = "|"
    optional: bool = False

    def read(self, feature: str, row: Row, size: ImageSize) -> dict[str, Any]:
        cell = self.cell(feature, row)
        known = {f"{feature}_known": np.bool_(not is_missing(cell))} if self.optional else {}
        if is_missing(cell):
            if not self.optional:
                raise DataError("is missing")
            return {feature: np.zeros(self.shape, np.float32)[()], **known}
        value = self._array(cell)
        if self.low is not None and value.min(initial=self.low) < self.low:
            raise DataError(f"{shown(cell)} is less than {self.low}")
        if self.high is not None and value.max(initial=self.high) > self.high:
            raise DataError(f"{shown(cell)} is more than {self.high}")
        return {feature: value.astype(np.float32)[()], **known}

    def _array(self, cell: Cell) -> np.ndarray:
        if not self.shape:
            return np.asarray(as_number(cell))

        def numbers(value: Cell) -> Any:
            nested = isinstance(value, list | tuple)
            return [numbers(x) for x in value] if nested else as_number(value)

        try:
            value = np.asarray(numbers(as_list(cell, self.separator)), np.float64)
        except ValueError:
            raise DataError(f"{shown(cell)} is a ragged list") from None
        if value.shape != self.shape:
            raise DataError(f"has shape {list(value.shape)}, not {list(self.shape)}")
        return value

    def describe(self, feature: str) -> dict[str, str]:
        low, high = ("" if x is None else f"{x:g}" for x in (self.low, self.high))
        span = f", {low}..{high}" if low or high else ""
        what = f"float32{list(self.shape) if self.shape else ''}{span}"
        known = {f"{feature}_known": "bool"} if self.optional else {}
        return {feature: what, **known}


@dataclasses.dataclass(frozen=True)
class Metadata(SingleColumn):
    """Anything else, passed on as the table holds it.

    Call the feature with a leading underscore to keep it on the host: other features must be
    numeric by the time a batch is made.

    Attributes:
      column: in the table; empty when it is called like the feature.
    """

    column: str = ""

    def read(self, feature: str, row: Row, size: ImageSize) -> dict[str, Any]:
        return {feature: self.cell(feature, row)}

    def describe(self, feature: str) -> dict[str, str]:
        return {feature: "as in the table"}


def _check_names(argument: str, names: tuple[str, ...]) -> None:
    try:
        distinct_names(((f"{argument}[{i}]", name) for i, name in enumerate(names)), sort=False)
    except DataError as error:
        raise ValueError(str(error)) from None
