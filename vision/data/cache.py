"""Records after deterministic ops, kept: on disk for large sets, in memory for small ones.

Both are sources themselves: ``TrainData(DiskCache(Folder(...), ops=(Decode(), Resize(256))), ...)``
decodes every image once and then reads pixels. The ops must not draw random numbers, and what they
give must have one shape and dtype in all records.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import logging
import os
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vision.config.files import replace_file
from vision.config.ranges import Positive, checked
from vision.data.fingerprint import fingerprint, ops_identity
from vision.data.ops.base import Example, Op
from vision.data.source import DataError, Source, SourceInfo
from vision.data.table import fields_only

log = logging.getLogger(__name__)

_ENTRY = np.dtype([("crc", "<u4"), ("written", "<u4")])
_WRITTEN = 0x52454331
T = TypeVar("T")


class _NoRandomness:
    """What cached ops get for a generator."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError(
            f"it draws random numbers (rng.{name}), but the ops of a cache must be deterministic; "
            "move it to the ops of the data"
        )


class _Cached:
    """What both caches have from their source, and how each loads its own content once."""

    source: Source
    ops: tuple[Op, ...]

    def __post_init__(self) -> None:
        for op in self.ops:
            if not dataclasses.is_dataclass(op) or not callable(op) or " at 0x" in repr(op):
                raise ValueError(
                    f"ops: {op!r}: a cache is named by its ops, so they must be frozen dataclasses "
                    "whose arguments print as values"
                )

    @property
    def info(self) -> SourceInfo:
        return self.source.info

    def __len__(self) -> int:
        return len(self.source)

    def key(self, index: int) -> str:
        return self.source.key(index)

    def _once(self, make: Callable[[], T]) -> T:
        """What ``make`` gave on the first call, by whichever thread."""
        value = self.__dict__.get("_made")
        if value is None:
            # A lock of its own: the source, read while this one loads, may be a cache as well.
            with self.__dict__.setdefault("_making", threading.Lock()):
                value = self.__dict__.get("_made") or make()
                self.__dict__["_made"] = value
        return value


@dataclasses.dataclass(frozen=True)
class DiskCache(_Cached):
    """A source whose records pass through ``ops`` once and are then read from one file.

    The file fills while records are asked for, by any number of threads and processes at once.
    Each record has a checksum that is written after it, so that a record which was being written
    when a process was killed, or the machine stopped, is made again. The folder is named by a hash
    of the source's content, the ops with their arguments and code, and the versions of the
    decoders: a change of any of them starts a new one beside it. Old ones may be deleted.

    A source's content is told by its ``fingerprint() -> str`` where it has one; otherwise every
    record is read and hashed, once per process. Features whose names start with ``_`` (what the
    ops drew) are not kept.

    Attributes:
      source: where records come from.
      ops: deterministic ops: frozen dataclasses.
      root: folder of caches; made if missing.

    Raises, on reading:
      DataError: what the source or an op says of a bad record, every time; it is not cached.
      ValueError: an op is random, or the records differ in shape or dtype.
    """

    source: Source
    ops: tuple[Op, ...]
    root: str

    @functools.cached_property
    def path(self) -> Path:
        """The folder of this very content."""
        return Path(self.root).expanduser() / f"{_slug(self.source.info.name)}-{self._identity}"

    def fingerprint(self) -> str:
        return self._identity

    def __getitem__(self, index: int) -> Example:
        return self._file.unpack(self._record(index))

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        chosen = np.asarray(indices, np.int64)
        records = self._file.read_all(chosen)
        if records is None:
            records = np.stack([self._record(index) for index in chosen.tolist()])
        return self._file.unpack(records)

    def _record(self, index: int) -> np.ndarray:
        record = self._file.read(index)
        if record is None:
            example = _make(self.source, self.ops, index)
            record = self._file.write(index, example, self.source.key(index))
        return record

    @functools.cached_property
    def _identity(self) -> str:
        digest = hashlib.sha256(ops_identity(self.ops).encode())
        digest.update(fingerprint(self.source).encode())
        return digest.hexdigest()[:24]

    @property
    def _file(self) -> _CacheFile:
        return self._once(self._open)

    def _open(self) -> _CacheFile:
        self.path.mkdir(parents=True, exist_ok=True)
        layout = self.path / "layout.json"
        if not layout.exists():
            index, example = _first(self.source, self.ops)
            features = {k: (v.dtype.str, v.shape) for k, v in example.items()}
            _publish(
                layout,
                {
                    "source": self.source.info.name,
                    "records": len(self),
                    "ops": [repr(op) for op in self.ops],
                    "model": self.source.key(index),
                    "features": features,
                },
            )
        return _CacheFile(self.path, len(self), json.loads(layout.read_text()))

    def __getstate__(self) -> dict[str, Any]:  # a memory map would travel as all its bytes
        return fields_only(self) | {
            "_identity": self._identity
        }  # workers need not hash the source again


