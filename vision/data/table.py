"""Rows of cells to examples: what manifests, parquet files and tar shards have in common."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from PIL import Image

from vision.config.ranges import Rule
from vision.data import pixel_formats
from vision.data.cells import Cell, as_number
from vision.data.columns import Column, Row
from vision.data.decode import FORMATS, MAX_PIXELS
from vision.data.source import DataError

Scan = Callable[[str], Iterable[tuple[str, Cell]]]
"""All cells of a table's column, each with its place ("m.csv:7")."""


def fields_only(source: Any) -> dict[str, Any]:
    """For ``__getstate__``: pickle what the constructor took, not what was read since."""
    return {f.name: getattr(source, f.name) for f in dataclasses.fields(source)}


Paths = Annotated[str | tuple[str, ...], Rule("a file, a pattern or several", bool)]


def check_columns(columns: Mapping[str, Column], reserved: tuple[str, ...] = ()) -> None:
    """Raises ValueError where two columns make the same feature, or something is no column."""
    makers = dict.fromkeys(reserved, "the source itself")
    for feature, column in columns.items():
        if not hasattr(column, "describe"):
            raise ValueError(f"columns[{feature!r}]={column!r} is not a column type")
        for name in column.describe(feature):
            if name in makers:
                raise ValueError(
                    f"columns[{feature!r}]: {name!r} is made by {makers[name]} already"
                )
            makers[name] = f"columns[{feature!r}]"


def learned(columns: Mapping[str, Column], scan: Scan, table: str) -> dict[str, Column]:
    """The columns, with the vocabularies that the cells of ``table`` give."""
    result: dict[str, Column] = {}
    for feature, column in columns.items():
        if not column.learned:
            (name,) = column.reads(feature)
            try:
                column = column.learn(scan(name))
            except DataError as error:
                raise DataError(f"{table}: column {name!r}: {error}") from None
            if not column.learned:
                raise DataError(f"{table}: column {name!r} of {feature!r} holds no value at all")
        result[feature] = column
    return result


def read_row(
    columns: Mapping[str, Column], row: Row, place: str, image: bytes | None = None
) -> dict[str, Any]:
    """The features of a row.

    Args:
      columns: feature name to learned column.
      row: the table's cells by column name.
      place: of the row, for errors, like ``m.csv:7``.
      image: the encoded image, when the row has one.

    Raises:
      DataError: naming place, feature and column.
    """

    def size() -> tuple[int, int]:
        return upright_size(image, row)

    example: dict[str, Any] = {}
    for feature, column in columns.items():
        try:
            example.update(column.read(feature, row, size))
        except DataError as error:
            names = ", ".join(map(repr, column.reads(feature)[:3]))
            raise DataError(f"{place}: {feature} (column {names}) {error}") from None
    return example


def upright_size(image: bytes | None, row: Row) -> tuple[int, int]:
    """Height and width: from the image's header, or columns ``height`` and ``width``."""
    if image is None:
        height, width = row.get("height"), row.get("width")
        if height is None or width is None:
            raise DataError("needs the image's size: add an image, or columns height and width")
        return _checked(int(as_number(height)), int(as_number(width)))
    try:
        with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
            height, width = pixel_formats.upright_size(opened)
    except Exception as error:  # Pillow raises nearly every built-in type on hostile bytes
        raise DataError(f"needs the image's size, but it cannot be read: {error}") from None
    return _checked(height, width)


def _checked(height: int, width: int) -> tuple[int, int]:
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise DataError(f"is of an image of {height} x {width} pixels; 1..{MAX_PIXELS} are valid")
    return height, width


def describe(columns: Mapping[str, Column]) -> dict[str, str]:
    return {k: v for name, column in columns.items() for k, v in column.describe(name).items()}


def class_names(columns: Mapping[str, Column]) -> tuple[str, ...]:
    """The names of the feature ``label``, if it has names."""
    return tuple(getattr(columns.get("label"), "names", ()))
