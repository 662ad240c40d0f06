"""Worker processes: the batches of this one; killed, stopped or orphaned they leave nothing."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.test_data_pipeline import assert_equal, numbered
from vision.data.loader import Loader, Reading
from vision.data.pipeline import TrainData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.data.workers import WorkerDiedError, exit_reason, pack, unpack

ROOT = Path(__file__).resolve().parents[2]
# A source of more than the 64 KiB that a pipe holds: starting a worker must not wait for it.
BIG = Arrays({"image": np.zeros((2000, 8, 8, 3), np.uint8), "label": np.arange(2000)}, "big")


class OddError(Exception):
    """Cannot be pickled: it is made of two, and Python's way of making it again has one."""

    def __init__(self, one: int, other: int):
        super().__init__(f"{one} and {other}")


@dataclasses.dataclass(frozen=True)
class Numbers:
    """A reader; batch 3 fails as ``fails`` says, batch 4 takes ``pause_s``."""

    fails: str = ""
    pause_s: float = 0.0

    def __call__(self, number: int) -> dict[str, Any]:
        if number == 3 and self.fails == "data":
            raise DataError("record 12: unreadable")
        if number == 3 and self.fails == "odd":
            raise OddError(1, 2)
        if number == 3 and self.fails == "exit":
            os._exit(7)
        if number == 4:
            time.sleep(self.pause_s)
        return {"number": np.full((3, 50_000), number), "_bad": []}

    def busy(self) -> list[str]:
        return []


def numbers(workers: int = 1, count: int = 100, **kwargs: Any) -> Loader:
    return Loader(Numbers(**kwargs), "numbers", 0, count, Reading(0, workers, 0, 60.0))


def gone(pid: int) -> bool:
    """Whether a process has ended; what nobody waits for stays as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def seconds_until(done: Any, limit_s: float = 60.0) -> float:
    start = time.monotonic()
    while not done():
        assert time.monotonic() - start < limit_s
        time.sleep(0.02)
    return time.monotonic() - start


def test_what_is_sent_comes_back_with_its_arrays_in_the_file():
    value = {
        "image": np.arange(120, dtype=np.uint8).reshape(2, 3, 4, 5),
        "turned": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "every_other": np.arange(10)[::2],
        "nothing": np.zeros((0, 4), np.float32),
        "one": np.array(3, np.int16),
        "texts": np.array(["a", "longer"], object),
        "_bad": [("a", 3)],
    }
    back = unpack(pack(value), shared=True)
    assert_equal([{k: v for k, v in back.items() if k != "_bad"}], [
        {k: v for k, v in value.items() if k != "_bad"}
    ])  # fmt: skip
    assert back["_bad"] == value["_bad"]
    assert not back["image"].flags.owndata
    assert back["image"].flags.writeable
    assert back["image"].ctypes.data % 64 == 0
    descriptor = pack({"x": np.zeros(5)})
    again = os.dup(descriptor)
    unpack(descriptor, shared=False)["x"][:] = 1  # a copy of the pages, not the file
    assert unpack(again, shared=True)["x"].tolist() == [0] * 5


@pytest.mark.parametrize(
    ("code", "text"),
    [(3, "ended with exit code 3"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")],
)
def test_exit_codes_in_words(code: int, text: str):
    assert text in exit_reason(code)


@pytest.mark.slow
def test_order_errors_and_the_end():
    """Batches in their order, what the reader raises, and the end; descriptors are given back."""
    with numbers(workers=3, count=40) as loader:
        before = len(os.listdir("/proc/self/fd"))
        for expected, batch in enumerate(loader):
            assert (batch["number"] == expected).all()
            assert batch.keys() == {"number"}
        assert expected == 39
        del batch
        assert len(os.listdir("/proc/self/fd")) <= before
        assert next(loader, None) is None
    with numbers(workers=2, fails="data") as loader:
        assert [b["number"][0, 0] for b in itertools.islice(loader, 3)] == [0, 1, 2]
        with pytest.raises(DataError, match="record 12") as caught:
            next(loader)
        assert str(caught.value) == "record 12: unreadable"
        assert "in __call__" in caught.value.__notes__[0]
        assert "data worker 2 of 2" in caught.value.__notes__[0]
    with numbers(fails="odd") as loader, pytest.raises(RuntimeError, match="OddError: 1 and 2"):
        list(loader)
    with numbers(workers=2, fails="exit") as loader:
        with pytest.raises(WorkerDiedError, match=r"numbers: data worker 2 of 2 \(process \d+\) end"
                           "ed with exit code 7 while it made batches"):  # fmt: skip
            list(loader)
        with pytest.raises(ValueError, match="closed"):
            next(loader)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before the first batch", "during", "paused", "stopped"])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_ends_the_run_and_is_named(moment: str, victim: int):
    data = TrainData(BIG, 16, workers=2, threads=1, stall_s=60.0)
    loader = data.loader(seed=0)
    worker = loader.workers[victim].process
    if moment != "before the first batch":
        for _ in range(5):
            next(loader)
    if moment == "stopped":
        os.kill(worker.pid, signal.SIGSTOP)
        time.sleep(0.2)
    if moment == "paused":  # nobody takes a batch: both workers wait
        time.sleep(1.0)
    os.kill(worker.pid, signal.SIGKILL)
    if moment == "paused":
        time.sleep(1.0)
    start = time.monotonic()
    text = rf"big: data worker {victim + 1} of 2 \(process {worker.pid}\) was killed by SIGKILL"
    with pytest.raises(WorkerDiedError, match=text) as caught:
        for _ in loader:
            pass
    assert time.monotonic() - start < 60.0
    assert caught.value.status == 1
    assert all(gone(each.process.pid) for each in loader.workers)


@pytest.mark.slow
def test_a_dead_worker_is_noticed_while_another_is_waited_for():
    with numbers(workers=2, pause_s=1000.0) as loader:
        for _ in range(4):
            next(loader)
        threading.Timer(0.3, loader.workers[1].process.kill).start()
        start = time.monotonic()
        with pytest.raises(WorkerDiedError, match="worker 2 of 2"):
            next(loader)
        assert time.monotonic() - start < 10


@pytest.mark.slow
def test_signals_for_the_whole_group_are_the_parent_s():
    """Ctrl-C and a cluster's SIGTERM reach the workers too, and must not end them first."""
    with numbers() as loader:
        next(loader)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(loader.workers[0].process.pid, number)
        for _ in range(6):
            next(loader)
        start = time.monotonic()
    assert time.monotonic() - start < 4  # told to end, not killed after a while


