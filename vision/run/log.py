"""What a run writes down: ``metrics.jsonl``, TensorBoard files and the line on the terminal."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore

from vision.config.files import replace_file
from vision.run.sealed import NotAsWrittenError, seal, unseal

METRICS = "metrics.jsonl"
log = logging.getLogger(__name__)


class RowFile:
    """Rows of JSON, each with its ``step`` and a checksum, in order, every step's rows once.

    Reopened at a step, rows beyond it are dropped: the run that wrote them was cut off before a
    checkpoint held them, and they will be written again. Rows that a full disk refuses are kept
    and written when there is room.

    Raises:
      OSError: an existing file cannot be cut to ``step``.
    """

    def __init__(self, path: Path, step: int):
        _truncate(path, step)
        self._path = path
        self._size = path.stat().st_size if path.exists() else 0
        self._waiting: list[str] = []

    def write(self, row: Mapping[str, Any]) -> None:
        self._waiting.append(seal(row) + "\n")
        self.flush()

    def last(self) -> dict[str, Any]:
        """The newest row in the file; empty where there is none."""
        return (read_rows(self._path) or [{}])[-1]

    def replace_last(self, row: Mapping[str, Any]) -> None:
        """Writes ``row`` in the place of the newest one."""
        if self._waiting:
            self._waiting[-1] = seal(row) + "\n"
            self.flush()
            return
        try:
            _write_rows(self._path, [*read_rows(self._path)[:-1], row])
        except OSError as error:
            log.error("%s cannot be written (%s); a row waits", self._path, error.strerror)
            return
        self._size = self._path.stat().st_size

    def flush(self, *, sync: bool = False) -> bool:
        """Writes what waits, with ``sync`` down to the disk; returns whether that worked."""
        if not self._waiting and not (sync and self._size):
            return True
        data = "".join(self._waiting).encode()
        try:
            with self._path.open("ab") as file:
                file.truncate(self._size)  # what a failed write left behind
                file.write(data)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
        except OSError as error:
            log.error("%s cannot be written (%s); rows wait", self._path, error.strerror)
            return False
        self._size += len(data)
        self._waiting = []
        return True


class EventFile:
    """Scalars for TensorBoard, written as they come; after a failed write it gives up, loudly.

    tensorboardX's own writer does this in a thread that a full disk kills, after which closing
    it waits for ever.
    """

    def __init__(self, folder: Path, step: int):
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._writer: EventsWriter | None = None
        earlier = len(list(folder.iterdir()))
        # The writer's own file name has whole seconds: a second file within one needs another.
        suffix = f".{earlier:06d}"
        self._attempt(lambda: EventsWriter(str(folder / "events"), filename_suffix=suffix))
        if step or earlier:  # hides what was written beyond the checkpoint of ``step``
            self.write(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        tagged = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self.write(Event(step=step, wall_time=time.time(), summary=Summary(value=tagged)))

    def write(self, event: Event) -> None:
        writer = self._writer
        if writer is not None:
            self._attempt(lambda: writer.write_event(event) or writer)

    def flush(self) -> None:
        writer = self._writer
        if writer is not None:
            self._attempt(lambda: writer.flush() and writer)

    def _attempt(self, action: Callable[[], Any]) -> None:
        try:
            self._writer = action()
        except OSError as error:
            log.error("%s cannot be written (%s); no more events", self._folder, error.strerror)
            self._writer = None


class MetricLog:
    """One row per step in ``metrics.jsonl``, and the same scalars for TensorBoard.

    Values of one step may arrive in several calls; the row is written when the next step begins
    or on ``flush``. Values that arrive after that, also after a restart, are added to the row.
    """

    def __init__(self, workdir: Path, step: int):
        self._rows = RowFile(workdir / METRICS, step)
        self._events = EventFile(workdir / "tensorboard", step)
        self._row: dict[str, Any] = {}
        self._written = self._rows.last()  # the newest row of the file

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds values to the row of ``step``; non-finite ones are written as null in JSON."""
        if self._row and self._row["step"] != step:
            self._write_row()
        if not self._row and self._written.get("step") == step:
            self._row = dict(self._written)
        self._row.setdefault("step", step)
        for name, value in values.items():
            self._row[name] = value if math.isfinite(value) else None
        self._events.scalars(step, values)

    def flush(self) -> None:
        """Puts everything on disk; called before a checkpoint of the same step."""
        self._write_row()
        self._rows.flush(sync=True)
        self._events.flush()

    def _write_row(self) -> None:
        if not self._row or self._row == self._written:
            self._row = {}
            return
        if self._row["step"] == self._written.get("step"):
            self._rows.replace_last(self._row)
        else:
            self._rows.write(self._row)
        self._written, self._row = self._row, {}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a ``RowFile``.

    Damaged ones are left out and named in a warning; a last line that a kill cut off is left out.
    """
    if not path.exists():
        return []
    text = path.read_bytes().decode("utf-8", "backslashreplace")
    rows: list[tuple[int, dict[str, Any], bool]] = []
    damaged: dict[int, str] = {}
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row, sealed = unseal(line)
            if type(row.get("step")) is not int:
                raise NotAsWrittenError("it has no step")
            rows.append((number, row, sealed))
        except NotAsWrittenError as error:
            if number < len(lines):  # else cut off: its end is missing
                damaged[number] = str(error)
    if any(sealed for _, _, sealed in rows):
        # Rows of older files have no checksum and stand before all that have one.
        first = next(number for number, _, sealed in rows if sealed)
        damaged |= {n: "its checksum is gone" for n, _, sealed in rows if not sealed and n > first}
    for number, problem in sorted(damaged.items()):
        log.warning("%s: line %d is left out: %s", path, number, problem)
    return [row for number, row, _ in rows if number not in damaged]


def last_values(path: Path) -> dict[str, float]:
    """Last value of everything in the rows of a ``RowFile``, NaN for null; without ``step``."""
    values: dict[str, float] = {}
    for row in read_rows(path):
        values |= {k: math.nan if x is None else float(x) for k, x in row.items() if k != "step"}
    return values


def _truncate(path: Path, step: int) -> None:
    if not path.exists():
        return
    _write_rows(path, [row for row in read_rows(path) if row["step"] <= step])


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with replace_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(seal(row) + "\n" for row in rows)


class Meter:
    """Throughput and the share of time spent waiting for data, between two readings.

    Args:
      batch_size: examples in a step.
      mfu: model FLOPs utilisation of a step that takes so many seconds; None if unknown.
    """

    def __init__(self, batch_size: int, mfu: Callable[[float], float | None] = lambda _: None):
        self._batch_size, self._mfu = batch_size, mfu
        self._steps, self._total_s, self._waited_s = 0, 0.0, 0.0

    def add(self, total_s: float, waited_s: float) -> None:
        """One step that took ``total_s`` seconds, ``waited_s`` of them for its batch."""
        self._steps += 1
        self._total_s += total_s
        self._waited_s += waited_s

    def read(self) -> dict[str, float]:
        """``images_per_s``, ``data_wait`` (0 to 1) and, where it is known, ``mfu`` (0 to 1)
        since the last call."""
        total_s = max(self._total_s, 1e-9)
        values = {
            "images_per_s": self._steps * self._batch_size / total_s,
            "data_wait": self._waited_s / total_s,
        }
        if self._steps and (mfu := self._mfu(total_s / self._steps)) is not None:
            values["mfu"] = mfu
        self._steps, self._total_s, self._waited_s = 0, 0.0, 0.0
        return values


class Progress:
    """The line a person watches: rewritten in place on a terminal, plain rows elsewhere.

    Attributes:
      total: steps of the run.
    """

    def __init__(self, total: int, stream: TextIO | None = None, interval_s: float = 10.0):
        self._stream = stream or sys.stderr
        self.total = total
        self._live = self._stream.isatty()
        self._interval_s = 0.2 if self._live else interval_s
        self._last_s = -math.inf
        self._width = 0

    def due(self) -> bool:
        return time.monotonic() - self._last_s >= self._interval_s

    def show(
        self, step: int, loss: float, images_per_s: float, data_wait: float, batch_size: int
    ) -> None:
        """Shows where the run is.

        Args:
          step: updates done.
          loss: of that step.
          images_per_s: since the last line.
          data_wait: share of the time since the last line spent waiting for data, 0 to 1.
          batch_size: examples in a step, for the time that is left.
        """
        eta_s = (self.total - step) * batch_size / max(images_per_s, 1e-9)
        self._last_s = time.monotonic()
        text = (
            f"step {step}/{self.total}  loss {loss:.4f}  {rate(images_per_s)} images/s  "
            f"data {data_wait:.0%}  ETA {duration(eta_s)}"
        )
        if self._live:
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def say(self, text: str) -> None:
        """Writes a line of its own that stays."""
        if self._live and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0
        self._stream.write(text + "\n")
        self._stream.flush()


def duration(seconds: float) -> str:
    """``4:07`` or ``2:31:09``."""
    if not math.isfinite(seconds):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def rate(per_second: float) -> str:
    """``1,240``, ``3.2`` or ``0.041``: never 0 for something that moves."""
    if per_second >= 10 or per_second == 0:
        return f"{per_second:,.0f}"
    return f"{per_second:.1f}" if per_second >= 1 else f"{per_second:.2g}"
