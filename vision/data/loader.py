"""Iterating over batches: in this thread, in threads or in worker processes, under a watch."""

from __future__ import annotations

import dataclasses
import multiprocessing
import re
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any, Protocol

import grain
import numpy as np
from absl import flags, logging

from vision.data.batches import BAD, BadRecord, Batch
from vision.data.source import DataError

# More batches than any run has, few enough that stream positions fit 64 bits.
MAX_BATCHES = 2**40
_WORKER_DIED = re.compile(r"Worker process was terminated unexpectedly with exit code (-?\d+)")


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

    def batches(self, reader: Reader, first: int, count: int) -> Any:
        """A closable iterator over batches ``first``, ..., ``first + count - 1``."""
        if not (self.threads or self.workers):
            return (reader(number) for number in range(first, first + count))
        ahead = max(self.prefetch_batches, self.threads) if self.threads else 0
        options = grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=ahead)
        numbers = grain.MapDataset.range(first, first + count)
        stream = numbers.map(reader).to_iter_dataset(options)
        if self.workers:
            if not flags.FLAGS.is_parsed():
                raise ValueError(
                    f"workers={self.workers}: worker processes need parsed absl flags; start with "
                    "absl.app.run, or call absl.flags.FLAGS(sys.argv) first"
                )
            stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=self.workers))
        return iter(stream)


class Loader:
    """Iterates over host batches. Close it (or use ``with``) to stop its threads and workers.

    Made from a reader, the name of the data, the first batch, how many, and how to read.

    Raises, from ``next``:
      DataError: what the reader raises, or that a worker process died, with its number.
    """

    def __init__(self, reader: Reader, name: str, first: int, count: int, reading: Reading) -> None:
        self._others = set(multiprocessing.active_children())
        self._batches: Any = reading.batches(reader, first, count)
        self._watch = _Watch(reader, name, first, reading)
        self._bad: list[BadRecord] = []
        self._exhausted = False
        # Also when the loader is forgotten, and before the interpreter takes modules apart.
        self._close = weakref.finalize(self, _close, self._watch, self._batches)

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
            died = _WORKER_DIED.match(str(error)) if isinstance(error, RuntimeError) else None
            dead = watch.dead()
            self.close()
            if died is not None:
                raise DataError(
                    f"{watch.name}: {dead or 'a worker process ' + exit_reason(int(died[1]))} "
                    "while it made batches; start again with fewer workers or prefetch_batches if "
                    "memory ran out"
                ) from error
            raise
        watch.since = None
        watch.number += 1
        if len(watch.workers) < watch.expected:
            watch.workers = [p for p in multiprocessing.active_children() if p not in self._others]
        self._bad.extend(batch.get(BAD, ()))
        # Worker processes send a subclass that lives in shared memory; its views are ndarrays.
        return {name: np.asarray(values) for name, values in batch.items() if name != BAD}

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

    def __init__(self, reader: Reader, name: str, first: int, reading: Reading) -> None:
        self.reader = reader
        self.name = name
        self.number = first
        self.since: float | None = None
        self.expected = reading.workers
        self.workers: list[Any] = []
        self._stall_s = reading.stall_s
        self._stop = threading.Event()
        if self._stall_s:
            threading.Thread(target=self._look, daemon=True, name="loader-watch").start()

    def stop(self) -> None:
        self._stop.set()

    def dead(self) -> str:
        """The worker processes that died, in words; empty when none is known to have."""
        dead = [p for p in self.workers if p.exitcode is not None]
        return ", ".join(f"worker process {p.pid} {exit_reason(p.exitcode)}" for p in dead)

    def _look(self) -> None:
        warned = 0.0
        while not self._stop.wait(self._stall_s / 4):
            since = self.since
            if since is None or time.monotonic() - max(since, warned) < self._stall_s:
                continue
            warned = time.monotonic()
            alive = [str(p.pid) for p in self.workers if p.exitcode is None]
            what = self.reader.busy()
            what += [f"worker process {', '.join(alive)}"] if alive else []
            what += [self.dead()] if self.dead() else []
            logging.warning(
                "%s: waiting for batch %d for %.0f s; %s",
                self.name, self.number, warned - since,
                "; ".join(what) or "no thread is reading a record",
            )  # fmt: skip


def exit_reason(exit_code: int) -> str:
    """How a process ended, in words."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"


def _close(watch: _Watch, batches: Any) -> None:
    watch.stop()
    batches.close()
