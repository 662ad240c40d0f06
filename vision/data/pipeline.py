"""What to read and how: training data without end, evaluation data once.

Stream position ``i = b * B + r`` is row r of global batch b (B rows). Its record and its
randomness are functions of (seed, i) alone; process p of P serves the contiguous rows
[p B/P, (p+1) B/P). The global batch is therefore the same array whatever the number of
processes, workers or threads, and starting at batch 10^9 costs as much as starting at 0.

A host batch is a dict of numpy arrays, rows first, plus ``_mask`` (rows,) bool, False where a row
only fills up or its record was bad, and ``_index`` (rows,) int32, the record's position in its
source, -1 where there is none. float64, int64 and uint64 features are narrowed to 32 bits. Other
features whose names start with ``_`` stay on the host.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

from vision.config.ranges import NonNegative, Positive, checked
from vision.data.batches import BatchReader, Epochs, OnError, Order, SinglePass
from vision.data.loader import MAX_BATCHES, Loader, Reading
from vision.data.ops.base import DeviceOp, Op
from vision.data.samplers import Sampler, SourceSampler, bound, group_of
from vision.data.source import DataError, Source, SourceInfo
from vision.train.labels import LabelKind

__all__ = ["EvalData", "Loader", "TrainData"]


@dataclasses.dataclass(frozen=True)
@checked
class TrainData:
    """An endless stream of shuffled, augmented batches.

    A source that gathers many records at once (``__getitems__``) is read a whole batch at a time
    when there are no ``ops``; put the work into ``batch_ops`` then, and set ``threads=0``.

    Attributes:
      source: where records come from.
      batch_size: rows of the global batch, over all processes.
      ops: per example, on the host, in order.
      batch_ops: on whole batches, on the device, inside the compiled step.
      sampler: order of the records; None for ``Shuffle()``. One that looks at labels reads them
        once, before the first batch.
      on_error: ``raise`` stops at a bad record with its name; ``mask`` puts zeros with ``_mask``
        False in its place and reports it through ``Loader.take_bad``.
      threads: making batches side by side, per worker; 0 makes them when asked.
      workers: processes beside this one, for ops that hold Python's lock. They end with this
        one, however it ends; one that dies ends the run with its number and signal.
      prefetch_batches: made ahead, per worker; at least ``threads``, so that none idles.
      stall_s: a warning after this many seconds without a batch, and again after as many; it
        says what is being read. 0 for none.
      labels: what the loss takes as labels, by feature: other values are errors of their record.
        Filled in from the objective.
    """

    source: Source
    batch_size: Positive[int]
    ops: tuple[Op, ...] = ()
    batch_ops: tuple[DeviceOp, ...] = ()
    sampler: Sampler | SourceSampler | None = None
    on_error: OnError = "raise"
    threads: NonNegative[int] = 4
    workers: NonNegative[int] = 0
    prefetch_batches: NonNegative[int] = 4
    stall_s: NonNegative[float] = 60.0
    labels: Mapping[str, LabelKind] | None = None

    def __post_init__(self) -> None:
        check_ops(self.ops)
        check_group(self.batch_size, self.sampler)

    @property
    def info(self) -> SourceInfo:
        return self.source.info

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch, at least 1. Batches run on across epochs."""
        length = self._sampler.epoch_length(source_length(self.source))
        return max(1, length // self.batch_size)

    @functools.cached_property
    def _sampler(self) -> Sampler:
        return bound(self.sampler, self.source)

    @property
    def _reading(self) -> Reading:
        return Reading(self.threads, self.workers, self.prefetch_batches, self.stall_s)

    def loader(
        self, *, seed: int, first_batch: int = 0, process_index: int = 0, process_count: int = 1
    ) -> Loader:
        """Batches ``first_batch``, ``first_batch + 1``, ...: this process's rows of them.

        Args:
          seed: of order and augmentation, at least 0.
          first_batch: number of batches already consumed.
          process_index: this process, 0..process_count - 1.
          process_count: processes that share every batch; it must divide ``batch_size``.

        Raises:
          DataError: the source is empty or unreadable.
          ValueError: process_count does not divide batch_size.
        """
        check_start(seed, first_batch)
        order = Epochs(self._sampler, seed, source_length(self.source))
        reader = _reader(self, order, seed, process_index, process_count)
        return Loader(reader, reader.info_name, first_batch, MAX_BATCHES, self._reading)


@dataclasses.dataclass(frozen=True)
@checked
class EvalData:
    """Every record once, in order; the last batch is filled up with masked rows.

    All processes get the same number of batches. Attributes are as in ``TrainData``; random ops
    draw the same numbers every time.

    Attributes:
      source: of the records.
      batch_size: rows of the global batch, over all processes.
      ops, on_error, threads, prefetch_batches, stall_s: as in ``TrainData``.
    """

    source: Source
    batch_size: Positive[int]
    ops: tuple[Op, ...] = ()
    on_error: OnError = "raise"
    threads: NonNegative[int] = 4
    prefetch_batches: NonNegative[int] = 4
    stall_s: NonNegative[float] = 60.0

    def __post_init__(self) -> None:
        check_ops(self.ops)

    @property
    def info(self) -> SourceInfo:
        return self.source.info

    @property
    def num_batches(self) -> int:
        return -(-source_length(self.source) // self.batch_size)

    @property
    def _reading(self) -> Reading:
        return Reading(self.threads, 0, self.prefetch_batches, self.stall_s)

    def loader(self, *, process_index: int = 0, process_count: int = 1) -> Loader:
        """This process's rows of every batch; arguments and errors as in ``TrainData.loader``."""
        order = SinglePass(source_length(self.source))
        reader = _reader(self, order, 0, process_index, process_count)
        return Loader(reader, reader.info_name, 0, self.num_batches, self._reading)


def _reader(
    data: TrainData | EvalData, order: Order, seed: int, process_index: int, process_count: int
) -> BatchReader:
    rows = rows_per_process(data.batch_size, process_index, process_count)
    training = isinstance(data, TrainData)
    reader = BatchReader(
        source=data.source,
        ops=data.ops,
        order=order,
        seed=seed,
        batch_size=data.batch_size,
        first_row=process_index * rows,
        rows=rows,
        on_error=data.on_error,
        num_classes=target_classes(data.batch_ops) if training else 0,
        labels=(data.labels or {}) if training else {},
    )
    reader.check()
    return reader


def target_classes(batch_ops: tuple[DeviceOp, ...]) -> int:
    """The fewest classes that one of the ops makes targets of (``num_classes``); 0 for none."""
    counts = [getattr(op, "num_classes", 0) for op in batch_ops]
    return min((count for count in counts if count), default=0)


def rows_per_process(batch_size: int, process_index: int, process_count: int) -> int:
    """How many rows of every batch a process serves, after checking that it can."""
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index={process_index}: must lie in 0..{process_count - 1}")
    if batch_size % process_count:
        raise ValueError(
            f"batch_size={batch_size} is not divisible by the {process_count} processes that "
            f"share it; set it to a multiple of {process_count}"
        )
    return batch_size // process_count


def source_length(source: Source) -> int:
    """Records of a source that can be read from."""
    if len(source) == 0:
        raise DataError(f"{source.info.name}: the source has no records")
    if len(source) >= 2**31:
        raise DataError(
            f"{source.info.name}: {len(source)} records, but ``_index`` has 32 bits; split it"
        )
    return len(source)


def check_start(seed: int, first_batch: int) -> None:
    if seed < 0 or first_batch < 0:
        raise ValueError(f"seed={seed}, first_batch={first_batch}: must not be negative")


def check_ops(ops: tuple[Op, ...]) -> None:
    for op in ops:
        if not callable(op):
            raise ValueError(f"ops: {op!r} is not an op; ops are called as op(example, rng)")


def check_group(batch_size: int, sampler: Sampler | SourceSampler | None) -> None:
    if batch_size % group_of(sampler):
        raise ValueError(
            f"batch_size={batch_size} would tear apart the groups of {group_of(sampler)} rows that "
            f"{type(sampler).__name__} makes; set it to a multiple of {group_of(sampler)}"
        )
