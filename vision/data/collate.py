"""Examples to batches: stacking, the dtypes JAX would give, and errors that name the record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vision.data.ops.base import Example
from vision.data.source import DataError

Batch = dict[str, np.ndarray]

_NARROW = {
    np.dtype(np.float64): np.dtype(np.float32),
    np.dtype(np.int64): np.dtype(np.int32),
    np.dtype(np.uint64): np.dtype(np.uint32),
}


class PipelineError(DataError):
    """The source or the ops fail, not a single record: never masked."""


class BatchRows:
    """Puts examples into a batch one by one, each as soon as it is made.

    An example's memory is free for the next one while the processor still has it in its cache:
    stacking a list of them at the end costs a tenth of the time to decode and crop a JPEG.
    Features whose names start with ``_`` are dropped. float64 becomes float32, int64 int32 and
    uint64 uint32 (checked for overflow), as JAX would have it.

    Args:
      size: rows of the batch.
      source: the source's name, for errors.
      key: gives the name of the record in a row, for errors.
    """

    def __init__(self, size: int, source: str, key: Callable[[int], str]) -> None:
        self._source = source
        self._key = key
        self._first = -1
        self._batch: Batch = {}
        self._dtypes: dict[str, np.dtype] = {}
        self.valid = np.zeros(size, bool)

    def put(self, row: int, example: Example) -> None:
        """Copies ``example`` into ``row``.

        Raises:
          PipelineError: a feature is not numeric, or differs from the first example's in shape or
            dtype, or the ops gave something else than features; names feature and records.
        """
        if not isinstance(example, dict):
            kind = type(example).__name__
            raise PipelineError(f"{self._where(row)}: the ops gave {kind}, not a dict of features")
        if self._first < 0:
            self._start(row, example)
        count = 0
        for name, value in example.items():
            if name[:1] == "_":
                continue
            array = value if type(value) is np.ndarray else self._array(row, name, value)
            rows = self._batch.get(name)
            if rows is None:
                raise self._other_features(row, example)
            if array.shape != rows.shape[1:] or array.dtype != self._dtypes[name]:
                raise self._unlike(row, name, array)
            rows[row] = array
            count += 1
        if count != len(self._batch):
            raise self._other_features(row, example)
        self.valid[row] = True

    def batch(self, placeholder: Callable[[], Batch]) -> Batch:
        """The rows; zeros where none was put.

        Args:
          placeholder: gives zeros per feature, asked when no row was put.

        Raises:
          PipelineError: a 64-bit integer does not fit 32 bits; names feature and record.
        """
        if self._first < 0:
            return {k: np.stack([v] * len(self.valid)) for k, v in placeholder().items()}
        if not self.valid.all():
            for values in self._batch.values():
                values[~self.valid] = 0
        batch: Batch = {}
        for name, values in self._batch.items():
            if not _fits(values):
                row = next(i for i, value in enumerate(values) if not _fits(value))
                narrow(name, values[row], self._where(row))
            batch[name] = narrow(name, values, self._source)
        return batch

    def _start(self, row: int, example: Example) -> None:
        self._first = row
        for name, value in example.items():
            if name[:1] == "_":
                continue
            array = self._array(row, name, value)
            dtype = narrow_dtype(name, array, self._where(row))
            # Integers are checked for overflow all at once, in the end.
            dtype = array.dtype if array.dtype.kind in "iu" else dtype
            self._dtypes[name] = array.dtype
            self._batch[name] = np.empty((len(self.valid), *array.shape), dtype)

    def _array(self, row: int, name: str, value: Any) -> np.ndarray:
        try:
            return np.asarray(value)
        except ValueError as error:
            where = self._where(row)
            raise PipelineError(f"{where}: feature {name!r} is no array: {error}") from error

    def _where(self, row: int) -> str:
        return f"{self._source}: record {self._key(row)}"

    def _other_features(self, row: int, example: Example) -> PipelineError:
        differing = {name for name in example if name[:1] != "_"} ^ self._batch.keys()
        return PipelineError(
            f"{self._source}: records {self._key(self._first)} and {self._key(row)} differ in "
            f"features {sorted(differing)}; every record of a batch must have the same ones: "
            "use Keep or Drop"
        )

    def _unlike(self, row: int, name: str, value: np.ndarray) -> PipelineError:
        shape, dtype = self._batch[name].shape[1:], self._dtypes[name]
        return PipelineError(
            f"{self._source}: feature {name!r} is {dtype}{list(shape)} in record "
            f"{self._key(self._first)} but {value.dtype}{list(value.shape)} in record "
            f"{self._key(row)}; a batch needs one shape and dtype: resize, crop or pad it in ops"
        )


def narrow(name: str, value: np.ndarray, where: str) -> np.ndarray:
    """``value`` in the dtype JAX would give it; ``where`` names it in errors."""
    dtype = narrow_dtype(name, value, where)
    if not _fits(value):
        raise PipelineError(
            f"{where}: feature {name!r} holds {value.dtype} values outside {dtype}; convert it in "
            f"an op, or Drop(({name!r},))"
        )
    return value.astype(dtype, copy=False)


def narrow_dtype(name: str, value: np.ndarray, where: str) -> np.dtype:
    dtype = value.dtype
    # bfloat16 and the float8 types have kind "V" but numeric names.
    if dtype.kind in "biuf" or (dtype.kind == "V" and "float" in dtype.name):
        return _NARROW.get(dtype, dtype)
    fix = {"S": "Decode it", "U": "Tokenize it"}.get(dtype.kind, "make it a numeric array")
    raise PipelineError(
        f"{where}: feature {name!r} is {dtype}, which cannot be put on a device; add an op: "
        f"{fix}, or Drop(({name!r},))"
    )


def _fits(values: np.ndarray) -> bool:
    """Whether 64-bit integers have values that 32 bits hold; True for other dtypes."""
    if values.dtype not in (np.int64, np.uint64) or not values.size:
        return True
    limits = np.iinfo(_NARROW[values.dtype])
    return bool(values.min() >= limits.min and values.max() <= limits.max)
