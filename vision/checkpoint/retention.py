"""Which checkpoints are kept when a new one is saved."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vision.checkpoint.evaluations import read_evaluations
from vision.checkpoint.identity import CONFIG
from vision.checkpoint.manifest import CheckpointError, CheckpointManifest, DamagedError
from vision.checkpoint.reading import complete, folder_of


def best_checkpoint(workdir: Path, metric: str, mode: str) -> int:
    """The step of the best checkpoint of a workdir; of equal ones the newest.

    Args:
      workdir: folder of a run.
      metric: such as ``test/top1``.
      mode: ``max`` or ``min``.

    Raises:
      CheckpointError: no checkpoint has this metric.
    """
    folder = folder_of(workdir)
    steps = complete(folder)
    best = BestCheckpoints(folder, metric, mode, 1).best(steps)
    if not best:
        have = ", ".join(map(str, steps)) or "none"
        raise CheckpointError(
            f"no checkpoint in {folder} was saved where {metric} was measured; it has steps {have}"
        )
    return best[-1]


def named_step(workdir: Path, text: str | int | None) -> int | None:
    """The step that a person means.

    Args:
      workdir: folder of a run.
      text: a number; ``best`` by the run's ``config.checkpoints.best``; ``best:test/top1`` by that
        metric, the largest (the smallest where ``checkpoints.best_mode`` is ``min``); None or an
        empty text for the newest valid checkpoint.

    Returns:
      The step; None for the newest valid one.

    Raises:
      CheckpointError: neither of these, or no checkpoint was saved where the metric was measured.
    """
    if text is None or text == "":
        return None
    if text is True:
        raise CheckpointError("--step needs a value: a number, or best")
    if isinstance(text, int):
        return text
    if text.isascii() and text.isdecimal():
        return int(text)
    return best_checkpoint(workdir, *best_by(workdir, text))


def best_by(workdir: Path, text: str) -> tuple[str, str]:
    """The metric and the mode, ``max`` or ``min``, that ``best`` or ``best:METRIC`` means.

    Raises:
      CheckpointError: neither of these, or the run's config names no metric.
    """
    word, _, metric = text.partition(":")
    if word != "best":
        raise CheckpointError(
            f"step {text!r} is neither a number nor best, nor best:METRIC such as best:test/top1"
        )
    try:
        config = json.loads((workdir / CONFIG).read_bytes())
        policy = config.get("checkpoints") or {}
        default, mode = policy.get("best"), policy.get("best_mode") or "max"
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{workdir / CONFIG} cannot be read: {error}") from error
    metric = metric or default or ""
    if not metric:
        raise CheckpointError(
            f"step {text!r}: best is by config.checkpoints.best, which the run in {workdir} does "
            "not set; name a metric, as in best:test/top1"
        )
    return metric, mode


@dataclasses.dataclass
class BestCheckpoints:
    """Keeps the best ``n`` checkpoints by a metric of their evaluations.

    Those of ``evaluations.json`` count, and of older checkpoints those in the manifest.

    Attributes:
      folder: of the checkpoints.
      metric: such as ``test/top1``.
      mode: ``max`` or ``min``.
      n: how many are kept.
    """

    folder: Path
    metric: str
    mode: str
    n: int

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Of every checkpoint, whether it is one of the best; Orbax calls it."""
        best = self.best([info.step for info in checkpoints])
        return [info.step in best for info in checkpoints]

    def best(self, steps: Sequence[int]) -> list[int]:
        """The best ``n`` of ``steps`` for which there is a value, best last; of equal ones the
        newest."""
        sign = 1 if self.mode == "max" else -1
        evaluated = read_evaluations(self.folder)
        values = {
            step: evaluated[step].metrics.get(self.metric)
            if step in evaluated
            else self._value_in_manifest(step)
            for step in steps
        }
        measured = {step: sign * x for step, x in values.items() if x is not None and x == x}
        return sorted(measured, key=lambda step: (measured[step], step))[-self.n :]

    def _value_in_manifest(self, step: int) -> float | None:
        try:
            meta = CheckpointManifest.read(self.folder / str(step)).meta
        except (DamagedError, CheckpointError):
            return None  # being written, broken, or not readable now
        return meta.get("metrics", {}).get(self.metric)
