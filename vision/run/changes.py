"""What a changed config changes for a run that goes on with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_collections

from vision.config.errors import UserError
from vision.config.specs import build, differences, to_plain
from vision.run.cursor import RunCursor
from vision.run.prepare import Prepared
from vision.run.workdir import CONFIG, read_config
from vision.train.optim import Optimizer
from vision.train.schedule import TrainLength


def earlier_config(workdir: Path) -> ml_collections.ConfigDict | None:
    """The config that a workdir has before it is opened with another; None where it has none that
    can be read."""
    try:
        return read_config(workdir) if (workdir / CONFIG).exists() else None
    except UserError:
        return None


def describe_change(
    earlier: ml_collections.ConfigDict | None, prepared: Prepared, config: Any, cursor: RunCursor
) -> list[str]:
    """Lines for people: values that changed, and what follows for learning rate and data.

    Args:
      earlier: the config that the run has been trained with so far; None if not known.
      prepared: the run with the new config.
      config: the new config.
      cursor: where the run goes on.
    """
    if earlier is None or not (changed := differences(to_plain(earlier), to_plain(config))):
        return []
    lines = [f"config changed: {line.removeprefix('config.')}" for line in changed]
    if cursor.step == 0:
        return lines
    new = prepared.step.train_length
    try:
        old = TrainLength(new.num_examples, _batch_size(earlier))
        total: Any = earlier.total
        old = TrainLength(old.num_examples, old.batch_size, old.steps(total, "total"))
        optimizer = build(earlier.optimizer)
    except (UserError, AttributeError):
        return lines
    now = prepared.experiment.optimizer
    if isinstance(optimizer, Optimizer) and isinstance(now, Optimizer):
        step = jnp.int32(cursor.step)
        rates = float(optimizer.rate(step, old)), float(now.rate(step, new))
        if rates[0] != rates[1]:
            lines.append(f"learning rate of update {cursor.step + 1}: {rates[0]:.4g} before, "
                         f"{rates[1]:.4g} now")  # fmt: skip
    batch = cursor.step + cursor.data_offset
    seen = batch * old.batch_size
    if old.batch_size != new.batch_size:
        lines.append(
            f"place in the data: example {seen:,} of the stream before, "
            f"{batch * new.batch_size:,} now (batch {batch:,})"
        )
    if (old.batch_size, old.total_steps) != (new.batch_size, new.total_steps):
        left = max(new.total_steps - cursor.step, 0)
        lines.append(
            f"examples in all: {seen + left * new.batch_size:,} ({seen:,} so far, {left:,} steps "
            f"of {new.batch_size} to go); {old.total_steps * old.batch_size:,} before the change"
        )
    return lines


def _batch_size(config: Any) -> int:
    return int(config.data.batch_size)
