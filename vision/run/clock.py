"""Where the time of a run goes, summed over restarts."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vision.config.files import replace_file
from vision.parallel import cluster
from vision.run.cursor import RunCursor
from vision.run.log import Meter
from vision.run.sealed import NotAsWrittenError, seal, unseal

log = logging.getLogger(__name__)

HEARTBEAT = "heartbeat.json"
# A run that has no checkpoint yet gets one after this time at the latest.
FIRST_SAVE_S = 120.0


class Stopwatch:
    """Seconds of wall time by activity.

    ``start`` (imports, data, building), ``compile``, ``restore``, ``step`` (the device computes),
    ``data`` (it waits for a batch), ``evaluate``, ``checkpoint`` (the loop waits for a save),
    ``lost`` (between the checkpoint a run was resumed from and its last sign of life: work done
    twice) and ``down`` (from there until the program was started again).

    ``seconds`` is saved with every checkpoint and given back on resume, so that the sums cover
    the whole run.
    """

    def __init__(self, seconds: Mapping[str, float] | None = None):
        self.seconds: dict[str, float] = dict(seconds or {})

    def resume(self, cursor: RunCursor, alive: Mapping[str, Any] | None, age_s: float) -> None:
        """Adds what earlier starts of the run took, and the time between them and this one.

        Args:
          cursor: of the checkpoint, or of a run that begins.
          alive: the last heartbeat before this start.
          age_s: how long this program has been running.
        """
        for activity, seconds in cursor.seconds.items():
            self.add(activity, seconds)
        if cursor.time and alive:
            self.add("lost", alive["time"] - cursor.time)
            self.add("down", time.time() - age_s - max(alive["time"], cursor.time))

    @contextlib.contextmanager
    def __call__(self, activity: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(activity, time.perf_counter() - start)

    def add(self, activity: str, seconds: float) -> None:
        self.seconds[activity] = self.seconds.get(activity, 0.0) + max(seconds, 0.0)

    @property
    def total_s(self) -> float:
        """Everything but ``down``."""
        return sum(self.seconds.values()) - self.seconds.get("down", 0.0)

    @property
    def goodput(self) -> float:
        """Share of the time, 0 to 1, in which the device did work that the run kept; time while
        no process ran is not counted."""
        return self.seconds.get("step", 0.0) / max(self.total_s, 1e-9)

    def shares(self) -> str:
        """``step 71 %, start 12 %, ...``, largest first, with ``down`` in seconds at the end."""
        total = max(self.total_s, 1e-9)
        parts = sorted(self.seconds.items(), key=lambda item: -item[1])
        shown = [f"{name} {s / total:.0%}" for name, s in parts if name != "down"]
        if (down := self.seconds.get("down", 0.0)) >= 1:
            shown.append(f"and {down:.0f} s down")
        return ", ".join(shown)


class StepClock:
    """Divides the time of the loop between its steps and what they waited for.

    Args:
      watch: gets the seconds, as ``step`` and ``data``.
      meters: get every step too.
    """

    def __init__(self, watch: Stopwatch, *meters: Meter):
        self._watch, self._meters = watch, meters
        self._idle_until = 0.0  # when the newest finished step ended; later after a pause
        self._saved_s = watch.seconds.get("step", 0.0)

    def go(self) -> None:
        """The next step begins now: what was before does not count as its time."""
        self._idle_until = time.perf_counter()

    def finished(self, waited_s: float) -> None:
        """A step has ended; it may have been waited ``waited_s`` for its batch."""
        now = time.perf_counter()
        total_s = now - self._idle_until
        waited_s = min(waited_s, total_s)
        for meter in self._meters:
            meter.add(total_s, waited_s)
        self._watch.add("data", waited_s)
        self._watch.add("step", total_s - waited_s)
        self._idle_until = now

    def saved(self) -> None:
        """A checkpoint holds the steps so far."""
        self._saved_s = self._watch.seconds.get("step", 0.0)

    def went_back(self) -> None:
        """The steps since the last checkpoint are lost."""
        step_s = self._watch.seconds.get("step", 0.0)
        self._watch.seconds["step"] = self._saved_s
        self._watch.add("lost", step_s - self._saved_s)


class SaveTimer:
    """How long ago the last checkpoint was made.

    Args:
      has_checkpoint: whether the run has one. Until then it is made early.
    """

    def __init__(self, has_checkpoint: bool):
        self._has_checkpoint = has_checkpoint
        self._saved_s = time.monotonic()

    def saved(self) -> None:
        """A checkpoint is being made."""
        self._has_checkpoint = True
        self._saved_s = time.monotonic()

    def overdue(self, limit_s: float) -> bool:
        """Whether the last one is older than ``limit_s`` seconds, on all processes the same (by
        the clock of process 0); of a run without one, whether its start is, or two minutes ago."""
        limit_s = limit_s if self._has_checkpoint else min(limit_s, FIRST_SAVE_S)
        return cluster.agree(time.monotonic() - self._saved_s >= limit_s)


class Heartbeat:
    """A small file that says how far a run is, rewritten at most once a second.

    Whoever watches a run looks at its age; the next start reads from it when the last one ended.
    """

    def __init__(self, workdir: Path, interval_s: float = 1.0):
        self._path = workdir / HEARTBEAT
        self._interval_s = interval_s
        self._last_s = 0.0

    def beat(self, step: int, activity: str, *, now: bool = False) -> None:
        """Writes step, activity and time; nothing when the last time was just before."""
        if not now and time.monotonic() - self._last_s < self._interval_s:
            return
        self._last_s = time.monotonic()
        text = seal({"step": step, "activity": activity, "time": time.time()})
        # On a full disk the run matters more than its sign of life; nor does it wait for the disk.
        with contextlib.suppress(OSError), replace_file(self._path, sync=False) as temporary:
            temporary.write_text(text + "\n")


def last_heartbeat(workdir: Path) -> dict[str, Any] | None:
    """``step``, ``activity`` and ``time`` (seconds since 1970) of the last sign of life; None, with
    a warning, where the file is damaged."""
    path = workdir / HEARTBEAT
    try:
        beat, _ = unseal(path.read_bytes().decode("utf-8", "backslashreplace"))
        if not isinstance(beat.get("time"), float) or not math.isfinite(beat["time"]):
            raise NotAsWrittenError("it has no time")
    except OSError:
        return None
    except NotAsWrittenError as error:
        log.warning("%s is damaged (%s): the time since the last start is not counted", path, error)
        return None
    return beat


def process_age_s() -> float:
    """Seconds since this process was started: imports are part of a run's time; 0 if unknown."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        up_s = float(Path("/proc/uptime").read_text().split()[0])
        return max(0.0, up_s - started / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return 0.0
