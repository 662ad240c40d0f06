"""Trials of a sweep: folders that are ordinary workdirs, each with what became of it.

``SWEEP/0003`` is the workdir of trial 3. Its ``trial.json`` says what was varied and, when the
trial has ended, how. Whoever works on a trial holds the lock of ``trial.lock`` in it, and so does
the training that it starts: a trial whose lock is free and that has not ended was broken off.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal

from vision.run.log import METRICS, last_values, read_rows
from vision.run.sealed import NotAsWrittenError, seal, unseal
from vision.run.workdir import WorkdirError, write_text

TRIAL, LOCK = "trial.json", "trial.lock"
State = Literal["open", "complete", "pruned", "failed"]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
      folder: its workdir.
      parameters: key of the config to the text it was set to.
      state: ``open`` until it has ended.
      value: of the metric, at its end or, where it was pruned, at its last evaluation; None where
        there is none.
      error: what went wrong; empty where nothing did.
      seconds: that it took, over all its starts.
    """

    folder: Path
    parameters: Mapping[str, str]
    state: State = "open"
    value: float | None = None
    error: str = ""
    seconds: float = 0.0

    @property
    def number(self) -> int:
        """Its place in the sweep, from 0."""
        return int(self.folder.name)

    def save(self) -> Trial:
        """Writes ``trial.json``, in one step."""
        row = {key: x for key, x in dataclasses.asdict(self).items() if key != "folder"}
        write_text(self.folder / TRIAL, seal(row, indent=2, allow_nan=False) + "\n")
        return self

    def ended(self, state: State, value: float | None, error: str, seconds: float) -> Trial:
        """The same with its ending, written down."""
        known = value if value is not None and math.isfinite(value) else None
        return dataclasses.replace(
            self, state=state, value=known, error=error, seconds=self.seconds + seconds
        ).save()


def folder_of(sweep: Path, number: int) -> Path:
    """``SWEEP/0003``."""
    return sweep / f"{number:04d}"


def opened(sweep: Path, number: int, parameters: Mapping[str, str]) -> Trial:
    """The trial of a number, as it stands or new.

    Raises:
      WorkdirError: its folder cannot be written, or was made for other values.
    """
    folder = folder_of(sweep, number)
    found = read(folder)
    if found is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkdirError(f"{folder} cannot be made: {error.strerror}") from error
        return Trial(folder, parameters).save()
    if dict(found.parameters) != dict(parameters):
        raise WorkdirError(
            f"{folder} was made for {shown(found.parameters)}, not for {shown(parameters)}: take "
            "another --workdir"
        )
    return found


def read(folder: Path) -> Trial | None:
    """What ``save`` wrote; None where there is nothing.

    Raises:
      WorkdirError: it is damaged.
    """
    path = folder / TRIAL
    try:
        row, _ = unseal(path.read_bytes().decode("utf-8", "backslashreplace"))
        return Trial(folder, **row)
    except FileNotFoundError:
        return None
    except (NotAsWrittenError, TypeError) as error:
        raise WorkdirError(
            f"{path} is damaged ({error}): delete it and run the command of the sweep again"
        ) from error


def all_trials(sweep: Path) -> list[Trial]:
    """Those that were begun, in order of their numbers."""
    folders = (path for path in sweep.glob("*") if re.fullmatch(r"\d{4,}", path.name))
    found = [read(folder) for folder in sorted(folders, key=lambda path: int(path.name))]
    return [trial for trial in found if trial is not None]


def shown(parameters: Mapping[str, str]) -> str:
    """``model.depth=2 seed=1`` for people."""
    return " ".join(f"{key}={value}" for key, value in parameters.items())


def held(path: Path, *, wait: bool) -> IO[str] | None:
    """The open file that holds the lock of a path as long as it or a copy of it is open.

    Args:
      path: of the lock; made where it is not there.
      wait: until it is free; else None where it is not.
    """
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.close()
        return None
    return file


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits for a lock and holds it as long as the context is open."""
    file = held(path, wait=True)
    assert file is not None
    with file:
        yield


def value_of(workdir: Path, metric: str) -> float | None:
    """The newest value of a metric of a run; None where there is none."""
    return last_values(workdir / METRICS).get(metric)


def values_of(workdir: Path, metric: str) -> dict[int, float]:
    """Step to value of a metric, finite ones alone."""
    rows: list[dict[str, Any]] = read_rows(workdir / METRICS)
    found = {row["step"]: row[metric] for row in rows if row.get(metric) is not None}
    return {int(step): float(x) for step, x in found.items() if math.isfinite(x)}
