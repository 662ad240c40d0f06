"""Where the rows of parquet files are, and their row groups."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from vision.data import files
from vision.data.source import DataError
from vision.data.sources.hugging_face import declared_names


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Where the rows are: every row group of every file, in order.

    Attributes:
      paths: of the files.
      metadata: pyarrow's footer of each.
      names: columns that all files have.
      declared: column to class names, by the files' metadata.
      image_kind: what the column of images holds; empty where there is none.
      starts: the first row of each group, and the number of rows at the end, int64 (G + 1,).
      group_files: the file of each group, int64 (G,).
      group_numbers: its number in that file, int64 (G,).
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


def read_layout(paths: tuple[str, ...], needed: list[str], image_column: str) -> Layout:
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
    return Layout(
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


def read_group(path: str, metadata: Any, group: int, names: tuple[str, ...]) -> dict[str, Any]:
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
