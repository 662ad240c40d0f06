"""Iterating over batches: in this thread, in threads or in worker processes, under a watch."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any, Protocol

from vision.data.batches import BAD, BadRecord, Batch
from vision.data.workers import Worker, WorkerBatches, WorkerDiedError

log = logging.getLogger(__name__)

# More batches than any run has, few enough that stream positions fit 64 bits.
MAX_BATCHES = 2**40


class Reader(Protocol):
    """Makes batches from their numbers; pickles."""

    def __call__(self, number: int) -> dict[str, Any]: ...

    def busy(self) -> list[str]:
        """What this process's threads are making now, in words."""
        ...


@dataclasses.dataclass(frozen=True)
class Reading:
    """How batches are read; the attributes of ``TrainData`` with the same names.

    Attributes:
      threads, workers, prefetch_batches, stall_s: as in ``TrainData``.
    """

    threads: int
    workers: int
    prefetch_batches: int
    stall_s: float

    def batches(self, reader: Reader, numbers: range) -> Any:
        """A closable iterator over the batches with these numbers."""
        if self.workers:
            alone = dataclasses.replace(self, workers=0)
            return WorkerBatches(alone, reader, numbers, self.workers)
        if not self.threads:
            return (reader(number) for number in numbers)
        import grain  # here: a quarter of a second that reading a config does not need

        ahead = max(self.prefetch_batches, self.threads)
        options = grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=ahead)
        stream = grain.MapDataset.range(numbers.start, numbers.stop, numbers.step).map(reader)
        return iter(stream.to_iter_dataset(options))


class Loader:
    """Iterates over host batches. Close it (or use ``with``) to stop its threads and workers.

    Made from a reader, the name of the data, the first batch, how many, and how to read.

    Raises, from ``next``:
      DataError: what the reader raises.
      WorkerDiedError: a worker process died: which, and its signal or exit code.
    """

    def __init__(self, reader: Reader, name: str, first: int, count: int, reading: Reading) -> None:
        self._batches: Any = reading.batches(reader, range(first, first + count))
        self._watch = _Watch(reader, name, first, reading.stall_s, self.workers)
        self._bad: list[BadRecord] = []
        self._exhausted = False
        # Also when the loader is forgotten, and before the interpreter takes modules apart.
        self._close = weakref.finalize(self, _close, self._watch, self._batches)

    @property
    def workers(self) -> list[Worker]:
        """The worker processes, in their order; none where threads or this one make batches."""
        return list(self._batches.workers) if isinstance(self._batches, WorkerBatches) else []

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._exhausted:
            raise StopIteration
        if self._batches is None:
            raise ValueError("the loader is closed")
        watch = self._watch
        watch.since = time.monotonic()
        try:
            batch = next(self._batches)
        except BaseException as error:
            self._exhausted = isinstance(error, StopIteration)
            self.close()
            if isinstance(error, WorkerDiedError):
                raise WorkerDiedError(
                    f"{watch.name}: {error} while it made batches; start again, with fewer workers "
                    "or prefetch_batches if memory ran out"
                ) from error
            raise
        watch.since = None
        watch.number += 1
        self._bad.extend(batch.get(BAD, ()))
        return {name: values for name, values in batch.items() if name != BAD}

    def take_bad(self) -> list[BadRecord]:
        """The bad records in the batches returned since the last call, once per occurrence."""
        bad, self._bad = self._bad, []
        return bad

    def close(self) -> None:
        """Stops the threads and processes; the loader cannot be used afterwards."""
        self._batches = None
        self._close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Watch:
    """Says so when a batch takes long. Knows nothing of the loader, which may be forgotten."""

    def __init__(
        self, reader: Reader, name: str, first: int, stall_s: float, workers: list[Worker]
    ) -> None:
        self.reader = reader
        self.name = name
        self.number = first
        self.since: float | None = None
        self._workers = workers
        self._stall_s = stall_s
        self._stop = threading.Event()
        if self._stall_s:
            threading.Thread(target=self._look, daemon=True, name="loader-watch").start()

    def stop(self) -> None:
        self._stop.set()

    def _look(self) -> None:
        warned = 0.0
        while not self._stop.wait(self._stall_s / 4):
            since = self.since
            if since is None or time.monotonic() - max(since, warned) < self._stall_s:
                continue
            warned = time.monotonic()
            what = self.reader.busy() + [str(worker) for worker in self._workers]
            log.warning(
                "%s: waiting for batch %d for %.0f s; %s",
                self.name, self.number, warned - since,
                "; ".join(what) or "no thread is reading a record",
            )  # fmt: skip


def _close(watch: _Watch, batches: Any) -> None:
    watch.stop()
    batches.close()
