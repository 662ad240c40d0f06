"""Parquet files, read row group by row group."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from vision.config.ranges import Positive, checked
from vision.data import files
from vision.data.cells import Cell, as_text, is_missing
from vision.data.columns import Column, Group, NamedColumn
from vision.data.fingerprint import content
from vision.data.source import DataError, SourceInfo
from vision.data.sources.hugging_face import agreed, named_cell
from vision.data.sources.parquet_layout import Layout, read_group, read_layout
from vision.data.table import (
    Paths,
    check_columns,
    class_names,
    describe,
    fields_only,
    learned,
    read_row,
)


@dataclasses.dataclass(frozen=True)
@checked
class Parquet:
    """``image`` as encoded bytes, and the features that ``columns`` make of each row.

    The first use reads the files' footers. A record costs the row group it is in, of which every
    thread keeps the last few; a column without a given vocabulary is scanned once, alone. So
    reading in order is fast, and shuffled reading wants small row groups (100 rows) or
    ``vision.data.sources.array_record.convert``. Columns that nobody asks for are never read.

    Class names that Hugging Face's datasets library wrote beside the schema name the numbers of
    their column; they are its classes, in that order, where no names are given.

    Attributes:
      path: a file, a pattern (``data/train-*.parquet``, ``part-{000..146}.parquet``), or several;
        local, or URLs that fsspec knows. Rows are in the order of the files.
      columns: feature name to column type, for example ``{"label": ClassLabel()}``.
      image_column: column of encoded images (binary), of paths relative to ``root`` (string), or
        of both (the struct of ``bytes`` and ``path`` that Hugging Face writes; bytes win); empty
        for a table without images.
      root: folder of the images where the column holds paths; empty for the file's own folder.
      key_column: column whose values name the records; empty calls them ``FILE[ROW]``.
      row_groups_kept: how many row groups each thread remembers.
      name: short name, as in a table; empty for the first file's name.

    Raises:
      DataError: on first use, when a file is damaged, lacks a column or has one of another type
        than the first file, or two records have the same name.
    """

    path: Paths
    columns: Mapping[str, Column]
    image_column: str = "image"
    root: str = ""
    key_column: str = ""
    row_groups_kept: Positive[int] = 2
    name: str = ""

    def __post_init__(self) -> None:
        check_columns(self.columns, ("image",) if self.image_column else ())

    def __getstate__(self) -> dict[str, Any]:
        return fields_only(self)

    @property
    def info(self) -> SourceInfo:
        layout = self._layout
        image = {"image": f"encoded bytes ({layout.image_kind})"} if self.image_column else {}
        return SourceInfo(
            name=self.name or files.base_name(layout.paths[0]),
            num_examples=len(self),
            class_names=class_names(self._columns),
            features=image | describe(self._columns),
            homepage=layout.paths[0],
        )

    def names(self, feature: str) -> tuple[str, ...]:
        """The names of a class, group or label feature, in the order of their numbers."""
        return tuple(getattr(self._columns[feature], "names", ()))

    def __len__(self) -> int:
        return int(self._layout.starts[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        layout = self._layout
        file, group, row = layout.locate(index)
        place = f"{layout.paths[file]}[{index - layout.first_of_file(file)}]"
        cells = {name: column[row].as_py() for name, column in self._group(file, group).items()}
        image = None
        if self.image_column:
            try:
                image = self._image(cells.pop(self.image_column), layout.paths[file])
            except DataError as error:
                raise DataError(f"{place}: {error}") from None
        example = self._example(self._columns, cells, place, image)
        return example if image is None else {"image": image, **example}

    def column(self, feature: str) -> list[Any]:
        """A feature of all records; only the columns it is made of are read.

        Raises:
          DataError: naming the first record in which it is missing or wrong.
        """
        column = self._columns[feature]
        return [
            self._example({feature: column}, row, place)[feature]
            for place, row in self._rows(column.reads(feature))
        ]

    def fingerprint(self) -> str:
        """Changes with the arguments and with path, size or time of any file; no record is read."""
        return content(self, [*self._layout.paths, *self._image_files()])

    def key(self, index: int) -> str:
        if self.key_column:
            return self._keys[index]
        file, _, _ = self._layout.locate(index)
        return f"{self._layout.paths[file]}[{index - self._layout.first_of_file(file)}]"

    def _image(self, cell: Cell, path: str) -> bytes:
        relative = cell
        if isinstance(cell, Mapping):
            relative = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
        if isinstance(relative, bytes):
            return relative
        if is_missing(relative):
            raise DataError(f"no image in column {self.image_column!r}")
        root = self.root or files.parent(path)
        return files.read_below(root, files.inside(root, as_text(relative)))

    def _image_files(self) -> Iterator[str]:
        """The files that the column of images names; bytes beside their names are not read."""
        kind = self._layout.image_kind
        if kind in ("", "bytes"):
            return
        name = self.image_column if kind == "paths" else f"{self.image_column}.path"
        for path, metadata in zip(self._layout.paths, self._layout.metadata, strict=True):
            root = self.root or files.parent(path)
            for group in range(metadata.num_row_groups):
                (cells,) = read_group(path, metadata, group, (name,)).values()
                for cell in cells.to_pylist():
                    relative = cell.get("path") if isinstance(cell, Mapping) else cell
                    with contextlib.suppress(DataError):  # a bad record, whatever the files
                        yield files.inside(root, as_text(relative))

    @functools.cached_property
    def _wanted(self) -> tuple[str, ...]:
        """The table's columns that make an example."""
        wanted = {name for f, column in self.columns.items() for name in column.reads(f)}
        wanted |= {self.image_column} - {""}
        sizes = set() if self.image_column else {"height", "width"} & self._layout.names
        return tuple(sorted(wanted | sizes))

    @functools.cached_property
    def _layout(self) -> Layout:
        needed = {name for f, column in self.columns.items() for name in column.reads(f)}
        needed |= {self.image_column, self.key_column} - {""}
        return read_layout(files.expand(self.path), sorted(needed), self.image_column)

    @functools.cached_property
    def _columns(self) -> dict[str, Column]:
        def scan(column: str) -> Iterator[tuple[str, Cell]]:
            # Only of groups are there names to be learned where the file declares some.
            names = next((n for c, n in self._declared.values() if c == column), ())
            for place, row in self._rows((column,)):
                yield place, _named_cell(place, column, row[column], names)

        columns: dict[str, Column] = dict(self.columns)
        for feature, column in columns.items():
            name, names = self._declared.get(feature, ("", ()))
            if not names or column.learned or isinstance(column, Group):
                continue
            unnamed: Any = column
            try:
                columns[feature] = dataclasses.replace(unnamed, names=names)
            except ValueError as error:
                raise DataError(
                    f"{self._layout.paths[0]}: column {name!r}: the class names that the file "
                    f"declares are no names of classes: {error}"
                ) from None
        return learned(columns, scan, self._layout.paths[0])

    @functools.cached_property
    def _declared(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Features whose numbers are read by the names that the file declares of their column: the
        column and these names."""
        result = {}
        for feature, column in self.columns.items():
            name = column.reads(feature)[0]
            declared = self._layout.declared.get(name, ())
            if not declared or not isinstance(column, NamedColumn):
                continue
            try:
                by_name = agreed(column.names, declared)
            except DataError as error:
                raise DataError(f"{self._layout.paths[0]}: column {name!r}: {error}") from None
            if by_name:
                result[feature] = (name, declared)
        return result

    def _example(
        self,
        columns: Mapping[str, Column],
        cells: dict[str, Cell],
        place: str,
        image: bytes | None = None,
    ) -> dict[str, Any]:
        """The features of a row; several columns may read a cell, some of them by its name."""
        example: dict[str, Any] = {}
        for feature, column in columns.items():
            name, names = self._declared.get(feature, ("", ()))
            row = cells | {name: _named_cell(place, name, cells[name], names)} if names else cells
            example |= read_row({feature: column}, row, place, image)
        return example

    @functools.cached_property
    def _keys(self) -> list[str]:
        first: dict[str, str] = {}
        for place, row in self._rows((self.key_column,)):
            cell = row[self.key_column]
            if is_missing(cell):
                raise DataError(f"{place}: column {self.key_column!r} is empty")
            key = as_text(cell)
            if key in first:
                raise DataError(f"{place}: {key!r} is in {first[key]} already; keep one of them")
            first[key] = place
        return list(first)

    def _rows(self, names: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Cell]]]:
        """All rows in order, a few columns of them, with their places."""
        for file, path in enumerate(self._layout.paths):
            row = 0
            for group in range(self._layout.metadata[file].num_row_groups):
                cells = read_group(path, self._layout.metadata[file], group, names)
                for values in zip(*(cells[name].to_pylist() for name in names), strict=True):
                    place = f"{path}[{row}]"
                    yield place, dict(zip(names, values, strict=True))
                    row += 1

    def _group(self, file: int, group: int) -> dict[str, Any]:
        """The wanted columns of a row group, as pyarrow arrays."""
        cached = self._kept.groups
        cells = cached.pop((file, group), None)
        if cells is None:
            layout = self._layout
            if self.key_column:
                _ = self._keys  # once, before the first record: duplicates are an error
            cells = read_group(layout.paths[file], layout.metadata[file], group, self._wanted)
            while len(cached) >= self.row_groups_kept:
                cached.popitem(last=False)
        cached[file, group] = cells
        return cells

    @functools.cached_property
    def _kept(self) -> _Kept:
        return _Kept()


def _named_cell(place: str, column: str, cell: Cell, names: tuple[str, ...]) -> Cell:
    """A cell of class numbers by the file's names of them; as it is where there are none."""
    try:
        return named_cell(cell, names) if names else cell
    except DataError as error:
        raise DataError(f"{place}: column {column!r} {error}") from None


class _Kept(threading.local):
    """Row groups read last, of each thread, oldest first."""

    def __init__(self) -> None:
        self.groups: collections.OrderedDict[tuple[int, int], dict[str, Any]] = (
            collections.OrderedDict()
        )
