"""Runs a program as several processes on this machine, and again when one of them dies.

    python -m vision.programs.launch --processes 2 -- train.py --config=... --workdir=...

The processes find each other by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
All write to this terminal, whole lines at a time, those but process 0 with their number before
every line. SIGTERM and SIGINT go to all; a second one ends them at once.

Exit status: 0 when all ended well; 143 or 130 when they were stopped by SIGTERM or SIGINT; 2 for
wrong arguments or a wrong config, which is never tried again; else that of the process that
failed last, 128 + n for a process that died of signal n.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

_POLL_S = 0.05
_WINDOW_S = 3600.0
_USER_ERROR = 2
_ASKED = (128 + signal.SIGTERM, 128 + signal.SIGINT)
_WRITING = threading.Lock()  # of this process' own output: one line at a time


@dataclasses.dataclass(frozen=True)
class Launch:
    """What is run on this machine, in how many processes, and how failures are handled.

    Attributes:
      command: arguments for this Python: a program and its flags.
      processes: how many of them.
      devices: virtual CPU devices of each; None leaves the choice of devices to jax.
      restarts: how often the set is started again within an hour.
      grace_s: seconds between SIGTERM and SIGKILL for processes whose set has failed.
      logs: folder for the output of all processes but the first; None for this terminal.
      heartbeat: file that the program touches as long as it makes progress.
      stall_s: restart the set when ``heartbeat`` has not changed for so many seconds.
    """

    command: tuple[str, ...]
    processes: int = 2
    devices: int | None = None
    restarts: int = 3
    grace_s: float = 20.0
    logs: Path | None = None
    heartbeat: Path | None = None
    stall_s: float | None = None


class Ending(NamedTuple):
    """How a set of processes ended: in words, and as the status of a shell."""

    reason: str
    status: int


class _Watch:
    """Notices that a file which used to change does so no more, by this machine's clock alone."""

    def __init__(self, path: Path | None, stall_s: float | None):
        self._path, self._stall_s = path, stall_s
        self._seen = self._modified()
        self._changed_s: float | None = None  # the file of an earlier set says nothing

    def _modified(self) -> int | None:
        try:
            return self._path.stat().st_mtime_ns if self._path else None
        except OSError:
            return None

    def stalled(self) -> bool:
        modified, now = self._modified(), time.monotonic()
        if modified != self._seen:
            self._seen, self._changed_s = modified, now
        if self._stall_s is None or self._changed_s is None:
            return False
        return now - self._changed_s > self._stall_s


