"""From positions in a stream to host batches: reading, ops, collating, and bad records.

Everything here is a pure function of the batch's number, so that any thread or process may make
any batch.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import numpy as np

from vision.data.collate import Batch, BatchRows, PipelineError, narrow
from vision.data.ops.base import Example, Op
from vision.data.samplers import Sampler
from vision.data.source import DataError, Source
from vision.train.labels import LabelKind

OnError = Literal["raise", "mask"]

# How many records may be unreadable from the start before "mask" gives up.
ALL_BAD = 100
BAD = "_bad"
_BLOCK = 4096
_KEPT_BLOCKS = 16


@dataclasses.dataclass(frozen=True)
class BadRecord:
    """A record that was replaced by a masked placeholder.

    Attributes:
      source: the source's name.
      key: the record's name in it.
      index: the record's position in the source.
      position: where in the stream it was met.
      reason: why it could not be used.
    """

    source: str
    key: str
    index: int
    position: int
    reason: str


class Order(Protocol):
    """Maps ascending stream positions int64 (n,) to records int64 (n,), -1 where there is none."""

    def __call__(self, positions: np.ndarray) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Epochs:
    """Epoch after epoch as ``sampler`` says.

    A sampler is asked for a block of an epoch at a time and the newest blocks are kept, because a
    call costs about the same for one position and for a thousand.

    Attributes:
      sampler: gives the order of every epoch.
      seed: of the order.
      num_examples: of the source.
    """

    sampler: Sampler
    seed: int
    num_examples: int

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        epochs, offsets = np.divmod(positions, self._length)
        blocks, within = np.divmod(offsets, _BLOCK)
        blocks += epochs * self._blocks
        if blocks[0] == blocks[-1]:  # positions ascend
            return self._block(int(blocks[0]))[within]
        indices = np.empty_like(positions)
        for block in np.unique(blocks).tolist():
            in_block = blocks == block
            indices[in_block] = self._block(block)[within[in_block]]
        return indices

    def _block(self, number: int) -> np.ndarray:
        cache = self._kept
        block = cache.get(number)
        if block is None:
            epoch, start = number // self._blocks, number % self._blocks * _BLOCK
            positions = np.arange(start, min(start + _BLOCK, self._length), dtype=np.int64)
            block = self.sampler(self.seed, epoch, positions, self.num_examples)
            if len(cache) >= _KEPT_BLOCKS:  # threads may do this at once: they lose only time
                cache.clear()
            cache[number] = block
        return block

    @functools.cached_property
    def _length(self) -> int:
        return self.sampler.epoch_length(self.num_examples)

    @functools.cached_property
    def _blocks(self) -> int:
        return -(-self._length // _BLOCK)

    @functools.cached_property
    def _kept(self) -> dict[int, np.ndarray]:
        return {}


@dataclasses.dataclass(frozen=True)
class SinglePass:
    """Every record once, in order, then -1.

    Attributes:
      num_examples: of the source.
    """

    num_examples: int

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        return np.where(positions < self.num_examples, positions, -1)


class ExampleRng:
    """The generator of each stream position: Philox with the key (seed, position).

    One generator is reset instead of made anew, which is several times faster; the numbers are
    those of ``Generator(Philox(key=[seed, position]))``.
    """

    def __init__(self, seed: int) -> None:
        self._philox = np.random.Philox(key=0)
        self._generator = np.random.Generator(self._philox)
        self._key = [seed, 0]
        # Lists of Python's numbers are read several times faster than arrays.
        state: Any = self._philox.state
        inner = {"counter": state["state"]["counter"].tolist(), "key": self._key}
        self._state: Any = {**state, "state": inner, "buffer": state["buffer"].tolist()}

    def at(self, position: int) -> np.random.Generator:
        """Valid until the next call."""
        self._key[1] = position
        self._philox.state = self._state
        return self._generator


@dataclasses.dataclass(frozen=True, repr=False)
class BatchReader:
    """Makes this process's rows of a global batch from the batch's number.

    Attributes:
      source: where records come from.
      ops: applied to each record, in order.
      order: which record is at which stream position.
      seed: of the ops' randomness.
      batch_size: rows of the global batch; position ``b * batch_size + r`` is row r of batch b.
      first_row: the first row that is made here.
      rows: how many rows are made here.
      on_error: ``raise``, or ``mask``: zeros with ``_mask`` False in place of a bad record.
      num_classes: integers under ``label`` lie in -1..num_classes - 1, -1 for none; 0 takes the
        number of the source's class names, if it has any.
      labels: what the loss takes as labels, by feature; checked after the ops.
    """

    source: Source
    ops: tuple[Op, ...]
    order: Order
    seed: int
    batch_size: int
    first_row: int
    rows: int
    on_error: OnError
    num_classes: int = 0
    labels: Mapping[str, LabelKind] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:  # Grain prints it: not the source's arrays
        return f"BatchReader({self.info_name})"

    def __call__(self, number: int) -> dict[str, Any]:
        """The batch, with the list of its bad records under ``_bad`` if there are any.

        Raises:
          DataError: naming the record at fault.
        """
        first = int(number) * self.batch_size + self.first_row
        positions = first + np.arange(self.rows, dtype=np.int64)
        return self.read(positions, self.order(positions))

    def read(self, positions: np.ndarray, indices: np.ndarray) -> dict[str, Any]:
        """Records int64 (n,) for stream positions int64 (n,), as a batch of n rows."""
        gather = getattr(self.source, "__getitems__", None)
        if gather is not None and not self.ops and (indices >= 0).any():
            try:
                return self._gather(gather, indices)
            except DataError:
                pass  # one of the records: read them one by one to tell which
        return self._read(positions, indices)

    def _gather(self, gather: Callable[[np.ndarray], Batch], indices: np.ndarray) -> Batch:
        valid = indices >= 0
        batch: Batch = {}
        rows = gather(indices[valid])
        self._check_kinds(rows, stacked=True)
        for name, values in rows.items():
            if name.startswith("_"):
                continue
            if name == "label" and np.ndim(values) == 1:
                self._check_labels(np.asarray(values))
            values = narrow(name, np.asarray(values), self.info_name)
            if valid.all():
                batch[name] = values
            else:
                batch[name] = np.zeros((len(indices), *values.shape[1:]), values.dtype)
                batch[name][valid] = values
        return _finished(batch, valid, indices)

    def _read(self, positions: np.ndarray, indices: np.ndarray) -> dict[str, Any]:
        rng = ExampleRng(self.seed)
        rows = BatchRows(
            len(indices), self.info_name, lambda row: self.source.key(int(indices[row]))
        )
        bad: list[BadRecord] = []
        order = zip(positions.tolist(), indices.tolist(), strict=True)
        for row, (position, index) in enumerate(order):
            if index < 0:
                continue
            try:
                example = self.example(index, rng.at(position))
            except PipelineError:
                raise
            except DataError as error:
                if self.on_error == "raise":
                    raise self._refusal(index, error) from error
                key = self.source.key(index)
                bad.append(BadRecord(self.info_name, key, index, position, str(error)))
            else:
                rows.put(row, example)
                del example  # its memory is the next one's
        if bad:
            _ = self.placeholder  # raises when nothing in the source is readable
        self.reading.pop(threading.get_ident(), None)
        batch = rows.batch(lambda: self.placeholder)
        return _finished(batch, rows.valid, indices) | ({BAD: tuple(bad)} if bad else {})

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """Record ``index`` after the ops.

        Raises:
          DataError: the record is bad.
          PipelineError: the source or an op failed in a way that is not the record's fault.
        """
        step: Any = type(self.source).__name__
        self.reading[threading.get_ident()] = (index, time.monotonic())
        try:
            example = self.source[index]
            if np.ndim(label := example.get("label", 0)) == 0:
                self._check_labels(np.asarray(label))
            for step in self.ops:
                example = step(example, rng)
            self._check_kinds(example)
        except DataError:
            raise
        except MemoryError as error:
            raise DataError(f"{step} ran out of memory: {error}") from error
        except Exception as error:
            raise PipelineError(
                f"{self.info_name}: record {self.source.key(index)}: {step} failed: "
                f"{type(error).__name__}: {error}"
            ) from error
        return example

    def _check_labels(self, labels: np.ndarray) -> None:
        """Raises DataError for class numbers, () or (n,), that no class has."""
        if not self._num_classes or labels.dtype.kind not in "iu":
            return
        wrong = labels[(labels < -1) | (labels >= self._num_classes)]
        if wrong.size:
            raise DataError(
                f"label {wrong.flat[0]} is no class: there are {self._num_classes}, 0.."
                f"{self._num_classes - 1}, and -1 for none"
            )

    def _check_kinds(self, example: Mapping[str, Any], stacked: bool = False) -> None:
        """Raises DataError for labels that the loss does not take, of a record or of several."""
        for feature, kind in self.labels.items():
            if feature in example:
                values = np.asarray(example[feature])
                known = f"{feature}_known" in example
                if problem := kind.problem(values if stacked else values[None], known):
                    raise DataError(f"{feature} {problem}")

    def check(self) -> None:
        """Raises DataError where the source has more classes than an op that makes targets.

        A source of some classes may name them all: labels beyond the model's are refused one by
        one.
        """
        known = len(self.source.info.class_names)
        if 0 < self.num_classes < known:
            raise DataError(
                f"{self.info_name} has {known} classes, but an op of batch_ops makes targets of "
                f"{self.num_classes}: set its num_classes to {known}, or leave classes out of the "
                "data"
            )

    @functools.cached_property
    def _num_classes(self) -> int:
        return len(self.source.info.class_names) or self.num_classes

    @functools.cached_property
    def info_name(self) -> str:
        return self.source.info.name

    @functools.cached_property
    def reading(self) -> dict[int, tuple[int, float]]:
        """Thread to the record it is making now, and since when (monotonic seconds)."""
        return {}

    def busy(self) -> list[str]:
        """What this process's threads are making now, in words."""
        now = time.monotonic()
        return [
            f"record {self.source.key(index)} since {now - since:.0f} s"
            for index, since in list(self.reading.values())
        ]

    @functools.cached_property
    def placeholder(self) -> Batch:
        """Zeros in the shape of the first readable record, without the batch axis."""
        count = min(len(self.source), ALL_BAD if self.on_error == "mask" else 1)
        reason = ""
        for index in range(count):
            try:
                example = self.example(index, ExampleRng(self.seed).at(index))
            except PipelineError:
                raise
            except DataError as error:
                if self.on_error == "raise":
                    raise self._refusal(index, error) from error
                reason = str(error)
                continue
            rows = BatchRows(1, self.info_name, lambda _, index=index: self.source.key(index))
            rows.put(0, example)
            return {name: np.zeros_like(v[0]) for name, v in rows.batch(dict).items()}
        raise PipelineError(
            f"{self.info_name}: none of the first {count} records is readable, so on_error='mask' "
            f"would train on nothing; {self.source.key(count - 1)}: {reason}"
        )

    def _refusal(self, index: int, error: DataError) -> DataError:
        key, reason = self.source.key(index), str(error)
        message = reason if key in reason else f"record {key}: {reason}"
        return DataError(
            f"{self.info_name}: {message}. Mend or remove it, or set on_error='mask' to go on with "
            "a masked placeholder"
        )


def _finished(batch: Batch, valid: np.ndarray, indices: np.ndarray) -> Batch:
    return batch | {"_mask": valid, "_index": indices.astype(np.int32)}
