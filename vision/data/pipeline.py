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
import weakref
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from vision.data.batches import BAD, BadRecord, Batch, BatchReader, Endless, Once, OnError
from vision.data.ops.base import BatchOp, Op
from vision.data.samplers import Sampler, Shuffle
from vision.data.source import DataError, Source, SourceInfo

# More batches than any run has, few enough that stream positions fit 64 bits.
_ENDLESS = 2**40


class Loader:
    """Iterates over host batches. Close it (or use ``with``) to stop its threads and workers."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self._bad: list[BadRecord] = []
        self._exhausted = False
        # Also when the loader is forgotten, and before the interpreter takes modules apart.
        self._close = weakref.finalize(self, batches.close)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._exhausted:
            raise StopIteration
        if self._batches is None:
            raise ValueError("the loader is closed")
        try:
            batch = dict(next(self._batches))
        except BaseException as error:
            self._exhausted = isinstance(error, StopIteration)
            self.close()
            raise
        self._bad.extend(batch.pop(BAD, ()))
        # Worker processes send a subclass that lives in shared memory; its views are ndarrays.
        return {name: np.asarray(values) for name, values in batch.items()}

    def take_bad(self) -> list[BadRecord]:
        """The bad records in the batches returned since the last call, once per occurrence."""
        taken, self._bad = self._bad, []
        return taken

    def close(self) -> None:
        """Stops the threads and processes; the loader cannot be used afterwards."""
        self._batches = None
        self._close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclasses.dataclass(frozen=True)
class TrainData:
    """An endless stream of shuffled, augmented batches.

    A source that gathers many records at once (``__getitems__``) is read a whole batch at a time
    when there are no ``ops``; put the work into ``batch_ops`` then, and set ``threads=0``.

    Attributes:
      source: where records come from.
      batch_size: rows of the global batch, over all processes.
      ops: per example, on the host, in order.
      batch_ops: on whole batches, on the device, inside the compiled step.
      sampler: order of the records; None for ``Shuffle()``.
      on_error: ``raise`` stops at a bad record with its name; ``mask`` puts zeros with ``_mask``
        False in its place and reports it through ``Loader.take_bad``.
      threads: making batches side by side, per worker; 0 makes them when asked.
      workers: processes beside this one, for ops that hold Python's lock. They are spawned: the
        program needs an ``if __name__ == "__main__"`` guard and parsed absl flags.
      prefetch_batches: made ahead, per worker; at least ``threads``, so that none idles.
    """

    source: Source
    batch_size: int
    ops: tuple[Op, ...] = ()
    batch_ops: tuple[BatchOp, ...] = ()
    sampler: Sampler | None = None
    on_error: OnError = "raise"
    threads: int = 4
    workers: int = 0
    prefetch_batches: int = 4

    def __post_init__(self) -> None:
        _check(self)
        if self.workers < 0:
            raise ValueError(f"workers={self.workers}: must not be negative")

    @property
    def info(self) -> SourceInfo:
        return self.source.info

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch, at least 1. Batches run on across epochs."""
        length = self._sampler.epoch_length(_length(self.source))
        return max(1, length // self.batch_size)

    @property
    def _sampler(self) -> Sampler:
        return Shuffle() if self.sampler is None else self.sampler

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
        if seed < 0 or first_batch < 0:
            raise ValueError(f"seed={seed}, first_batch={first_batch}: must not be negative")
        order = Endless(self._sampler, seed, _length(self.source))
        reader = _reader(self, order, seed, process_index, process_count)
        batches = grain.MapDataset.range(first_batch, first_batch + _ENDLESS).map(reader)
        stream = batches.to_iter_dataset(_read_options(self.threads, self.prefetch_batches))
        if self.workers:
            if not flags.FLAGS.is_parsed():
                raise ValueError(
                    f"workers={self.workers}: worker processes need parsed absl flags; start with "
                    "absl.app.run, or call absl.flags.FLAGS(sys.argv) first"
                )
            stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=self.workers))
        return Loader(iter(stream))


@dataclasses.dataclass(frozen=True)
class EvalData:
    """Every record once, in order; the last batch is filled up with masked rows.

    All processes get the same number of batches. Attributes are as in ``TrainData``; random ops
    draw the same numbers every time.
    """

    source: Source
    batch_size: int
    ops: tuple[Op, ...] = ()
    on_error: OnError = "raise"
    threads: int = 4
    prefetch_batches: int = 4

    def __post_init__(self) -> None:
        _check(self)

    @property
    def info(self) -> SourceInfo:
        return self.source.info

    @property
    def num_batches(self) -> int:
        return -(-_length(self.source) // self.batch_size)

    def loader(self, *, process_index: int = 0, process_count: int = 1) -> Loader:
        """This process's rows of every batch; arguments and errors as in ``TrainData.loader``."""
        order = Once(_length(self.source))
        reader = _reader(self, order, 0, process_index, process_count)
        batches = grain.MapDataset.range(self.num_batches).map(reader)
        options = _read_options(self.threads, self.prefetch_batches)
        return Loader(iter(batches.to_iter_dataset(options)))


def _reader(
    data: TrainData | EvalData,
    order: Endless | Once,
    seed: int,
    process_index: int,
    process_count: int,
) -> BatchReader:
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index={process_index}: must lie in 0..{process_count - 1}")
    if data.batch_size % process_count:
        raise ValueError(
            f"batch_size={data.batch_size} is not divisible by the {process_count} processes that "
            f"share it; set it to a multiple of {process_count}"
        )
    rows = data.batch_size // process_count
    return BatchReader(
        source=data.source,
        ops=data.ops,
        order=order,
        seed=seed,
        batch_size=data.batch_size,
        first_row=process_index * rows,
        rows=rows,
        on_error=data.on_error,
    )


def _read_options(threads: int, prefetch_batches: int) -> grain.ReadOptions:
    ahead = max(prefetch_batches, threads) if threads else 0
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)


def _length(source: Source) -> int:
    if len(source) == 0:
        raise DataError(f"{source.info.name}: the source has no records")
    return len(source)


def _check(data: TrainData | EvalData) -> None:
    if data.batch_size < 1:
        raise ValueError(f"batch_size={data.batch_size}: must be at least 1")
    if data.on_error not in ("raise", "mask"):
        raise ValueError(f"on_error={data.on_error!r}: valid policies are 'raise' and 'mask'")
    for name in ("threads", "prefetch_batches"):
        if getattr(data, name) < 0:
            raise ValueError(f"{name}={getattr(data, name)}: must not be negative")
    for op in data.ops:
        if not callable(op):
            raise ValueError(f"ops: {op!r} is not an op; ops are called as op(example, rng)")
