"""Outputs of ``predict`` for data and for texts as numpy arrays, shared by evaluators."""

from __future__ import annotations

import collections
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from vision.data.pipeline import EvalData as Read
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.data.tokenize import Tokenizer
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.train.objective import Batch, Variables

IMAGE, TEXT = "image/embedding", "text/embedding"

Rows = dict[str, np.ndarray]


def embed(
    predict: Predict,
    ctx: EvalContext,
    data: EvaluationData,
    outputs: tuple[str, ...],
    fields: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
) -> Rows:
    """Reads ``data`` once and returns outputs of ``predict`` for its records as numpy arrays.

    Every process gets all records. Masked rows are left out. What ``ctx.store`` has is not read
    again; its arrays are read-only.

    Args:
      outputs: names that ``predict`` has to give.
      fields: names of the batch to keep beside them.
      optional: names of the batch to keep where there are any.

    Returns:
      Name to array [N, ...], in the order of the records; ``_index`` is their place in the source.

    Raises:
      DataError: no records.
      ValueError: a name that the batches or ``predict`` lack.
    """

    def read(required: tuple[str, ...], optional: tuple[str, ...]) -> Rows:
        from_predict = tuple(name for name in required if name in outputs)
        from_batch = tuple(name for name in required if name not in outputs)
        return _read(predict, ctx, data, from_predict, from_batch, optional)

    if ctx.store is None:
        return read((*outputs, *fields), optional)
    return ctx.store.rows(predict, data, (*outputs, *fields), optional, read)


def _read(
    predict: Predict,
    ctx: EvalContext,
    data: EvaluationData,
    outputs: tuple[str, ...],
    fields: tuple[str, ...],
    optional: tuple[str, ...],
) -> Rows:
    parts: list[Rows] = []
    in_flight: collections.deque[dict[str, jax.Array]] = collections.deque()

    def fetch() -> None:
        rows = jax.device_get(in_flight.popleft())
        valid = rows.pop("_mask").astype(bool)
        parts.append({name: x[valid] for name, x in rows.items()})

    for batch in ctx.batches(data):
        if missing := [name for name in fields if name not in batch]:
            raise ValueError(
                f"a batch of {data.source.info.name} has no {missing[0]!r}; it has "
                f"{', '.join(sorted(batch))}"
            )
        batch_names = ("_mask", "_index", *fields, *(name for name in optional if name in batch))
        program = _program(predict, outputs, batch_names, _replicated(batch["_mask"]))
        in_flight.append(program(ctx.variables, batch))
        if len(in_flight) > 2:
            fetch()
    while in_flight:
        fetch()
    if not any(len(part["_index"]) for part in parts):
        raise DataError(f"{data.source.info.name}: no records to evaluate")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def embed_texts(
    predict: Predict, ctx: EvalContext, tokenizer: Tokenizer, texts: Sequence[str], batch_size: int
) -> np.ndarray:
    """Embeddings (M, D) of texts, ``batch_size`` at a time, as float32."""
    ids = Arrays({"text": np.asarray(tokenizer.encode(texts), np.int32)}, "texts")
    data = Read(ids, batch_size=batch_size, threads=0)
    embeddings = embed(predict, ctx, data, (TEXT,))[TEXT]
    if embeddings.ndim != 2:
        raise ValueError(
            f"predict gives {TEXT} {embeddings.shape} of one text per row; it must be 2-D"
        )
    return embeddings


def finite(x: np.ndarray) -> np.ndarray:
    """Of embeddings (..., D): bool (...), without NaN and infinity."""
    return np.asarray(np.isfinite(x).all(-1))


def normalised(x: np.ndarray) -> np.ndarray:
    """Unit vectors along the last axis; NaN for zero vectors."""
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.divide(x, length, out=np.full_like(x, np.nan), where=length > 0)


def check_sizes(image: np.ndarray, text: np.ndarray) -> None:
    """Raises ValueError where image and text embeddings have other dimensions."""
    if image.ndim != 2 or image.shape[-1] != text.shape[-1]:
        raise ValueError(
            f"predict gives {IMAGE} {image.shape} and {TEXT} {text.shape}: both need the same "
            "last dimension, and the image's one vector per image; give the towers one width"
        )


def fetched(x: Any) -> np.ndarray:
    """A parameter on the host of every process, however it is split."""
    if isinstance(x, jax.Array) and isinstance(x.sharding, NamedSharding):
        x = jax.jit(lambda x: x, out_shardings=_replicated(x))(x)
    return np.asarray(jax.device_get(x))


def spread(count: int, total: int) -> np.ndarray:
    """``count`` places, or all, evenly over 0..total - 1."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int64))


def _replicated(x: jax.Array) -> Any:
    """Replicated on the devices that hold ``x``, so that every process can read the result."""
    if isinstance(x.sharding, NamedSharding):
        return NamedSharding(x.sharding.mesh, PartitionSpec())
    return x.sharding


@functools.lru_cache(maxsize=32)
def _program(
    predict: Predict, outputs: tuple[str, ...], keep: tuple[str, ...], sharding: Any
) -> Any:
    def program(variables: Variables, batch: Batch) -> Mapping[str, jax.Array]:
        predicted = predict(variables, batch)
        if missing := [name for name in outputs if name not in predicted]:
            raise ValueError(
                f"this evaluator needs {missing[0]!r} from the objective's predict; it gives "
                f"{', '.join(sorted(predicted)) or 'nothing'}"
            )
        return {name: predicted[name].astype(np.float32) for name in outputs} | {
            name: batch[name] for name in keep
        }

    return jax.jit(program, out_shardings=sharding)