class _CacheFile:
    """``records.bin``: fixed-size records; ``written.bin``: a checksum for each that is there."""

    def __init__(self, path: Path, count: int, layout: dict[str, Any]) -> None:
        self._count = count
        self._model: str = layout["model"]
        self._type = np.dtype(
            [(name, dtype, tuple(shape)) for name, (dtype, shape) in layout["features"].items()]
        )
        self._records = _file_of_size(path / "records.bin", count * self._type.itemsize)
        self._written = _file_of_size(path / "written.bin", count * _ENTRY.itemsize)
        size = max(1, self._type.itemsize)
        self._map = np.memmap(path / "records.bin", np.uint8, "r", shape=(count, size))
        self._entries = np.memmap(path / "written.bin", _ENTRY, "r", shape=(count,))
        self._checked = np.zeros(count, bool)

    def read(self, index: int) -> np.ndarray | None:
        """The bytes of a record, uint8 (size,), or None if it is not there in full."""
        record = self._map[index]
        if self._checked[index]:
            return record
        entry = self._entries[index]
        if entry["written"] != _WRITTEN or entry["crc"] != zlib.crc32(record):
            return None
        self._checked[index] = True
        return record

    def read_all(self, indices: np.ndarray) -> np.ndarray | None:
        """The bytes of many records, uint8 (n, size), if all were read before."""
        return self._map[indices] if self._checked[indices].all() else None

    def write(self, index: int, example: dict[str, np.ndarray], key: str) -> np.ndarray:
        record = np.zeros((), self._type)
        features = {name: (value.dtype.str, value.shape) for name, value in example.items()}
        expected = {
            n: (self._type[n].base.str, self._type[n].shape) for n in self._type.names or ()
        }
        if features != expected:
            raise ValueError(
                f"record {key} is {features}, but {self._model} is {expected}; a cache needs one "
                "shape and dtype: resize, crop or pad in its ops, or Keep what is alike"
            )
        for name, value in example.items():
            record[name] = value
        data = record.tobytes()
        # Every writer writes the same bytes, so that two at once do no harm; the checksum comes
        # last and tells whether all of them arrived.
        _write(self._records, data, index * len(data))
        entry = np.array((zlib.crc32(data), _WRITTEN), _ENTRY).tobytes()
        _write(self._written, entry, index * len(entry))
        return np.frombuffer(data, np.uint8)

    def unpack(self, data: np.ndarray) -> dict[str, np.ndarray]:
        """Bytes (..., size) to features (..., *shape), copied."""
        records = np.ascontiguousarray(data).view(self._type)[..., 0]
        return {name: np.array(records[name]) for name in self._type.names or ()}

    def __del__(self) -> None:
        for name in ("_records", "_written"):
            if name in self.__dict__:
                os.close(self.__dict__.pop(name))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
