"""What stays the same during one call of ``train``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vision.checkpoint.store import CheckpointStore
from vision.run.clock import Stopwatch
from vision.run.compile import Compiled
from vision.run.cost import StepCost
from vision.run.log import Progress
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
    """

    prepared: Prepared
    compiled: Compiled
    cost: StepCost
    store: CheckpointStore
    workdir: Path
    lock: WorkdirLock
    watch: Stopwatch
    progress: Progress
