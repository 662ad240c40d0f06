"""Parquet files, read row group by row group."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from vision.config.ranges import Positive, checked
from vision.data import files
from vision.data.cells import Cell, as_text, is_missing
from vision.data.columns import Column, Group, NamedColumn
from vision.data.fingerprint import content
from vision.data.source import DataError, SourceInfo
from vision.data.sources.hugging_face import agreed, declared_names, named_cell
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
        cells = self._with_names(place, cells)
        image = None
        if self.image_column:
            try:
                image = self._image(cells.pop(self.image_column), layout.paths[file])
            except DataError as error:
                raise DataError(f"{place}: {error}") from None
        example = read_row(self._columns, cells, place, image)
        return example if image is None else {"image": image, **example}

    def column(self, feature: str) -> list[Any]:
        """A feature of all records; only the columns it is made of are read.

        Raises:
          DataError: naming the first record in which it is missing or wrong.
        """
        column = self._columns[feature]
        return [
            read_row({feature: column}, row, place)[feature]
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
                (cells,) = _read_group(path, metadata, group, (name,)).values()
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
    def _layout(self) -> _Layout:
        needed = {name for f, column in self.columns.items() for name in column.reads(f)}
        needed |= {self.image_column, self.key_column} - {""}
        return _read_layout(files.expand(self.path), sorted(needed), self.image_column)

    @functools.cached_property
    def _columns(self) -> dict[str, Column]:
        def scan(column: str) -> Iterator[tuple[str, Cell]]:
            for place, row in self._rows((column,)):
                yield place, row[column]

        columns: dict[str, Column] = dict(self.columns)
        for feature, column in columns.items():
            names = self._declared.get(column.reads(feature)[0], ())
            if not names or column.learned or isinstance(column, Group):
                continue
            if isinstance(column, NamedColumn):
                unnamed: Any = column
                columns[feature] = dataclasses.replace(unnamed, names=names)
        return learned(columns, scan, self._layout.paths[0])

    @functools.cached_property
    def _declared(self) -> dict[str, tuple[str, ...]]:
        """The table's columns whose numbers are read by the names that the file declares."""
        result = {}
        for name, declared in self._layout.declared.items():
            readers = [c for feature, c in self.columns.items() if name in c.reads(feature)]
            named = [column for column in readers if isinstance(column, NamedColumn)]
            try:
                by_name = [agreed(column.names, declared) for column in named]
            except DataError as error:
                raise DataError(f"{self._layout.paths[0]}: column {name!r}: {error}") from None
            if readers and len(named) == len(readers) and all(by_name):
                result[name] = declared
        return result

    def _with_names(self, place: str, cells: dict[str, Cell]) -> dict[str, Cell]:
        for name in self._declared.keys() & cells.keys():
            try:
                cells[name] = named_cell(cells[name], self._declared[name])
            except DataError as error:
                raise DataError(f"{place}: column {name!r} {error}") from None
        return cells

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
                cells = _read_group(path, self._layout.metadata[file], group, names)
                for values in zip(*(cells[name].to_pylist() for name in names), strict=True):
                    place = f"{path}[{row}]"
                    yield place, self._with_names(place, dict(zip(names, values, strict=True)))
                    row += 1

    def _group(self, file: int, group: int) -> dict[str, Any]:
        """The wanted columns of a row group, as pyarrow arrays."""
        cached = self._kept.groups
        cells = cached.pop((file, group), None)
        if cells is None:
            layout = self._layout
            if self.key_column:
                _ = self._keys  # once, before the first record: duplicates are an error
            cells = _read_group(layout.paths[file], layout.metadata[file], group, self._wanted)
            while len(cached) >= self.row_groups_kept:
                cached.popitem(last=False)
        cached[file, group] = cells
        return cells

    @functools.cached_property
    def _kept(self) -> _Kept:
        return _Kept()


