"""Tar shards in the WebDataset layout, read at random by offset."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from vision.config.ranges import checked
from vision.data import files
from vision.data.cells import Cell, from_json
from vision.data.columns import Column
from vision.data.decode import EXTENSIONS
from vision.data.fingerprint import content
from vision.data.source import DataError, SourceInfo
from vision.data.sources.tar_index import ShardIndex, load_index
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
class WebDataset:
    """``image`` as encoded bytes, and the features that ``columns`` make of the other members.

    A sample is the members in a row whose names agree up to the first dot: ``0001.jpg``,
    ``0001.cls``, ``0001.json``. The cells of its row are its text members by extension (``cls``,
    ``txt``), without surrounding space, and the fields of its JSON member as ``json.FIELD``.

    Nothing is extracted. The first use notes where every member of every shard is and stores that
    beside the shard as ``SHARD.index.json``, made anew when the shard's size or time changes.

    Attributes:
      shards: a tar file, a pattern (``train-{000..146}.tar``, ``*.tar``), or several; local, or
        URLs that fsspec knows. Samples are in the order of the shards.
      columns: feature name to column type, whose column is a member's extension or
        ``json.FIELD``, for example ``{"label": ClassLabel(names=NAMES, column="cls")}``. Without
        given names all those members are read once.
      image: the image's extensions, separated by ``;``; empty for samples without.
      raw: (feature, extension) of further members to pass on as bytes.
      index_dir: an existing folder for the index files; empty for beside each shard (indices of
        remote shards then stay in memory).
      name: short name, as in a table; empty for the first shard's name.

    Raises:
      DataError: on first use, when a shard is cut off, damaged or compressed, a member is a link
        or lies outside the archive, or a key occurs twice in a shard.
    """

    shards: Paths
    columns: Mapping[str, Column]
    image: str = ";".join(extension[1:] for extension in EXTENSIONS)
    raw: tuple[tuple[str, str], ...] = ()
    index_dir: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        features = (*(("image",) if self.image else ()), *(feature for feature, _ in self.raw))
        if len(set(features)) < len(features):
            raise ValueError(f"raw={self.raw}: a feature is given twice")
        check_columns(self.columns, features)

    def __getstate__(self) -> dict[str, Any]:
        return fields_only(self)

    @property
    def info(self) -> SourceInfo:
        image = {"image": f"encoded bytes ({self.image})"} if self.image else {}
        raw = {feature: f"bytes of .{extension}" for feature, extension in self.raw}
        return SourceInfo(
            name=self.name or files.base_name(self._paths[0]),
            num_examples=len(self),
            class_names=class_names(self._columns),
            features=image | raw | describe(self._columns),
            homepage=self._paths[0],
        )

    def names(self, feature: str) -> tuple[str, ...]:
        """The names of a class, group or label feature, in the order of their numbers."""
        return tuple(getattr(self._columns[feature], "names", ()))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        key = self.key(index)
        members = self._members(index)
        example: dict[str, Any] = {}
        if self.image:
            extensions = [e for e in self.image.split(";") if e in members]
            if len(extensions) != 1:
                what = f"images .{', .'.join(extensions)}: keep one" if extensions else "no image"
                raise DataError(f"{key}: {what} among .{', .'.join(members)}; see image=")
            example["image"] = self._bytes(index, extensions[0])
        for feature, extension in self.raw:
            if extension not in members:
                raise DataError(f"{key}: no member .{extension} among .{', .'.join(members)}")
            example[feature] = self._bytes(index, extension)
        row = self._row(index, self._columns)
        return example | read_row(self._columns, row, key, example.get("image"))

    def column(self, feature: str) -> list[Any]:
        """A feature of all records, from the members it is made of: images are not read.

        Raises:
          DataError: naming the first record in which it is missing or wrong.
        """
        columns = {feature: self._columns[feature]}
        return [
            read_row(columns, self._row(i, columns), self.key(i))[feature] for i in range(len(self))
        ]

    def fingerprint(self) -> str:
        """Changes with the arguments and with path, size or time of any shard."""
        return content(self, self._paths)

    def key(self, index: int) -> str:
        shard, sample = self._locate(index)
        return f"{self._paths[shard]}/{self._indices[shard].keys[sample]}"

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return shard, int(index - self._starts[shard])

    def _members(self, index: int) -> dict[str, tuple[int, int]]:
        shard, sample = self._locate(index)
        return self._indices[shard].members[sample]

    def _bytes(self, index: int, extension: str) -> bytes:
        shard, _ = self._locate(index)
        path = self._paths[shard]
        offset, size = self._members(index)[extension]
        if files.size_and_stamp(path) != (self._indices[shard].size, self._indices[shard].stamp):
            raise DataError(f"{path}: changed since it was indexed; start again")
        return files.read_range(path, offset, size)

    def _row(self, index: int, columns: Mapping[str, Column]) -> dict[str, Cell]:
        """The cells that ``columns`` need of a sample."""
        members = self._members(index)
        row: dict[str, Cell] = {}
        fields: Any = None
        for feature, column in columns.items():
            for name in column.reads(feature):
                extension, _, field = name.partition(".")
                if extension == "json" and "json" in members:
                    if fields is None:
                        fields = self._json(index)
                    row[name] = fields.get(field) if field else fields
                elif name in members:
                    row[name] = self._text(index, name)
        return row

    def _json(self, index: int) -> dict[str, Any]:
        try:
            fields = from_json(self._bytes(index, "json"))
        except DataError as error:
            raise DataError(f"{self.key(index)}.json: {error}") from None
        if not isinstance(fields, dict):
            raise DataError(f"{self.key(index)}.json: is not a JSON object")
        return fields

    def _text(self, index: int, extension: str) -> str:
        try:
            return self._bytes(index, extension).decode().strip()
        except UnicodeDecodeError:
            raise DataError(
                f"{self.key(index)}.{extension}: is not UTF-8 text; take bytes through raw"
            ) from None

    @functools.cached_property
    def _paths(self) -> tuple[str, ...]:
        return files.expand(self.shards)

    @functools.cached_property
    def _indices(self) -> tuple[ShardIndex, ...]:
        return tuple(load_index(path, self.index_dir) for path in self._paths)

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *(len(index.keys) for index in self._indices)])

    @functools.cached_property
    def _columns(self) -> dict[str, Column]:
        def scan(name: str) -> Iterator[tuple[str, Cell]]:
            columns = {
                feature: column
                for feature, column in self.columns.items()
                if name in column.reads(feature)
            }
            for i in range(len(self)):
                yield self.key(i), self._row(i, columns).get(name)

        return learned(self.columns, scan, self._paths[0])
