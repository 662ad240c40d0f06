"""How far a run has come: what a checkpoint says beside the arrays of the state."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class RunCursor:
    """Where a run stands, beside its ``State``. The defaults are those of a run that begins.

    Attributes:
      step: updates done.
      time: seconds since 1970 when it was saved; 0 where it never was.
      seconds: wall time by activity since the run began; see ``vision.run.clock.Stopwatch``.
      starts: how often the program has been started for this run.
      data_offset: update ``t + 1`` takes batch ``t + data_offset``; going back to a checkpoint
        and around a batch moves it.
      bad_records: records that were masked out, of all processes.
      skipped: updates that were passed over because they were not finite.
      skipped_in_a_row: how many of the newest updates were.
      unevaluated: whether evaluators were due at ``step``, which run after the save; whether they
        did says ``vision.checkpoint.evaluations``.
      best_value, best_step: the best of what ``EarlyStop`` watches, and when it was measured; None
        and 0 before the first.
      evaluations_since_best: how many evaluations in a row were not better.
    """

    step: int = 0
    time: float = 0.0
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    starts: int = 0
    data_offset: int = 0
    bad_records: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    unevaluated: bool = False
    best_value: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0

    def to_json(self) -> dict[str, Any]:
        """The meta data of a checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, meta: Mapping[str, Any]) -> RunCursor:
        """A cursor from a checkpoint's meta data; what an older one does not hold has its default,
        and what is not a field is left out."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in meta.items() if name in names})