@checked
class InMemory(_Cached):
    """A small source, read through ``ops`` once and kept as arrays.

    Whole batches are gathered at once where the pipeline has no ops per example. Bad records are
    left out of the arrays and raise whenever they are asked for.

    Attributes:
      source: where records come from.
      ops: deterministic ops: frozen dataclasses.
      threads: reading side by side, at first use.

    Raises, on first use:
      DataError: no record is readable.
      ValueError: an op is random, or the records differ in shape or dtype.
    """

    source: Source
    ops: tuple[Op, ...] = ()
    threads: Positive[int] = 4

    def __repr__(self) -> str:
        return f"InMemory({self.source!r}, {len(self.ops)} ops)"

    def fingerprint(self) -> str:
        return ops_identity(self.ops) + fingerprint(self.source)

    def __getitem__(self, index: int) -> Example:
        arrays, bad = self._loaded
        if index in bad:
            raise DataError(bad[index])
        return {name: np.array(values[index]) for name, values in arrays.items()}

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        arrays, bad = self._loaded
        chosen = np.asarray(indices, np.int64)
        for index in bad and chosen.tolist():
            if index in bad:
                raise DataError(bad[index])
        return {name: values[chosen] for name, values in arrays.items()}

    @property
    def _loaded(self) -> tuple[dict[str, np.ndarray], dict[int, str]]:
        return self._once(self._load)

    def _load(self) -> tuple[dict[str, np.ndarray], dict[int, str]]:
        first_index, reference = _first(self.source, self.ops)
        arrays = {k: np.zeros((len(self), *v.shape), v.dtype) for k, v in reference.items()}
        bad: dict[int, str] = {}

        def load(index: int) -> None:
            try:
                example = _make(self.source, self.ops, index)
            except DataError as error:
                bad[index] = str(error)
                return
            layout = {k: (v.dtype, v.shape) for k, v in example.items()}
            if layout != {k: (v.dtype, v.shape) for k, v in reference.items()}:
                raise ValueError(
                    f"record {self.key(index)} differs in features, shape or dtype from "
                    f"{self.key(first_index)}; resize, crop or pad in the ops of InMemory"
                )
            for name, value in example.items():
                arrays[name][index] = value

        with concurrent.futures.ThreadPoolExecutor(self.threads) as pool:
            for _ in pool.map(load, range(len(self))):
                pass
        if bad:
            log.warning("%s: %d bad records, not kept", self.info.name, len(bad))
        return arrays, bad

    def __getstate__(self) -> dict[str, Any]:
        return fields_only(self)


def _make(source: Source, ops: tuple[Op, ...], index: int) -> dict[str, np.ndarray]:
    example = source[index]
    step: Any = type(source).__name__
    try:
        for step in ops:
            example = step(example, _NoRandomness())  # pyright: ignore[reportArgumentType]
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{source.key(index)}: {step} ran out of memory: {error}") from error
    except Exception as error:
        raise ValueError(f"record {source.key(index)}: {step}: {error}") from error
    arrays = {k: np.asarray(v) for k, v in example.items() if not k.startswith("_")}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise ValueError(
                f"record {source.key(index)}: feature {name!r} is {array.dtype}; a cache keeps "
                f"numbers: decode it in its ops, or Drop(({name!r},))"
            )
    return arrays


def _first(source: Source, ops: tuple[Op, ...]) -> tuple[int, dict[str, np.ndarray]]:
    """The first readable record, and its number."""
    reason = "the source has no records"
    for index in range(len(source)):
        try:
            return index, _make(source, ops, index)
        except DataError as error:
            reason = str(error)
    raise DataError(f"{source.info.name}: no record is readable; {reason}")


def _file_of_size(path: Path, size: int) -> int:
    """A descriptor of a file that is at least one byte and, where nothing is written, sparse."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if os.fstat(descriptor).st_size < max(size, 1):
        os.ftruncate(descriptor, max(size, 1))
    return descriptor


def _write(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        done = os.pwrite(descriptor, data, offset)
        data, offset = data[done:], offset + done


def _publish(path: Path, content: dict[str, Any]) -> None:
    """Writes a file so that it is there in full or not at all."""
    with replace_file(path, unique=True) as draft:
        draft.write_text(json.dumps(content, indent=2) + "\n")


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".") or "source"
