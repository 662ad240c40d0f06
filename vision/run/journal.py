"""The files that a run writes beside its checkpoints, each row of each step once."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision.config.errors import caused_by
from vision.run.clock import Heartbeat
from vision.run.log import MetricLog, RowFile
from vision.run.workdir import WorkdirError

BAD_RECORDS, SKIPPED = "bad_records.jsonl", "skipped.jsonl"
FAILED_EVALUATIONS = "failed_evaluations.jsonl"


class Journal:
    """``metrics.jsonl``, TensorBoard files, ``bad_records.jsonl``, ``skipped.jsonl``,
    ``failed_evaluations.jsonl`` and the heartbeat.

    Opened at a step, rows beyond it are dropped. Process 0 writes everything; the others write
    the bad records that they met to ``bad_records-<process>.jsonl``.

    Raises:
      WorkdirError: the folder cannot be written.
    """

    def __init__(self, workdir: Path, step: int, process: int = 0, processes: int = 1):
        self._main = process == 0
        name = BAD_RECORDS if self._main else BAD_RECORDS.replace(".", f"-{process}.")
        try:
            self._bad_records = RowFile(workdir / name, step)
            if not self._main:
                return
            for path in workdir.glob("bad_records-*.jsonl"):
                # Of an earlier start with more processes.
                match = re.fullmatch(r"bad_records-(\d+)\.jsonl", path.name)
                if match and int(match[1]) >= processes:
                    RowFile(path, step)
            self._metrics = MetricLog(workdir, step)
            self._skipped = RowFile(workdir / SKIPPED, step)
            self._failed = RowFile(workdir / FAILED_EVALUATIONS, step)
            self._heartbeat = Heartbeat(workdir)
        except OSError as error:
            problem = WorkdirError(f"workdir {workdir} cannot be written: {error.strerror}")
            raise caused_by(problem, error) from error

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        if self._main:
            self._metrics.write(step, values)

    def bad_record(self, step: int, record: Any) -> None:
        """``record`` is a dataclass that names source, key and reason."""
        self._bad_records.write({"step": step, **dataclasses.asdict(record)})

    def skipped(self, step: int, row: Mapping[str, Any]) -> None:
        """An update that was not made, and the records of its batch."""
        if self._main:
            self._skipped.write({"step": step, **row})

    def failed_evaluation(self, step: int, evaluator: str, error: str) -> None:
        """An evaluator that raised, and what it said."""
        if self._main:
            self._failed.write({"step": step, "evaluator": evaluator, "error": error})

    def beat(self, step: int, activity: str, *, now: bool = False) -> None:
        """A sign of life; see ``vision.run.clock.Heartbeat``."""
        if self._main:
            self._heartbeat.beat(step, activity, now=now)

    def flush(self, *, sync: bool = True) -> None:
        """Puts everything on disk; called before a checkpoint of the same step."""
        self._bad_records.flush(sync=sync)
        if self._main:
            self._skipped.flush(sync=sync)
            self._failed.flush(sync=sync)
            self._metrics.flush()
