"""Worker processes that make batches: they are named when they die, and end with their parent.

A worker shares nothing with this process but a socket. It sends a batch as an unnamed file in
memory, which the reader of the batch maps: no lock can be held by a process that was killed, both
sides see the other one's end as the end of the socket, and nothing is left in /dev/shm by a
machine's worst day.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, Protocol

import cloudpickle
import numpy as np

from vision.data.source import DataError

# Batches that a worker has made and that were not taken yet; it makes another one meanwhile.
_AHEAD = 2
# How often both sides look whether the other one lives, should its socket be held open elsewhere.
_LOOK_S = 1.0
# A worker that is told to end does so at once, unless it is deep in C.
_END_S = 5.0
_ALIGNMENT = 64
_BATCH, _ERROR, _END = b"b", b"e", b"."
# Ctrl-C and SIGTERM go to whole groups of processes: the parent decides what they mean.
_PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from vision.data.workers import serve
serve(int(sys.argv[1]))
"""


class WorkerDiedError(DataError):
    """A worker process ended before its work was done; starting the run again may help."""

    status = 1


class Reading(Protocol):
    """How one worker reads; see ``vision.data.loader``."""

    def batches(self, reader: Any, numbers: range) -> Iterator[dict[str, Any]]: ...


class Worker:
    """One worker process.

    Args:
      title: such as ``data worker 1 of 3``, for messages.
      work: file with ``(reading, reader, numbers, pid of this process)``, see ``pack``.
    """

    def __init__(self, title: str, work: int):
        self._title = title
        self._connection, theirs = socket.socketpair()
        program = [sys.executable, "-P", "-c", _PROGRAM]
        try:
            self.process = subprocess.Popen(
                [*program, str(theirs.fileno()), json.dumps(sys.path)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # No batch needs a device, which the training would have to share.
                env={**os.environ, "JAX_PLATFORMS": "cpu"},
            )
        except BaseException:
            self._connection.close()
            raise
        finally:
            theirs.close()
        # One that died meanwhile is named where its first batch is waited for.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            _send(self._connection, _BATCH, work)

    @property
    def exit_code(self) -> int | None:
        """None while it lives; of one that was killed, the signal's number with a minus."""
        return self.process.poll()

    def __str__(self) -> str:
        code = self.exit_code
        ended = "" if code is None else f" {exit_reason(code)}"
        return f"{self._title} (process {self.process.pid}){ended}"

    def waits(self, timeout_s: float) -> bool:
        """Whether there is a message, or its end, within ``timeout_s``."""
        return _readable(self._connection, timeout_s)

    def receive(self) -> tuple[bytes, Any]:
        """Waits for the next message: its kind and what it holds.

        Raises:
          WorkerDiedError: it has ended, and there is none.
        """
        try:
            kind, file = _receive(self._connection)
            if kind:
                self._connection.send(_BATCH)  # room for another one
        except (ConnectionResetError, BrokenPipeError):
            kind, file = b"", -1
        if not kind:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_S)
            raise WorkerDiedError(f"{self}")
        return kind, unpack(file, shared=True)

    def stop(self) -> None:
        """Tells it to end."""
        self._connection.close()

    def join(self) -> None:
        """Waits until it has ended, after ``stop``."""
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class WorkerBatches:
    """Iterates over the batches of a range of numbers; every worker makes each n-th of them.

    Args:
      reading: how each of them reads.
      reader: makes a batch from its number; it and what it is made of can be pickled.
      numbers: of the batches, in their order.
      count: of worker processes.

    Raises, from ``next``:
      WorkerDiedError: a worker has died, with its number, process and signal or exit code.
      Exception: what the reader raised, with the worker's traceback as a note.
    """

    def __init__(self, reading: Reading, reader: Any, numbers: range, count: int):
        self.workers: list[Worker] = []
        self._turn = 0
        try:
            for i in range(count):
                work = pack((reading, reader, numbers[i::count], os.getpid()))
                try:
                    self.workers.append(Worker(f"data worker {i + 1} of {count}", work))
                finally:
                    os.close(work)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> WorkerBatches:
        return self

    def __next__(self) -> dict[str, Any]:
        worker = self.workers[self._turn % len(self.workers)]
        while not worker.waits(_LOOK_S):
            for each in self.workers:
                if each.exit_code is not None:  # they do not end by themselves
                    raise WorkerDiedError(f"{each}")
        kind, value = worker.receive()
        if kind == _END:
            raise StopIteration
        if kind == _ERROR:
            error, text = value
            error.add_note(f"{worker}:\n{text}")
            raise error
        self._turn += 1
        return value

    def close(self) -> None:
        """Ends the processes."""
        for worker in self.workers:
            worker.stop()
        for worker in self.workers:
            worker.join()