@pytest.mark.slow
def test_a_loader_that_is_forgotten_ends_its_workers():
    loader = numbers()
    next(loader)
    pid = loader.workers[0].process.pid
    del loader
    assert seconds_until(lambda: gone(pid)) < 10


# No guard against being imported again, and an op of the program's own.
PROGRAM = """
import dataclasses, os, sys, time
import numpy as np
from vision.data.pipeline import TrainData
from vision.data.sources.arrays import Arrays

@dataclasses.dataclass(frozen=True)
class Half:
    def __call__(self, example, rng):
        return {**example, "image": example["image"] // 2}

source = Arrays({"image": np.full((2000, 32, 32, 3), 8, np.uint8), "label": np.arange(2000)})
loader = TrainData(source, 16, (Half(),), workers=2, threads=1).loader(seed=0)
print(*(worker.process.pid for worker in loader.workers), flush=True)
for _ in range(int(sys.argv[1])):
    assert (next(loader)["image"] == 4).all()
print("ready", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Any]:
    started: list[subprocess.Popen[str]] = []

    def start(batches: int) -> subprocess.Popen[str]:
        file = tmp_path / "program.py"
        file.write_text(PROGRAM)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(file), str(batches)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(("batches", "pause_s"), [(0, 0.0), (0, 0.7), (7, 0.0)])
def test_workers_end_when_their_parent_is_killed(parent: Any, batches: int, pause_s: float):
    """As soon as they are started, while they import, and while they hold batches."""
    shared = set(os.listdir("/dev/shm"))
    process = parent(batches)
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    if batches:
        assert process.stdout.readline() == "ready\n"
    time.sleep(pause_s)
    process.kill()
    process.wait()
    # Those that hold batches at once; those that are being started when they have imported.
    assert seconds_until(lambda: all(map(gone, pids))) < (3 if batches else 60)
    assert set(os.listdir("/dev/shm")) - shared == set()


def test_an_array_of_the_source_is_sent_as_it_is():
    """A gathered source shares its memory with its workers: it is beside the pickle, not in it."""
    descriptor = pack(numbered(1000))
    assert os.fstat(descriptor).st_size < 64 * 1024
    assert unpack(descriptor, shared=False)[999]["label"] == 999
