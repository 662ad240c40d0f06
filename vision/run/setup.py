"""What stays the same during one call of ``train``, and how it ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from vision.checkpoint.store import CheckpointStore
from vision.run.clock import Stopwatch
from vision.run.compile import Compiled
from vision.run.cost import StepCost
from vision.run.log import Progress
from vision.run.loggers import Loggers
from vision.run.prepare import Prepared
from vision.run.workdir import WorkdirLock


@dataclasses.dataclass(frozen=True)
class RunSetup:
    """A run that is ready to train.

    Attributes:
      prepared: its parts.
      compiled: its step.
      cost: what the step costs.
      store: its checkpoints.
      workdir: its folder.
      lock: of the folder.
      watch: counts where the time goes.
      progress: the lines for people.
      loggers: where rows and figures go besides the folder.
    """

    prepared: Prepared
    compiled: Compiled
    cost: StepCost
    store: CheckpointStore
    workdir: Path
    lock: WorkdirLock
    watch: Stopwatch
    progress: Progress
    loggers: Loggers


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of ``train`` ended.

    Attributes:
      step: updates done in all.
      signal: the signal that stopped it; None when it ran to the end.
      saved: whether the last state is on disk.
      failed: name of every evaluator that raised to its error, the newest one.
      metrics: last value of everything logged, ``"train/loss"``, ``"test/top1"`` and so on.
    """

    step: int
    signal: int | None
    saved: bool
    metrics: Mapping[str, float]
    failed: Mapping[str, str] = dataclasses.field(default_factory=dict)
