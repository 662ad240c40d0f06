"""Evaluates a run from its workdir."""

from __future__ import annotations

import datetime
import json
import math
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from vision.core import cluster, figures
from vision.core.evaluator import evaluate
from vision.core.restore import load_run
from vision.core.schema import ConfigError, nearest
from vision.core.workdir import write_text
from vision.evaluators.features import FeatureStore

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def evaluate_workdir(
    workdir: Path,
    out: Path,
    *,
    names: Sequence[str] | None = None,
    step: int | None = None,
    command: str = "",
    features: Path | None = None,
) -> dict[str, Any]:
    """Runs the config's evaluators on a checkpoint and writes ``out/evaluation.json``.

    Args:
      workdir: folder of a run.
      out: folder for the results, made when it does not exist.
      names: evaluators to run; None for all.
      step: of the checkpoint; None for the newest valid one.
      command: kept with the results, so that they can be made again.
      features: folder that keeps what the model says of the data, for the next evaluation of the
        same weights on the same data; None keeps nothing.

    Returns:
      What was written: ``step``, ``checkpoint``, ``command``, ``created``, ``versions`` and, for
      every evaluator, its ``metrics`` and ``figures``.
    """
    run = load_run(workdir, step)
    evaluators = dict(run.experiment.evaluators or {})
    for name in names or ():
        if name not in evaluators:
            raise ConfigError(f"no evaluator {name!r} in the config{nearest(name, [*evaluators])}")
    if not evaluators:
        raise ConfigError(f"the config in {workdir} has no evaluators")
    store = FeatureStore.of(run, workdir, features) if features else None
    results = {}
    for name in names or evaluators:
        numbers, drawn = evaluate(
            evaluators[name], run.predict, run.variables, run.step, run.mesh, store=store
        )
        results[name] = {
            "metrics": {key: x if math.isfinite(x) else None for key, x in numbers.items()},
            "figures": {key: figures.to_json(figure) for key, figure in drawn.items()},
        }
    report = {
        "step": run.step,
        "checkpoint": str(workdir / "checkpoints" / str(run.step)),
        "command": command,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "evaluators": results,
    }
    if cluster.is_main():
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "evaluation.json", json.dumps(report, allow_nan=False) + "\n")
    return report


def versions() -> dict[str, str]:
    """Versions of what computed a result, and the device it ran on."""
    found = {name: metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **found, "device": jax.devices()[0].device_kind}
