"""Several processes as one run: joining, agreeing on small values, leaving.

Everything here goes through jax's coordination service, a key-value store with barriers that
process 0 keeps. No device is touched, so a process may wait here while its devices compute.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import jax

from vision.config.errors import UserError
from vision.parallel import jax_internals

T = TypeVar("T")

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# Waiting for another process may include its evaluation, its figures or its slow disk. A process
# that is dead rather than slow is noticed by the heartbeat.
_PATIENCE_S = 1800
# A process that failed waits so long for the others: as long as they may be busy between two
# meetings, with a batch on their devices or with what follows the last one.
_PATIENCE_OF_FAILED_S = 300
_LONGEST_TEXT = 1000
# All processes have passed a barrier when they shut down: it takes milliseconds.
_SHUTDOWN_S = 30

# Every process makes the same calls in the same order, so that the n-th of one is the n-th of all.
_exchanges = itertools.count()


class ClusterError(UserError):
    """The processes of a run cannot work together: what was said of them is wrong."""


class LostProcessError(ClusterError):
    """A process did not come, or its port is not free yet; starting again may help."""

    status = 1


class FailedTogetherError(UserError):
    """Work that all processes do together failed on some of them, and all know it.

    Attributes:
      failures: process to what it said.
    """

    status = 1

    def __init__(self, failures: dict[int, str]):
        self.failures = failures
        texts = set(failures.values())
        if len(failures) == jax.process_count() and len(texts) == 1:
            text = texts.pop()
        else:
            text = "; ".join(f"process {i}: {failures[i]}" for i in sorted(failures))
        super().__init__(text)


def join(*, detect: bool = True, heartbeat_s: int = 30, connect_s: int = 300) -> None:
    """Joins the other processes of the run; must come before any other use of jax.

    The environment variables JAX_COORDINATOR_ADDRESS (``host:port`` of process 0),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID say who is who. Without them, and with ``detect``, jax asks
    the cluster: SLURM, GKE, TPU VMs, Open MPI. Without either this is a run of one process, and
    nothing happens.

    jax's preemption service stays off: it would catch SIGTERM in C++ from here on, before anyone
    acts on it. ``vision.run.signals`` agrees on the step where all processes stop.

    Args:
      detect: look for a cluster when the variables are absent; finding none is an error.
      heartbeat_s: seconds after which a process that is not heard of counts as dead, and all
        others abort. Longer than any pause of a machine that is to be survived.
      connect_s: seconds to wait until all processes are there.

    Raises:
      ClusterError: variables incomplete or wrong, no cluster found.
      LostProcessError: the port is in use. When others are missing at the end of
        ``connect_s``, the program says so and ends with status 1, since a restart may help.
    """
    variables = {name: os.environ.get(name, "") for name in _VARIABLES}
    options: dict[str, Any] = {}
    if any(variables.values()):
        options = _from_variables(variables)
        if options["num_processes"] == 1:
            return
    elif not detect:
        return
    jax.config.update("jax_enable_preemption_service", False)
    # CPU devices would run independent programs side by side, in another order in every process,
    # and the collective operations inside them would wait for each other for ever.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    overdue = threading.Timer(connect_s, _give_up, [connect_s])
    overdue.daemon = True
    overdue.start()
    try:
        jax.distributed.initialize(
            **options,
            heartbeat_timeout_seconds=heartbeat_s,
            initialization_timeout=connect_s + 60,
            shutdown_timeout_seconds=_SHUTDOWN_S,
        )
    except ValueError as error:
        if options:
            raise
        raise ClusterError(
            f"no cluster found ({error}): start the program by srun, by mpirun, on a TPU VM, by "
            f"python -m vision.programs.launch, or set {', '.join(_VARIABLES)}"
        ) from error
    finally:
        overdue.cancel()


def _give_up(connect_s: int) -> None:
    # When jax's own time is up, C++ aborts the process: nothing could be said from Python.
    address = jax_internals.coordinator_address() or "(not found yet)"
    print(
        f"error: not all processes of the run were there within {connect_s} s; the address of "
        f"process 0 is {address} (JAX_COORDINATOR_ADDRESS, or what the cluster says): look at the "
        "other processes' output, the host's name and whether the port is open",
        file=sys.stderr,
    )
    abandon(1)


def _from_variables(variables: dict[str, str]) -> dict[str, Any]:
    missing = [name for name, value in variables.items() if not value]
    if missing:
        raise ClusterError(
            f"{' and '.join(missing)} not set: {', '.join(_VARIABLES)} go together (host:port of "
            "process 0, number of processes, number of this one from 0)"
        )
    address, *numbers = variables.values()
    if not address.rpartition(":")[0] or not address.rpartition(":")[2].isdigit():
        raise ClusterError(f"JAX_COORDINATOR_ADDRESS={address} is not host:port")
    for name, text in zip(_VARIABLES[1:], numbers, strict=True):
        if not text.isdigit():
            raise ClusterError(f"{name}={text} is not a number")
    count, index = map(int, numbers)
    if not index < count:
        raise ClusterError(f"JAX_PROCESS_ID={index} is not below JAX_NUM_PROCESSES={count}")
    if index == 0 and count > 1:
        _check_port(os.environ.get("JAX_COORDINATOR_BIND_ADDRESS") or address)
    return {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": index,
        # SLURM around processes that somebody else numbered must not be asked for devices.
        "cluster_detection_method": "deactivate",
    }


def _check_port(address: str) -> None:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET if host.startswith("127.") else socket.AF_INET6
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host if family == socket.AF_INET else "::", int(port)))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise LostProcessError(
                    f"port {port} of JAX_COORDINATOR_ADDRESS={address} is in use: a process of an "
                    "earlier run, or another program; take another port"
                ) from error


def leave() -> None:
    """Leaves in good order: waits for all processes, then ends the connection.

    For the end of a run that went well everywhere; after an error it is ``abandon``.
    """
    if client() is None:
        return
    barrier("leave")
    jax.distributed.shutdown()


def abandon(status: int) -> NoReturn:
    """Ends this process at once with ``status``, without waiting for the others.

    A process that failed would otherwise wait for the others when Python exits, then be aborted,
    and its exit status would be SIGABRT's. The others see their connections end.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    logging.shutdown()
    os._exit(status)