class _Kept(threading.local):
    """Row groups read last, of each thread, oldest first."""

    def __init__(self) -> None:
        self.groups: collections.OrderedDict[tuple[int, int], dict[str, Any]] = (
            collections.OrderedDict()
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _Layout:
    """Where the rows are: every row group of every file, in order.

    ``starts`` holds the first row of each group, and the number of rows at the end. ``declared``
    are the class names of columns by the files' metadata.
    """

    paths: tuple[str, ...]
    metadata: list[Any]
    names: frozenset[str]
    declared: dict[str, tuple[str, ...]]
    image_kind: str
    starts: np.ndarray
    group_files: np.ndarray
    group_numbers: np.ndarray

    def locate(self, index: int) -> tuple[int, int, int]:
        """File, row group in it, and row in that."""
        if not 0 <= index < self.starts[-1]:
            raise IndexError(f"record {index} of {self.starts[-1]}")
        at = int(np.searchsorted(self.starts, index, side="right")) - 1
        return int(self.group_files[at]), int(self.group_numbers[at]), int(index - self.starts[at])

    def first_of_file(self, file: int) -> int:
        return int(self.starts[np.searchsorted(self.group_files, file)])


def _read_layout(paths: tuple[str, ...], needed: list[str], image_column: str) -> _Layout:
    parquet = _pyarrow()
    metadata, groups, rows = [], [], []
    types: dict[str, Any] = {}
    names: frozenset[str] = frozenset()
    declared: dict[str, tuple[str, ...]] = {}
    for file, path in enumerate(paths):
        with files.opened(path) as opened:
            try:
                footer = parquet.read_metadata(opened)
                schema = footer.schema.to_arrow_schema()
            except _errors() as error:
                raise DataError(f"{path}: is not a sound parquet file: {_brief(error)}") from None
        present = frozenset(schema.names)
        for name in needed:
            if name not in present:
                raise DataError(
                    f"{path}: no column {name!r}; it has {', '.join(map(repr, schema.names))}"
                )
            kind = schema.field(name).type
            if types.setdefault(name, kind) != kind:
                raise DataError(
                    f"{path}: column {name!r} is {kind}, but {types[name]} in {paths[0]}"
                )
        names = names & present if file else present
        file_names = declared_names(schema.metadata)
        declared = declared if file else file_names
        if differing := sorted(
            name for name in needed if declared.get(name) != file_names.get(name)
        ):
            raise DataError(
                f"{path}: its metadata names the classes of column {differing[0]!r} otherwise than "
                f"{paths[0]}; write them with the same names"
            )
        metadata.append(footer)
        for group in range(footer.num_row_groups):
            groups.append((file, group))
            rows.append(footer.row_group(group).num_rows)
    nonempty = [i for i, count in enumerate(rows) if count]
    if not nonempty:
        raise DataError(f"{paths[0]}: the table has no rows")
    kind = _image_kind(types[image_column], paths[0], image_column) if image_column else ""
    groups_with_rows = np.asarray([groups[i] for i in nonempty], np.int64)
    starts = np.concatenate([[0], np.cumsum([rows[i] for i in nonempty])])
    return _Layout(
        paths,
        metadata,
        names,
        declared,
        kind,
        starts,
        groups_with_rows[:, 0],
        groups_with_rows[:, 1],
    )


def _image_kind(kind: Any, path: str, column: str) -> str:
    import pyarrow.types as is_type

    if is_type.is_struct(kind):
        inner = {kind.field(i).name for i in range(kind.num_fields)}
        if inner & {"bytes", "path"}:
            return "bytes or paths" if "path" in inner else "bytes"
    elif is_type.is_binary(kind) or is_type.is_large_binary(kind):
        return "bytes"
    elif is_type.is_string(kind) or is_type.is_large_string(kind):
        return "paths"
    raise DataError(
        f"{path}: column {column!r} is {kind}; images are binary, paths are strings, or a struct "
        "of bytes and path"
    )


def _read_group(path: str, metadata: Any, group: int, names: tuple[str, ...]) -> dict[str, Any]:
    parquet = _pyarrow()
    with files.opened(path) as opened:
        try:
            file = parquet.ParquetFile(
                opened, metadata=metadata, page_checksum_verification=True, pre_buffer=False
            )
            # One thread: the pipeline reads several records side by side already.
            table = file.read_row_group(group, columns=list(names), use_threads=False)
        except _errors() as error:
            raise DataError(f"{path}: row group {group} is damaged: {_brief(error)}") from None
    if table.num_rows != metadata.row_group(group).num_rows:
        raise DataError(f"{path}: row group {group} has {table.num_rows} rows, not as its footer")
    return {name: table.column(name) for name in table.column_names}


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise DataError("parquet files need pyarrow: pip install 'pyarrow>=18'") from None
    return parquet


def _errors() -> tuple[type[Exception], ...]:
    import pyarrow

    # A damaged footer or page surfaces as any of these.
    return (pyarrow.ArrowException, OSError, ValueError, KeyError, MemoryError)


def _brief(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