def exit_reason(exit_code: int) -> str:
    """How a process ended, in words."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"


def serve(connection_fd: int) -> NoReturn:
    """The life of a worker process, which ends with the socket or with its parent."""
    os.set_inheritable(connection_fd, False)
    connection = socket.socket(fileno=connection_fd)
    room = threading.Semaphore(_AHEAD)
    parent = os.getppid()
    kind, work = _receive(connection)
    if not kind:
        os._exit(0)
    watch = threading.Thread(target=_watch, args=(connection, parent, room), daemon=True)
    watch.start()
    try:
        # Arrays of the source are mapped, not copied: a worker that changes them changes its own.
        reading, reader, numbers, started_by = unpack(work, shared=False)
        if parent == started_by:  # else it is gone already
            for batch in reading.batches(reader, numbers):
                room.acquire()
                _put(connection, _BATCH, batch)
            _put(connection, _END, None)
    except (BrokenPipeError, ConnectionResetError):
        os._exit(0)
    except Exception as error:
        _put(connection, _ERROR, (_picklable(error), traceback.format_exc()))
    watch.join()
    os._exit(0)


def _watch(connection: socket.socket, parent: int, room: threading.Semaphore) -> None:
    """Counts the batches that were taken; ends this process when nobody takes them any more."""
    with contextlib.suppress(OSError):
        while os.getppid() == parent:
            if not _readable(connection, _LOOK_S):
                continue
            if not connection.recv(1):
                break
            room.release()
    os._exit(0)


def _picklable(error: Exception) -> Exception:
    try:
        pickle.loads(cloudpickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def pack(value: Any) -> int:
    """Pickles a value into an unnamed file, its arrays beside the rest; returns the descriptor."""
    arrays: list[pickle.PickleBuffer] = []
    text = cloudpickle.dumps(value, protocol=5, buffer_callback=arrays.append)
    parts: list[Any] = [text, *(array.raw() for array in arrays)]
    sizes = [memoryview(part).nbytes for part in parts]
    head = np.array([len(sizes), *sizes], np.int64).tobytes()
    descriptor = _unnamed_file()
    try:
        with open(descriptor, "wb", closefd=False) as file:
            for place, part in zip(_places(sizes), parts, strict=True):
                file.seek(place)
                file.write(part)
            file.seek(0)
            file.write(head)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def unpack(descriptor: int, *, shared: bool) -> Any:
    """What ``pack`` was given; closes the file. Its arrays lie in the file's memory.

    Args:
      descriptor: of the file.
      shared: whether writing to the arrays changes the file; otherwise the pages are copied.
    """
    try:
        access = mmap.ACCESS_WRITE if shared else mmap.ACCESS_COPY
        memory = memoryview(mmap.mmap(descriptor, 0, access=access))
    finally:
        os.close(descriptor)
    count = int(np.frombuffer(memory, np.int64, 1)[0])
    sizes = np.frombuffer(memory, np.int64, count, 8).tolist()
    places = _places(sizes)
    parts = [memory[p : p + size] for p, size in zip(places, sizes, strict=True)]
    return pickle.loads(parts[0], buffers=parts[1:])


def _places(sizes: Sequence[int]) -> list[int]:
    """Where parts of these sizes lie in a file, after its head."""
    places, end = [], 8 * (1 + len(sizes))
    for size in sizes:
        places.append(-(-end // _ALIGNMENT) * _ALIGNMENT)
        end = places[-1] + size
    return places


def _unnamed_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("batch", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:  # elsewhere a file that was deleted already
        return os.dup(file.fileno())


def _put(connection: socket.socket, kind: bytes, value: Any) -> None:
    file = pack(value)
    try:
        _send(connection, kind, file)
    finally:
        os.close(file)


def _send(connection: socket.socket, kind: bytes, file: int) -> None:
    socket.send_fds(connection, [kind], [file])


def _receive(connection: socket.socket) -> tuple[bytes, int]:
    """A message of one byte and its file; no byte at the end of the connection."""
    kind, files, _, _ = socket.recv_fds(connection, 1, 1, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
    if kind and not files:
        raise OSError("a batch of a data worker was not given a file: too many are open here")
    return kind, files[0] if files else -1


def _readable(connection: socket.socket, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))
