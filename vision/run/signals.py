"""SIGTERM and SIGINT: all processes of a run stop at the same point, whoever was told."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax

from vision.parallel import cluster

_HOUR_MS = 3_600_000
_STOP, _CLOSED = "stop", "closed"
_rounds = itertools.count()  # of catch_signals; the n-th of one process is the n-th of all


class Signals:
    """What came, and where to stop.

    With several processes, a thread in each waits for the news that any of them was told to stop.
    It then freezes its process: ``stop`` lets no call pass until all have published how many calls
    they let pass. The largest of these numbers is where all stop; who is below it runs up to it.
    No process is beyond, so no collective operation is started that another never joins. A main
    thread that waits for devices or data holds nobody up: the thread answers for it.

    Attributes:
      received: the signal that this process got; None as long as there is none.
    """

    def __init__(self, connection: Any | None, folder: str, index: int, count: int):
        self.received: int | None = None
        self._connection: Any = connection
        self._folder, self._index, self._count = folder, index, count
        self._changed = threading.Condition()
        self._passed = 0  # calls of ``stop`` that returned None
        self._frozen = False
        self._verdict: tuple[int, int] | None = None  # calls to let pass, and the signal
        self._error: Exception | None = None
        # The handler may interrupt the main thread anywhere: of all ways to wake a thread, this
        # is the one that is safe there.
        self._told: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        if connection is not None:
            for run in (self._listen, self._tell):
                thread = threading.Thread(target=self._guard, args=[run], daemon=True)
                thread.start()
                self._threads.append(thread)

    def stop(self, step: int) -> int | None:
        """Whether to stop here; call it before whatever all processes must do together.

        All processes call it at the same places in the same order: before each update, and before
        each batch of an evaluation that may be broken off. It may wait for a moment, never for
        another process's main thread.

        Args:
          step: updates done so far, for the message of an error; what counts is the number of
            calls.

        Returns:
          The number of the signal, at the same call on all processes, once any of them got one.

        Raises:
          ClusterError: the other processes cannot be asked any more.
        """
        if self._connection is None:
            return self.received
        with self._changed:
            self._changed.wait_for(lambda: not self._frozen or self._verdict or self._error)
            if self._error is not None:
                raise cluster.ClusterError(
                    f"stopping together failed at step {step}: {self._error}"
                ) from self._error
            if self._verdict is not None and self._passed >= self._verdict[0]:
                return self._verdict[1]
            self._passed += 1
            return None

    def note(self, number: int) -> None:
        """Takes a signal in this process and tells the others."""
        self.received = number
        self._told.put(number)

    def close(self) -> None:
        """Ends the threads; what this process has passed by then counts for the others."""
        self._told.put(None)
        for thread in self._threads:
            thread.join()

    def _guard(self, run: Callable[[], None]) -> None:
        try:
            run()
        except jax.errors.JaxRuntimeError as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _tell(self) -> None:
        number = self._told.get()
        if number is None:
            self._put(f"news/{self._index}", _CLOSED)
            return
        self._put("signal", str(number))
        for index in range(self._count):
            self._put(f"news/{index}", _STOP)

    def _listen(self) -> None:
        news = self._get(f"news/{self._index}")
        with self._changed:
            self._frozen = True
        self._put(f"passed/{self._index}", str(self._passed))
        if news == _CLOSED:
            return
        passed = [int(self._get(f"passed/{index}")) for index in range(self._count)]
        number = int(self._get("signal"))
        with self._changed:
            self._verdict = max(passed), number
            self._changed.notify_all()

    def _put(self, key: str, value: str) -> None:
        try:
            self._connection.key_value_set(f"{self._folder}/{key}", value)
        except jax.errors.JaxRuntimeError as error:
            # Several processes may get a signal: the first one counts, for all of them.
            if "ALREADY_EXISTS" not in str(error):
                raise

    def _get(self, key: str) -> str:
        while True:
            try:
                return self._connection.blocking_key_value_get(f"{self._folder}/{key}", _HOUR_MS)
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise


@contextlib.contextmanager
def catch_signals() -> Iterator[Signals]:
    """Collects SIGTERM and SIGINT; a second one has its ordinary, deadly effect.

    All processes of a run enter and leave it at the same places, after ``cluster.join`` and before
    ``cluster.leave``. Outside the main thread nothing is caught, since Python delivers signals to
    the main thread only; the signals of other processes arrive all the same.
    """
    connection = cluster.client()
    if connection is None:
        signals = Signals(None, "", 0, 1)
    else:
        folder = f"vision/signals/{next(_rounds)}"
        signals = Signals(connection, folder, jax.process_index(), jax.process_count())

    def handle(number: int, frame: Any) -> None:
        if signals.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        signals.note(number)

    previous = {}
    if threading.current_thread() is threading.main_thread():
        numbers = (signal.SIGTERM, signal.SIGINT)
        previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signals.close()
