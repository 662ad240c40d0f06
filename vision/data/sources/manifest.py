"""A table of examples, CSV or JSON, with typed columns and paths of image files."""

from __future__ import annotations

import codecs
import contextlib
import csv
import dataclasses
import functools
import io
from collections.abc import Iterator, Mapping
from typing import Any

from vision.config.repeated import first_repeated
from vision.data import files
from vision.data.cells import Cell, as_text, from_json, is_missing
from vision.data.columns import Column
from vision.data.fingerprint import content
from vision.data.source import DataError, SourceInfo
from vision.data.table import (
    Scan,
    check_columns,
    class_names,
    describe,
    fields_only,
    learned,
    read_row,
)

_CSV = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """``image`` as encoded bytes, and the features that ``columns`` make of each row.

    The kind of table is told from the file's name: ``.csv`` and ``.tsv`` (UTF-8, a header line),
    ``.jsonl`` (an object per line) or ``.json`` (a list of objects). What is wrong with the table
    is an error on first use; what is wrong with one row (a missing or unknown label, a box
    outside the image, a missing file) is an error of that record, for ``on_error`` to decide. Both
    name file and line (CSV and JSON lines; position for JSON).

    Attributes:
      path: of the table; local, or a URL that fsspec knows.
      columns: feature name to column type, for example ``{"label": ClassLabel()}``.
      image_column: column with paths relative to ``root``; empty for a table without images, as
        for ``Joined``. Paths and links that lead out of ``root`` are refused.
      root: folder of the images; empty for the folder the table is in.
      key_column: column whose values name the records; empty takes the image's path. Without
        either, records are called ``TABLE:LINE``.
      part_column: column that says which part of the data a row is in; empty for none.
      part: the rows to take. Class names come from the rows of all parts.
      name: short name, as in a table; empty for the file's name.

    Raises:
      DataError: on first use, when the table cannot be read or lacks a column, a row has too
        many or too few cells, two class names differ only in case, or two records have the same
        name.
    """

    path: str
    columns: Mapping[str, Column]
    image_column: str = "image"
    root: str = ""
    key_column: str = ""
    part_column: str = ""
    part: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if self._ending not in (*_CSV, *_JSON_LINES, ".json"):
            raise ValueError(f"path={self.path!r}: must end in .csv, .tsv, .jsonl or .json")
        if bool(self.part_column) != bool(self.part):
            raise ValueError(
                f"part_column={self.part_column!r}, part={self.part!r}: set both or neither"
            )
        check_columns(self.columns, ("image",) if self.image_column else ())

    def __getstate__(self) -> dict[str, Any]:
        return fields_only(self)

    @property
    def info(self) -> SourceInfo:
        columns = self._table.columns
        image = {"image": "encoded bytes"} if self.image_column else {}
        name = self.name or files.base_name(self.path)
        return SourceInfo(
            name=f"{name}/{self.part}" if self.part else name,
            num_examples=len(self),
            class_names=class_names(columns),
            features=image | describe(columns),
            homepage=self.path,
        )

    def names(self, feature: str) -> tuple[str, ...]:
        """The names of a class, group or label feature, in the order of their numbers."""
        return tuple(getattr(self._table.columns[feature], "names", ()))

    def __len__(self) -> int:
        return len(self._table.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self._table.row(index)
        place = self._place(self._table.lines[index])
        image = None
        if self.image_column:
            relative = as_text(row[self.image_column])
            try:
                image = files.read_below(self._root, files.inside(self._root, relative))
            except DataError as error:
                raise DataError(f"{place}: {error}") from None
        example = read_row(self._table.columns, row, place, image)
        return example if image is None else {"image": image, **example}

    def column(self, feature: str) -> list[Any]:
        """A feature of all records, read from the table alone: no image is opened.

        Raises:
          DataError: naming the first record in which it is missing or wrong.
        """
        table = self._table
        columns = {feature: table.columns[feature]}
        return [
            read_row(columns, table.row(i), self._place(table.lines[i]))[feature]
            for i in range(len(self))
        ]

    def fingerprint(self) -> str:
        """Changes with the arguments, the table, and path, size or time of any image."""
        return content(self, [self.path, *self._image_files()])

    def key(self, index: int) -> str:
        column = self.key_column or self.image_column
        if column:
            return as_text(self._table.row(index)[column])
        return self._place(self._table.lines[index])

    @functools.cached_property
    def _ending(self) -> str:
        dot = self.path.rfind(".")
        return self.path[dot:].lower() if dot >= 0 else ""

    @property
    def _root(self) -> str:
        return self.root or files.parent(self.path)

    def _place(self, line: int) -> str:
        if self._ending == ".json":
            return f"{self.path}[{line}]"
        return f"{self.path}:{line}"

    @functools.cached_property
    def _table(self) -> _Table:
        needed = {name for f, column in self.columns.items() for name in column.reads(f)}
        needed |= {self.image_column, self.key_column, self.part_column} - {""}
        sizes = set() if self.image_column else {"height", "width"}
        names = tuple(sorted(needed | sizes))
        present: dict[str, None] = {}
        rows: list[tuple[Cell, ...]] = []
        lines: list[int] = []
        for line, row in self._read():
            if not row.keys() <= present.keys():
                present.update(dict.fromkeys(row))
            rows.append(tuple(row.get(column) for column in names))
            lines.append(line)
        if not rows:
            raise DataError(f"{self.path}: the table has no rows")
        missing = sorted(needed - present.keys())
        if missing:
            raise DataError(
                f"{self.path}: no column {', '.join(map(repr, missing))}; it has "
                f"{', '.join(map(repr, present))}"
            )

        def scan(column: str) -> Iterator[tuple[str, Cell]]:
            at = names.index(column)
            for line, row in zip(lines, rows, strict=True):
                yield self._place(line), row[at]

        self._check_keys(scan)
        columns = learned(self.columns, scan, self.path)
        chosen: Any = range(len(rows))
        if self.part:
            parts = [str(cell) for _, cell in scan(self.part_column)]
            chosen = [i for i, part in enumerate(parts) if part == self.part]
            if not chosen:
                raise DataError(
                    f"{self.path}: no row has {self.part_column}={self.part!r} but "
                    f"{', '.join(map(repr, sorted(set(parts))[:9]))}"
                )
        return _Table(names, [rows[i] for i in chosen], [lines[i] for i in chosen], columns)

    def _check_keys(self, scan: Scan) -> None:
        column = self.key_column or self.image_column
        if not column:
            return
        first: dict[str, str] = {}
        for place, cell in scan(column):
            if is_missing(cell):
                raise DataError(f"{place}: column {column!r} is empty; every record needs one")
            key = as_text(cell)
            if key in first:
                fix = "" if self.key_column else ", or name the records by a key_column"
                raise DataError(
                    f"{place}: {key!r} is in {first[key]} already; keep one of them{fix}"
                )
            first[key] = place

    def _image_files(self) -> Iterator[str]:
        table = self._table
        at = table.names.index(self.image_column) if self.image_column else 0
        for row in table.rows if self.image_column else ():
            with contextlib.suppress(DataError):  # a bad record, whatever the files
                yield files.inside(self._root, as_text(row[at]))

    def _read(self) -> Iterator[tuple[int, dict[str, Cell]]]:
        """Line (or position) and cells of every row."""
        data = files.read_bytes(self.path).removeprefix(codecs.BOM_UTF8)
        if self._ending in _CSV:
            yield from self._read_csv(data)
        elif self._ending in _JSON_LINES:
            for line, text in enumerate(data.split(b"\n"), 1):
                if text.strip():
                    yield line, self._object(text, line)
        else:
            try:
                items = from_json(data)
            except DataError as error:
                raise DataError(f"{self.path}: {error}") from None
            if not isinstance(items, list):
                raise DataError(f"{self.path}: is not a JSON list of objects")
            for position, item in enumerate(items):
                yield position, self._object(item, position)

    def _object(self, item: Any, line: int) -> dict[str, Cell]:
        try:
            item = from_json(item) if isinstance(item, bytes) else item
        except DataError as error:
            raise DataError(f"{self._place(line)}: {error}") from None
        if not isinstance(item, dict):
            raise DataError(f"{self._place(line)}: is not a JSON object")
        return item

    def _read_csv(self, data: bytes) -> Iterator[tuple[int, dict[str, Cell]]]:
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise DataError(f"{self._place(line)}: is not UTF-8; save it as UTF-8") from None
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=_CSV[self._ending], strict=True)
        header: list[str] | None = None
        line = 1
        try:
            for cells in lines:
                if header is None:
                    header = cells
                    if (name := first_repeated(header)) is not None:
                        raise DataError(f"{self._place(line)}: two columns {name!r}")
                elif len(cells) == len(header):
                    yield line, dict(zip(header, cells, strict=True))
                elif cells:
                    raise DataError(
                        f"{self._place(line)}: {len(cells)} cells under {len(header)} columns; "
                        "quote cells that contain the delimiter"
                    )
                line = lines.line_num + 1
        except csv.Error as error:
            raise DataError(f"{self._place(line)}: {error}; long cells fit JSONL") from None


@dataclasses.dataclass(frozen=True, eq=False)
class _Table:
    names: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    lines: list[int]
    columns: dict[str, Column]

    def row(self, index: int) -> dict[str, Cell]:
        return dict(zip(self.names, self.rows[index], strict=True))
