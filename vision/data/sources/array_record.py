"""ArrayRecord files: shuffled reading at full speed, and a command to convert any source.

A folder of shards ``data-00000-of-00004.array_record``, ``keys.txt`` (the records' names, JSON
texts, one per line) and ``info.json``. A record is a MessagePack map from feature to value:
numbers, text, bytes, lists and maps as they are; an array as extension 1, itself MessagePack
[dtype, shape, bytes in C order]. ArrayRecord's checksums find every flipped bit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vision.config.extras import pip_install
from vision.config.files import replace_file
from vision.data import files
from vision.data.cells import from_json
from vision.data.fingerprint import content
from vision.data.source import DataError, Source, SourceInfo
from vision.data.sources.splits import valid_index
from vision.data.table import fields_only

INFO, KEYS = "info.json", "keys.txt"
_ARRAY = 1
_VERSION = 1
_KINDS = "biufc"


@dataclasses.dataclass(frozen=True)
class ArrayRecord:
    """What ``convert`` wrote, record by record.

    Attributes:
      folder: that it was written to. Local: the ArrayRecord library reads no URLs.

    Raises:
      DataError: on first use, when the folder was not written to its end, or files are missing,
        damaged or of another length.
    """

    folder: str

    def __getstate__(self) -> dict[str, Any]:
        return fields_only(self)

    @functools.cached_property
    def _content(self) -> dict[str, Any]:
        path = os.path.join(self.folder, INFO)
        if not os.path.isfile(path):
            raise DataError(f"{self.folder}: no {INFO}; write it with array_record.convert")
        try:
            content = from_json(files.read_bytes(path))
            if content["version"] != _VERSION:
                raise DataError(f"has version {content['version']}, not {_VERSION}")
            names = [os.path.join(self.folder, name) for name in content["shards"]]
            if any(os.path.dirname(name) != self.folder.rstrip("/") for name in names):
                raise DataError("names a shard outside its folder")
            info = SourceInfo(**content["info"] | {"class_names": tuple(content["classes"])})
            return {"info": info, "records": dict(zip(names, content["records"], strict=True))}
        except (DataError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: {error}; convert the source again") from None

    @functools.cached_property
    def _shards(self) -> _Shards:
        return _Shards(self._content["records"])

    @functools.cached_property
    def _keys(self) -> tuple[str, ...]:
        path = os.path.join(self.folder, KEYS)
        keys = tuple(from_json(line) for line in files.read_bytes(path).splitlines())
        if len(keys) != len(self):
            raise DataError(f"{path}: {len(keys)} keys for {len(self)} records; convert again")
        return keys

    @property
    def info(self) -> SourceInfo:
        return self._content["info"]

    def __len__(self) -> int:
        return self.info.num_examples

    def __getitem__(self, index: int) -> dict[str, Any]:
        data = self._shards.read(valid_index(index, self))
        try:
            return unpack(data)
        except DataError as error:
            raise DataError(f"{self.key(index)}: {error}") from None

    def fingerprint(self) -> str:
        """Changes with path, size or time of any of the folder's files; no record is read."""
        return content(
            self, [*self._shards.paths, *(os.path.join(self.folder, name) for name in (INFO, KEYS))]
        )

    def key(self, index: int) -> str:
        return self._keys[index]