class _Guard:
    """A process that outlives the launcher, if only to end what a killed one has left behind.

    It reads the numbers of the groups that are alive from a pipe, whose end it sees when the
    launcher is gone, by whatever means. What the processes had started, and does not notice
    that its parent is dead, ends with their group.
    """

    def __init__(self):
        read, self._write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._write)
                os.setsid()
                self._keep(read)
            finally:
                os._exit(0)
        os.close(read)

    @staticmethod
    def _keep(read: int) -> None:
        groups: set[int] = set()
        with os.fdopen(read) as lines:
            for line in lines:
                (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
        for group in groups:
            _kill_group(group)

    def tell(self, sign: str, group: int) -> None:
        """Notes a group that lives (``+``) or has ended (``-``)."""
        # Without a guard the launcher still does its work.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._write, f"{sign}{group}\n".encode())

    def close(self) -> None:
        os.close(self._write)
        os.waitpid(self._pid, 0)


class _Set:
    """The processes of one attempt."""

    def __init__(self, launch: Launch, guard: _Guard):
        self._launch, self._guard = launch, guard
        self._pumps: list[threading.Thread] = []
        self.children: list[subprocess.Popen[bytes]] = []
        address = f"127.0.0.1:{_free_port()}"
        try:
            for index in range(launch.processes):
                self.children.append(self._start(index, address))
        except BaseException:
            self.end()
            raise
        for index, child in enumerate(self.children):
            prefix = f"[{index}] ".encode() if index > 0 else b""
            for source, target in ((child.stdout, sys.stdout), (child.stderr, sys.stderr)):
                if source is not None:
                    args = prefix, source, target.buffer
                    pump = threading.Thread(target=_pump, args=args, daemon=True)
                    pump.start()
                    self._pumps.append(pump)

    def _start(self, index: int, address: str) -> subprocess.Popen[bytes]:
        with contextlib.ExitStack() as stack:
            # Process 0 too: an unbuffered `print` writes a line in pieces, others come in between.
            stdout = stderr = subprocess.PIPE
            if index > 0 and (logs := self._launch.logs) is not None:
                logs.mkdir(parents=True, exist_ok=True)
                stdout = stack.enter_context((logs / f"process_{index}.log").open("ab"))
                stderr = subprocess.STDOUT
            child = subprocess.Popen(
                [sys.executable, *self._launch.command],
                env=environment(self._launch, index, address),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                # A session of its own: Ctrl-C in a terminal reaches the launcher only, which
                # passes it on once; and what the child starts can be ended with it.
                start_new_session=True,
            )
        self._guard.tell("+", child.pid)
        return child

    def codes(self) -> list[int | None]:
        """Status of each, -n after signal n, None while it runs. Nobody is reaped here."""
        return [_code(child) for child in self.children]

    def send(self, number: int) -> None:
        for child in self.children:
            if _code(child) is None:
                os.kill(child.pid, number)

    def wait(self, seconds: float) -> bool:
        """Waits until all have ended; False when some have not by then."""
        deadline = time.monotonic() + seconds
        while None in self.codes() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return None not in self.codes()

    def end(self, grace_s: float = 0.0) -> None:
        """Ends what is left, with everything that it has started."""
        if grace_s > 0 and None in self.codes():
            self.send(signal.SIGTERM)
            self.wait(grace_s)
        for child in self.children:
            if child.returncode is None:
                # Not reaped yet: the number of its group cannot belong to anybody else.
                _kill_group(child.pid)
                self._guard.tell("-", child.pid)
                child.wait()
        for pump in self._pumps:
            pump.join(timeout=5)


class Launcher:
    """Runs the processes of a launch to their end; ``ask`` passes a signal on to the processes."""

    def __init__(self, launch: Launch):
        self._launch = launch
        self._asked: list[int] = []

    def ask(self, number: int) -> None:
        """Takes a request to stop: the first is for the program, the second is final."""
        self._asked.append(number)

    def run(self) -> int:
        """Returns the exit status of the whole launch."""
        guard = _Guard()
        try:
            return self._attempts(guard)
        finally:
            guard.close()

    def _attempts(self, guard: _Guard) -> int:
        restarts: collections.deque[float] = collections.deque()
        while True:
            processes = _Set(self._launch, guard)
            try:
                ending = self._supervise(processes)
            finally:
                processes.end()
            if ending.status == 0 or ending.status in _ASKED:
                return ending.status
            while restarts and time.monotonic() - restarts[0] > _WINDOW_S:
                restarts.popleft()
            if ending.status == _USER_ERROR:
                _say(f"{ending.reason}: an error of the user, not restarted")
            elif self._asked:
                _say(f"{ending.reason} while stopping")
            elif len(restarts) >= self._launch.restarts:
                _say(f"{ending.reason}; giving up after {len(restarts)} restarts within an hour")
            else:
                restarts.append(time.monotonic())
                _say(f"{ending.reason}; restart {len(restarts)} of {self._launch.restarts}")
                continue
            return ending.status

    def _supervise(self, processes: _Set) -> Ending:
        watch = _Watch(self._launch.heartbeat, self._launch.stall_s)
        passed_on = 0
        while True:
            for number in self._asked[passed_on:]:
                passed_on += 1
                processes.send(number if passed_on == 1 else signal.SIGKILL)
            codes = processes.codes()
            ended = [_ending(index, code) for index, code in enumerate(codes) if code]
            stopped = [ending for ending in ended if ending.status in _ASKED]
            failed = [ending for ending in ended if ending.status not in _ASKED]
            if failed:
                cause = min(failed, key=_blame)
                if None in codes:
                    _say(f"{cause.reason}: ending the others")
                    processes.end(self._launch.grace_s)
                return cause
            if None not in codes:
                return stopped[0] if stopped else Ending("all ended well", 0)
            if stopped and not self._asked:
                # Somebody asked one process: by agreement all stop, else they are asked here.
                if not processes.wait(self._launch.grace_s):
                    processes.end(self._launch.grace_s)
                continue
            if not self._asked and watch.stalled():
                reason = f"{self._launch.heartbeat} has not changed for {self._launch.stall_s:g} s"
                _say(f"{reason}: ending all processes")
                processes.end(self._launch.grace_s)
                return Ending(reason, 1)
            time.sleep(_POLL_S)


def environment(launch: Launch, index: int, address: str) -> dict[str, str]:
    """The environment of process ``index`` of a launch whose process 0 listens at ``address``."""
    variables = {
        **os.environ,
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_COORDINATOR_BIND_ADDRESS": address,  # jax would listen on all interfaces
        "JAX_NUM_PROCESSES": str(launch.processes),
        "JAX_PROCESS_ID": str(index),
        "PYTHONUNBUFFERED": "1",
    }
    if launch.devices is not None:
        flag = "--xla_force_host_platform_device_count="
        others = [f for f in os.environ.get("XLA_FLAGS", "").split() if not f.startswith(flag)]
        variables["XLA_FLAGS"] = " ".join([*others, f"{flag}{launch.devices}"])
        variables["JAX_PLATFORMS"] = "cpu"
    return variables


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _code(child: subprocess.Popen[bytes]) -> int | None:
    if child.returncode is not None:
        return child.returncode
    found = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def _ending(index: int, code: int) -> Ending:
    if code < 0:
        return Ending(f"process {index} died of {signal.Signals(-code).name}", 128 - code)
    return Ending(f"process {index} ended with status {code}", code)


def _blame(ending: Ending) -> int:
    """Of several that failed at once, the cause before those that failed in consequence."""
    consequence = 128 + signal.SIGABRT  # what jax does to the processes that remain
    order = (lambda s: s == _USER_ERROR, lambda s: s > 128 and s != consequence, lambda s: s < 128)
    return next((i for i, test in enumerate(order) if test(ending.status)), len(order))


def _pump(prefix: bytes, source: IO[bytes], target: IO[bytes]) -> None:
    with source:
        for line in source:
            _write_line(prefix + line.rstrip(b"\n"), target)


def _write_line(line: bytes, target: IO[bytes]) -> None:
    with _WRITING:
        target.write(line + b"\n")
        target.flush()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _say(text: str) -> None:
    _write_line(f"launch: {text}".encode(), sys.stderr.buffer)


def _parse(arguments: Sequence[str]) -> Launch:
    parser = argparse.ArgumentParser(
        prog="python -m vision.programs.launch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--processes", type=_positive(int), default=2, help="how many (default 2)")
    add("--devices", type=_positive(int), help="virtual CPU devices of each process")
    add("--restarts", type=int, default=3, help="how often within an hour (default 3)")
    add("--grace", type=float, default=20.0, help="seconds from SIGTERM to SIGKILL (default 20)")
    add("--logs", type=Path, help="folder for the output of processes 1, 2, ...")
    add("--stall", type=_positive(float), help="restart when WORKDIR/heartbeat.json is older, in s")
    add("command", nargs="+", help="program and flags, after --")
    options = parser.parse_args(arguments)
    workdir = [a.removeprefix("--workdir=") for a in options.command if a.startswith("--workdir=")]
    if options.stall is not None and not workdir:
        parser.error("--stall needs a program with --workdir=..., where it writes `heartbeat.json`")
    return Launch(
        command=tuple(options.command),
        processes=options.processes,
        devices=options.devices,
        restarts=options.restarts,
        grace_s=options.grace,
        logs=options.logs,
        heartbeat=Path(workdir[-1]) / "heartbeat.json" if workdir else None,
        stall_s=options.stall,
    )


def _positive(kind: type):
    def number(text: str):
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return number


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    launcher = Launcher(_parse(arguments))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: launcher.ask(received))
    return launcher.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
