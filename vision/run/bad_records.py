"""Records that could not be read, counted over all processes and restarts."""

from __future__ import annotations

from vision.evaluate.evaluator import BatchIterator
from vision.parallel import cluster
from vision.run.journal import Journal
from vision.run.log import Progress


class BadRecords:
    """Counts the records that a loader replaced by masked placeholders.

    Attributes:
      here: how many this process has met since the checkpoint.
    """

    def __init__(self, before: int, progress: Progress):
        self.here = 0
        self._before, self._progress = before, progress

    def take(self, loader: BatchIterator, step: int, journal: Journal) -> None:
        """Notes those that ``loader`` met since the last call, for the batch of update ``step``."""
        for record in loader.take_bad():
            self.here += 1
            if self._before + self.here == 1:
                self._progress.say(
                    f"masked a bad record: {record.source} {record.key}: {record.reason}; the "
                    "others are listed in bad_records.jsonl"
                )
            journal.bad_record(step, record)

    def total(self, here: int) -> int:
        """Those of all processes since the beginning of the run, with ``here`` of this one; every
        process has to ask."""
        return self._before + sum(cluster.gather(here))
