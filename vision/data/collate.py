"""Examples to batches: stacking, the dtypes JAX would give, and errors that name the record."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    """The source, an op, or how the ops fit together is at fault, not a record: never masked."""


def collate(
    rows: Sequence[Example | None],
    keys: Sequence[str],
    source: str,
    placeholder: Callable[[], Batch],
) -> Batch:
    """Stacks examples; ``None`` becomes zeros.

    Features whose names start with ``_`` are dropped. float64 becomes float32, int64 int32 and
    uint64 uint32 (checked for overflow), as JAX would have it.

    Args:
      rows: examples, all with the same features, shapes and dtypes.
      keys: the records' names, for errors.
      source: the source's name, for errors.
      placeholder: gives zeros per feature, asked when no row is an example.

    Raises:
      PipelineError: a feature is not numeric, or the rows differ; names feature and records.
    """
    first = next((i for i, row in enumerate(rows) if row is not None), None)
    if first is None:
        return {k: np.stack([v] * len(rows)) for k, v in placeholder().items()}
    arrays = [
        None if row is None else _public(row, f"{source}: record {key}")
        for row, key in zip(rows, keys, strict=True)
    ]
    model = arrays[first]
    assert model is not None
    where = f"{source}: record {keys[first]}"
    make = np.zeros if any(row is None for row in rows) else np.empty
    batch: Batch = {}
    for name, value in model.items():
        batch[name] = make((len(rows), *value.shape), narrow_dtype(name, value, where))
    for i, row in enumerate(arrays):
        if row is None:
            continue
        _check_alike(row, keys[i], model, keys[first], source)
        for name, value in row.items():
            narrow_check(name, value, f"{source}: record {keys[i]}")
            batch[name][i] = value
    return batch


def narrow(name: str, value: np.ndarray, where: str) -> np.ndarray:
    """``value`` in the dtype JAX would give it; ``where`` names it in errors."""
    narrow_check(name, value, where)
    return value.astype(narrow_dtype(name, value, where), copy=False)


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


def narrow_check(name: str, value: np.ndarray, where: str) -> None:
    if value.dtype not in (np.int64, np.uint64) or not value.size:
        return
    limits = np.iinfo(_NARROW[value.dtype])
    if value.min() < limits.min or value.max() > limits.max:
        raise PipelineError(
            f"{where}: feature {name!r} holds {value.dtype} values outside {limits.dtype}; "
            f"convert it in an op, or Drop(({name!r},))"
        )


def _public(row: Example, where: str) -> Batch:
    arrays: Batch = {}
    for name, value in row.items():
        if name.startswith("_"):
            continue
        try:
            arrays[name] = np.asarray(value)
        except ValueError as error:
            raise PipelineError(f"{where}: feature {name!r} is no array: {error}") from error
    return arrays


def _check_alike(row: Batch, key: str, model: Batch, model_key: str, source: str) -> None:
    if row.keys() != model.keys():
        odd = sorted(row.keys() ^ model.keys())
        raise PipelineError(
            f"{source}: records {model_key} and {key} differ in features {odd}; every record of a "
            "batch must have the same ones: use Keep or Drop"
        )
    for name, value in row.items():
        other = model[name]
        if value.shape != other.shape or value.dtype != other.dtype:
            raise PipelineError(
                f"{source}: feature {name!r} is {other.dtype}{list(other.shape)} in record "
                f"{model_key} but {value.dtype}{list(value.shape)} in record {key}; a batch "
                "needs one shape and dtype: resize, crop or pad it in ops"
            )
