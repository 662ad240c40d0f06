"""Several processes: joining, agreeing, stopping at the same step, losing one."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fast_compilation import FAST_COMPILATION
from vision.parallel import cluster
from vision.run.signals import catch_signals

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
HEARTBEAT_S = 5
PREAMBLE = f"""
import os, random, signal, sys, time
from vision.parallel import cluster
from vision.run.signals import catch_signals
def say(*words):
    print(*words, flush=True)
cluster.join(detect=False, heartbeat_s={HEARTBEAT_S}, connect_s=60)
import jax
index = jax.process_index()
"""

pytestmark = pytest.mark.timeout(150)


def launch(program: str, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    environment["XLA_FLAGS"] = FAST_COMPILATION
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Pair:
    """Two processes that run the same program."""

    def __init__(self, program: str):
        address = free_address()
        self.processes = [
            launch(
                PREAMBLE + program,
                JAX_COORDINATOR_ADDRESS=address,
                JAX_COORDINATOR_BIND_ADDRESS=address,
                JAX_NUM_PROCESSES="2",
                JAX_PROCESS_ID=str(index),
            )
            for index in range(2)
        ]

    def until(self, text: str) -> list[str]:
        """The next line of each process that starts with ``text``."""
        return [next(self._lines(process, text)) for process in self.processes]

    @staticmethod
    def _lines(process: subprocess.Popen[str], text: str) -> Iterator[str]:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(text):
                yield line.removeprefix(text).strip()
        assert process.stderr is not None
        raise AssertionError(f"ended before {text!r}: {process.stderr.read()[-3000:]}")

    def statuses(self, seconds: float) -> list[int]:
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.communicate(timeout=max(0.1, deadline - time.monotonic()))
        return [process.returncode for process in self.processes]

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


ROUNDS = 12
STOPPING = f"""
import collections
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

shape = (3, index, "é", None)
say("agreed", cluster.agree(shape), cluster.agree({{"by": index, "x": [1.5, float("inf")]}}))
say("gathered", cluster.gather([index, "row"]), cluster.is_main())
cluster.barrier("twice")
cluster.barrier("twice")

sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), P("data"))
update = jax.jit(lambda x: x + x.mean(), out_shardings=sharding)
x = jax.make_array_from_process_local_data(sharding, np.ones((1, 4), np.float32))
# A signal that comes between two rounds is not what is tested.
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
for turn in range({ROUNDS}):
    step, pending = 0, collections.deque()
    with catch_signals() as signals:
        say("running", turn)
        while (number := signals.stop(step)) is None:
            if random.random() < 0.1:
                time.sleep(0.05 * random.random())
            x, step = update(x), step + 1
            pending.append(x)
            while len(pending) > 2:
                jax.block_until_ready(pending.popleft())
        jax.block_until_ready(x)
    say("stopped", step, int(number))
    say("received", signals.received is not None)
# A round in which no signal comes, and one process is far ahead at its end.
with catch_signals() as signals:
    for step in range(3):
        assert signals.stop(step) is None
    time.sleep(0.3 * index)
cluster.leave()
say("left")
"""


def test_agreeing_and_stopping_at_the_same_step():
    chance = random.Random(0)
    received = []
    with Pair(STOPPING) as pair:
        expected = "[3, 0, 'é', None] {'by': 0, 'x': [1.5, inf]}"
        assert pair.until("agreed") == [expected, expected]
        everyone = "[[0, 'row'], [1, 'row']]"
        assert pair.until("gathered") == [f"{everyone} True", f"{everyone} False"]
        for turn in range(ROUNDS):
            assert pair.until("running") == [str(turn)] * 2
            time.sleep(0.2 * chance.random())
            number = chance.choice([signal.SIGTERM, signal.SIGINT])
            # Sometimes both are told, as a cluster does it; with two different signals, once.
            told = [[0], [1], [0, 1]][turn % 3]
            for index in told:
                pair.processes[index].send_signal(number)
                if turn == ROUNDS - 1:
                    number = signal.SIGINT if number == signal.SIGTERM else signal.SIGTERM
            first, second = pair.until("stopped")
            assert first == second
            assert first.split()[1] in ("2", "15")
            received.append(pair.until("received"))
        assert pair.until("left") == ["", ""]
        assert pair.statuses(30) == [0, 0]
    assert received[0] == ["True", "False"]
    assert received[1] == ["False", "True"]


def test_second_signal_is_deadly():
    program = """