def client() -> Any | None:
    """The connection to the coordination service; None for a run of one process."""
    return jax_internals.coordination_client()


def is_main() -> bool:
    """Whether this is process 0, which writes what is written once."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until all processes have come here.

    Raises:
      LostProcessError: some process did not come within half an hour; names it.
    """
    connection = client()
    if connection is not None:
        _wait(connection, f"vision/{name}")


def agree(value: T) -> T:
    """The value of process 0, on all processes; all must call in the same order.

    Args:
      value: anything that JSON can hold, of a few kilobytes; those of other processes are ignored.
        Also with one process it passes through JSON (tuples become lists).
    """
    return _exchange(value if is_main() else None)[0]


def gather(value: T) -> list[T]:
    """The values of all processes by process index, on all processes.

    Args:
      value: anything that JSON can hold, of a few kilobytes.
    """
    return _exchange(value)


def raise_together(error: UserError | None) -> None:
    """Raises an error of one process on all of them; all must call in the same order.

    Args:
      error: of this process; None for none.

    Raises:
      UserError: ``error``; without one, that of the first process that has one, which is named,
        with its exit status.
    """
    found = gather(None if error is None else (str(error), error.status))
    if error is not None:
        raise error
    for process, other in enumerate(found):
        if other is not None:
            problem = UserError(f"process {process}: {other[0]}")
            problem.status = other[1]
            raise problem


def together(
    work: Callable[[], T],
    *,
    agreed: tuple[type[Exception], ...] = (),
    text: Callable[[Exception], str] = str,
) -> T:
    """Calls ``work`` on all processes; what goes wrong on one of them goes wrong on all.

    A process whose work fails says so in the place of its next ``agree`` or ``gather``. The others
    learn it in theirs: inside the work, wherever they talk to each other, or at its end. A piece
    of work that waits for devices should therefore meet before it: ``meet``.

    Args:
      work: makes the same calls of ``agree`` and ``gather`` on all processes, and no ``barrier``.
      agreed: exceptions that all processes raise at the same place, passed on as they are.
      text: of an exception, for the other processes.

    Raises:
      FailedTogetherError: on every process, with the same text.
      LostProcessError: it failed here, and the others did not come within five minutes: they wait
        inside the work for what this process should have done, and only its end frees them.
    """
    if client() is None:
        return work()
    try:
        result = work()
        meet()
        return result
    except (*agreed, FailedTogetherError):
        raise
    except Exception as error:
        said = text(error)[:_LONGEST_TEXT]
        try:
            _exchange(None, said)
        except (LostProcessError, jax.errors.JaxRuntimeError) as lost:
            raise LostProcessError(
                f"process {jax.process_index()}: {said}; the others wait for it in the middle of "
                "that, so the run ends here; the same command goes on from its last checkpoint"
            ) from lost
        raise AssertionError("a failure was told and not heard") from error


def meet() -> None:
    """Waits until all processes are here; one that failed meanwhile makes all fail.

    Raises:
      FailedTogetherError: see ``together``.
    """
    _exchange(None)


def collect(name: str, value: T) -> list[T] | None:
    """The values of all processes by process index, on process 0; None on the others.

    Unlike ``gather`` it may be called from any thread, at any time, and only process 0 waits.

    Args:
      name: says which values belong together; no two collections have the same.
      value: anything that JSON can hold, of less than a megabyte.
    """
    text = json.dumps(value)
    connection = client()
    if connection is None:
        return [json.loads(text)]
    folder = f"vision/collect/{name}/"
    if not is_main():
        connection.key_value_set(f"{folder}{jax.process_index()}", text)
        return None
    keys = [f"{folder}{index}" for index in range(1, jax.process_count())]
    others = [connection.blocking_key_value_get(key, _PATIENCE_S * 1000) for key in keys]
    connection.key_value_delete(folder)
    return [json.loads(encoded) for encoded in (text, *others)]


def _exchange(value: Any, failed: str | None = None) -> list[Any]:
    """The values of all processes; raises FailedTogetherError where one gives ``failed``."""
    text = json.dumps({"value": value} if failed is None else {"failed": failed})
    connection = client()
    if connection is None:
        return [json.loads(text)["value"]]
    number = next(_exchanges)
    folder = f"vision/exchange/{number}/"
    connection.key_value_set(f"{folder}{jax.process_index():06d}", text)
    patience_s = _PATIENCE_S if failed is None else _PATIENCE_OF_FAILED_S
    _wait(connection, f"vision/exchange/{number}", patience_s)
    said = [json.loads(encoded) for _, encoded in sorted(connection.key_value_dir_get(folder))]
    assert len(said) == jax.process_count(), said
    # No process reaches this barrier before it has read the values of the exchange before.
    if is_main():
        connection.key_value_delete(f"vision/exchange/{number - 1}")
    if failures := {i: each["failed"] for i, each in enumerate(said) if "failed" in each}:
        raise FailedTogetherError(failures)
    return [each["value"] for each in said]


def _wait(connection: Any, name: str, patience_s: int = _PATIENCE_S) -> None:
    try:
        connection.wait_at_barrier(name, patience_s * 1000)
    except jax.errors.JaxRuntimeError as error:
        raise LostProcessError(f"the processes did not meet at {name}: {error}") from error
