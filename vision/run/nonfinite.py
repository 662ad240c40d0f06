"""What a run does when a loss or a gradient is not finite."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import numpy as np

from vision.config.errors import UserError
from vision.config.ranges import Positive, checked
from vision.parallel import cluster
from vision.parallel.mesh import batch_share
from vision.run.cursor import RunCursor


class TrainingError(UserError):
    """Training cannot go on."""

    status = 1


@dataclasses.dataclass(frozen=True)
@checked
class Nonfinite:
    """Policy for updates whose loss or gradient norm is NaN or infinite.

    ``stop`` ends the run before that update can reach a checkpoint. ``skip`` leaves the state as
    it was, bit for bit, and goes on with the next batch; the batch's record indices are written
    to ``skipped.jsonl``. ``rollback`` goes back to the newest checkpoint and on from there with
    the batches after the one that failed, so the records in between are not seen again.

    Attributes:
      action: what to do.
      limit: ``skip``: stop after so many skipped updates in a row; ``rollback``: stop when one
        more than so many would be needed in one call of ``train.py``.
    """

    action: Literal["stop", "skip", "rollback"] = "stop"
    limit: Positive[int] = 5


def explain(step: int, values: dict[str, float], tried: str = "") -> TrainingError:
    """The error that ends a run at an update that is not finite.

    Args:
      step: number of the update.
      values: ``loss`` and ``grad_norm`` of that update.
      tried: what the policy did before it gave up, in words.
    """
    shown = ", ".join(f"{name} {value}" for name, value in values.items())
    return TrainingError(
        f"update {step} is not finite: {shown}{tried}; the last checkpoint is kept. Lower "
        "config.optimizer.learning_rate, set config.optimizer.clip_norm, look at the data, or "
        "choose another config.nonfinite.action (stop, skip, rollback)"
    )


def records_of_batch(records: np.ndarray, mesh: jax.sharding.Mesh) -> list[int]:
    """Indices of the records of a global batch, in its order; every process has to call it.

    Args:
      records: (rows,) int32, of this process's part.
      mesh: that the batch is split over.
    """
    by_part = dict(cluster.gather((batch_share(mesh)[0], records.tolist())))
    return [index for part in sorted(by_part) for index in by_part[part]]


def row(
    policy: Nonfinite, step: int, values: dict[str, float], records: list[int]
) -> dict[str, Any]:
    """A row of ``skipped.jsonl``: the update, the action, its batch's records, its values as text.

    Args:
      policy: of the run.
      step: number of the update.
      values: ``loss`` and ``grad_norm``.
      records: indices of the records of the batch in their source.
    """
    texts = {name: str(value) for name, value in values.items()}
    return {"update": step, "action": policy.action, "records": records, **texts}


def skipped(cursor: RunCursor) -> RunCursor:
    """The cursor after one more skipped update."""
    return dataclasses.replace(
        cursor, skipped=cursor.skipped + 1, skipped_in_a_row=cursor.skipped_in_a_row + 1
    )


def check_skips(policy: Nonfinite, cursor: RunCursor, step: int, values: dict[str, float]) -> None:
    """Raises TrainingError where update ``step`` is one skipped update too many in a row."""
    if cursor.skipped_in_a_row >= policy.limit:
        tried = f"; it was skipped, like {policy.limit - 1} before it in a row"
        raise explain(step, values, tried)