@dataclasses.dataclass(frozen=True)
class ArrayRecordPayloads:
    """ArrayRecord files that others wrote, record by record through ``decode``.

    Attributes:
      path: a file, a pattern, or several. Records are in the order of the files.
      decode: from a record's bytes to features, for example ``unpack``; raises DataError (or
        ValueError) when they make no sense. A module-level function or a frozen dataclass, so
        that it pickles.
      features: feature name to description, for ``info``.
      class_names: names in label order.
      name: short name, as in a table; empty for the first file's name.

    Raises:
      DataError: on first use, when a file is missing or damaged.
    """

    path: str | tuple[str, ...]
    decode: Callable[[bytes], dict[str, Any]]
    features: tuple[tuple[str, str], ...] = ()
    class_names: tuple[str, ...] = ()
    name: str = ""

    def __getstate__(self) -> dict[str, Any]:
        return fields_only(self)

    @functools.cached_property
    def _shards(self) -> _Shards:
        return _Shards(dict.fromkeys(files.expand(self.path), None))

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(
            name=self.name or files.base_name(self._shards.paths[0]),
            num_examples=len(self),
            class_names=self.class_names,
            features=dict(self.features),
            homepage=self._shards.paths[0],
        )

    def __len__(self) -> int:
        return int(self._shards.starts[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        data = self._shards.read(valid_index(index, self))
        try:
            return self.decode(data)
        except (DataError, ValueError) as error:
            raise DataError(f"{self.key(index)}: {error}") from None

    def fingerprint(self) -> str:
        """Changes with the arguments and with path, size or time of any file; no record is read."""
        return content(self, self._shards.paths)

    def key(self, index: int) -> str:
        return self._shards.place(index)


def convert(source: Source, folder: str, *, shards: int = 1) -> None:
    """Writes all records of ``source`` for ``ArrayRecord(folder)`` to read.

    ``info.json`` is written last: a folder without it was left half-way, is refused by
    ``ArrayRecord``, and may be written again. Features that start with ``_`` are kept too.

    Args:
      source: where the records come from.
      folder: to write to; made if it does not exist.
      shards: number of files, at least 1; each holds a contiguous run of records.

    Raises:
      DataError: the folder holds a converted source already, or a record is bad, or holds a value
        that has no place in the format.
    """
    if not 1 <= shards <= max(1, len(source)):
        raise ValueError(f"shards={shards}: must lie in 1..{len(source)}")
    if len(source) == 0:
        raise DataError(f"{source.info.name}: the source has no records")
    os.makedirs(folder, exist_ok=True)
    if os.path.exists(os.path.join(folder, INFO)):
        raise DataError(f"{folder}: holds a converted source already; take another folder")
    ends = [len(source) * (i + 1) // shards for i in range(shards)]
    names = [f"data-{i:05}-of-{shards:05}.array_record" for i in range(shards)]
    counts = [end - first for first, end in zip([0, *ends], ends, strict=False)]
    keys: list[str] = []
    for name, end in zip(names, ends, strict=True):
        path = os.path.join(folder, name)
        with replace_file(Path(path)) as temporary, _writer(str(temporary)) as write:
            for index in range(len(keys), end):
                key = source.key(index)
                try:
                    write(pack(source[index]))
                except DataError as error:
                    message = str(error) if key in str(error) else f"{key}: {error}"
                    raise DataError(f"{message}. Leave it out (Subset), or mend it") from error
                keys.append(key)
    lines = "".join(f"{json.dumps(key)}\n" for key in keys)
    files.write_whole(os.path.join(folder, KEYS), lines.encode())
    info = dataclasses.asdict(source.info)
    classes = info.pop("class_names")
    content = {
        "version": _VERSION,
        "shards": names,
        "records": counts,
        "info": info | {"num_examples": len(keys), "features": dict(source.info.features)},
        "classes": classes,
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    files.write_whole(os.path.join(folder, INFO), text.encode())


def pack(example: dict[str, Any]) -> bytes:
    """An example as MessagePack. Raises DataError for values other than the format's."""
    msgpack = _msgpack()

    try:
        return msgpack.packb(example, default=_packed, strict_types=True, use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"cannot be stored: {error}") from None


def unpack(data: bytes) -> dict[str, Any]:
    """Inverse of ``pack``; tuples come back as lists. Raises DataError for anything else."""
    msgpack = _msgpack()

    try:
        example = msgpack.unpackb(data, raw=False, ext_hook=_unpacked, strict_map_key=True)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise DataError(f"is no MessagePack record of ours: {error}") from None
    if not isinstance(example, dict):
        raise DataError(f"is a {type(example).__name__}, not a map of features")
    return example


def _packed(value: Any) -> Any:
    msgpack = _msgpack()

    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.kind not in _KINDS:
            raise TypeError(f"an array of {array.dtype}")
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        content = [array.dtype.str, list(array.shape), array.tobytes()]
        return msgpack.ExtType(_ARRAY, msgpack.packb(content))
    raise TypeError(f"a value of type {type(value).__name__}")


def _unpacked(code: int, data: bytes) -> Any:
    msgpack = _msgpack()

    if code != _ARRAY:
        raise ValueError(f"extension {code}")
    dtype, shape, content = msgpack.unpackb(data, raw=False)
    kind = np.dtype(dtype)
    if kind.kind not in _KINDS:  # np.dtype("O") would take the bytes for addresses
        raise ValueError(f"an array of {kind}")
    array = np.frombuffer(content, kind).reshape(shape)
    return array.copy() if array.ndim else array[()]


class _Shards:
    """Open readers, one per file, shared by threads (the library locks them)."""

    def __init__(self, records: dict[str, int | None]) -> None:
        self.paths = tuple(records)
        self._readers = []
        for path, expected in records.items():
            if files.is_remote(path):
                raise DataError(f"{path}: ArrayRecord reads local files only; copy it here")
            if not os.path.isfile(path):
                raise DataError(f"{path}: no such file")
            try:
                reader = _module().ArrayRecordReader(path)
                sound, count = reader.ok(), reader.num_records()
            except RuntimeError as error:
                raise DataError(f"{path}: is not a sound ArrayRecord file: {error}") from None
            if not sound:
                raise DataError(f"{path}: is not a sound ArrayRecord file; was it cut off?")
            if expected is not None and count != expected:
                raise DataError(f"{path}: {count} records, not the {expected} of {INFO}")
            self._readers.append(reader)
        self.starts = np.cumsum([0, *(reader.num_records() for reader in self._readers)])

    def place(self, index: int) -> str:
        file = int(np.searchsorted(self.starts, index, side="right")) - 1
        return f"{self.paths[file]}[{index - self.starts[file]}]"

    def read(self, index: int) -> bytes:
        file = int(np.searchsorted(self.starts, index, side="right")) - 1
        try:
            (data,) = self._readers[file].read([int(index - self.starts[file])])
        except RuntimeError as error:
            raise DataError(f"{self.place(index)}: is damaged: {error}") from None
        return data


@contextlib.contextmanager
def _writer(path: str) -> Any:
    try:
        # A group of one record: reading one record decompresses no other.
        writer = _module().ArrayRecordWriter(path, "group_size:1")
    except RuntimeError as error:
        raise DataError(f"{path}: cannot be written: {error}") from None
    try:
        yield writer.write
    except BaseException:
        writer.close()
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    writer.close()


def _module() -> Any:
    try:
        return importlib.import_module("array_record.python.array_record_module")
    except ImportError:
        raise DataError(f"ArrayRecord files need array_record: {pip_install('tfds')}") from None


def _msgpack() -> Any:
    try:
        return importlib.import_module("msgpack")
    except ImportError:
        raise DataError("converted sources need msgpack: pip install 'msgpack>=1'") from None