with catch_signals() as signals:
    say("running")
    while signals.received is None:
        time.sleep(0.01)
    say("noted")
    # One long sleep would not notice a signal that comes just before it begins.
    for _ in range(6000):
        time.sleep(0.01)
"""
    alone = launch(PREAMBLE + program)
    assert alone.stdout is not None
    try:
        for line in ("running", "noted"):
            assert alone.stdout.readline().strip() == line
            alone.send_signal(signal.SIGTERM)
        alone.communicate(timeout=60)
    finally:
        alone.kill()
    assert alone.returncode == -signal.SIGTERM


@pytest.mark.slow
def test_status_of_a_process_that_fails_and_end_of_the_other():
    program = """
say("joined")
if index == 1:
    cluster.abandon(5)
cluster.barrier("never")
"""
    with Pair(program) as pair:
        assert pair.until("joined") == ["", ""]
        started = time.monotonic()
        assert pair.processes[1].wait(timeout=10) == 5
        assert pair.processes[0].wait(timeout=4 * HEARTBEAT_S) not in (0, 5)
        assert time.monotonic() - started < 4 * HEARTBEAT_S


@pytest.mark.slow
def test_end_of_the_others_when_process_0_is_killed():
    program = """
with catch_signals() as signals:
    say("joined")
    while signals.stop(0) is None:
        time.sleep(0.01)
"""
    with Pair(program) as pair:
        assert pair.until("joined") == ["", ""]
        pair.processes[0].kill()
        assert pair.processes[1].wait(timeout=10) != 0


@pytest.mark.slow
def test_missing_processes_and_missing_cluster_are_named():
    program = "from vision.parallel import cluster; cluster.join(detect={}, connect_s=1)"
    address = free_address()
    alone = launch(
        program.format(False),
        JAX_COORDINATOR_ADDRESS=address,
        JAX_COORDINATOR_BIND_ADDRESS=address,
        JAX_NUM_PROCESSES="2",
        JAX_PROCESS_ID="0",
    )
    nowhere = launch(program.format(True))
    _, said = alone.communicate(timeout=60)
    assert alone.returncode == 1
    assert (
        f"not all processes of the run were there within 1 s; the address of process 0 is {address}"
        in said
    )
    _, said = nowhere.communicate(timeout=60)
    assert "ClusterError: no cluster found" in said
    assert "JAX_COORDINATOR_ADDRESS" in said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("", "2", "0"), "JAX_COORDINATOR_ADDRESS not set"),
        (("h:1", "", ""), "JAX_NUM_PROCESSES and JAX_PROCESS_ID not set"),
        (("h", "2", "0"), "JAX_COORDINATOR_ADDRESS=h is not host:port"),
        (("h:1", "two", "0"), "JAX_NUM_PROCESSES=two is not a number"),
        (("h:1", "2", "-1"), "JAX_PROCESS_ID=-1 is not a number"),
        (("h:1", "2", "2"), "JAX_PROCESS_ID=2 is not below JAX_NUM_PROCESSES=2"),
    ],
)
def test_wrong_variables_are_named(
    values: tuple[str, str, str], said: str, monkeypatch: pytest.MonkeyPatch
):
    for name, value in zip(VARIABLES, values, strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(cluster.ClusterError, match=said):
        cluster.join(detect=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
def test_port_in_use_is_named(host: str, monkeypatch: pytest.MonkeyPatch):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as taken:
        taken.bind((host, 0))
        taken.listen()
        address = f"{'nodehost' if ':' in host else host}:{taken.getsockname()[1]}"
        for name, value in zip(VARIABLES, (address, "2", "0"), strict=True):
            monkeypatch.setenv(name, value)
        with pytest.raises(cluster.ClusterError, match=f"JAX_COORDINATOR_ADDRESS={address}"):
            cluster.join(detect=False)


def test_one_process_needs_nobody(monkeypatch: pytest.MonkeyPatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    cluster.join(detect=False)
    for name, value in zip(VARIABLES, ("127.0.0.1:9", "1", "0"), strict=True):
        monkeypatch.setenv(name, value)
    cluster.join()
    assert cluster.is_main()
    cluster.barrier("alone")
    assert cluster.agree({"a": (1, 2)}) == {"a": [1, 2]}
    assert cluster.gather(3) == [3]
    cluster.leave()
    with catch_signals() as signals:
        assert signals.stop(0) is None
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signals.stop(1) == signal.SIGINT
