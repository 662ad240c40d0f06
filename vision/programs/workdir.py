"""Evaluates a run from its workdir."""

from __future__ import annotations

import datetime
import functools
import logging
import math
import platform
import time
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from vision.config.errors import UserError
from vision.config.schema import ConfigError, nearest
from vision.config.specs import to_plain
from vision.evaluate import figures
from vision.evaluate.class_names import match_classes
from vision.evaluate.evaluator import Evaluator, evaluate
from vision.evaluators.features.store import FeatureStore
from vision.parallel import cluster
from vision.programs.suite import Missing, members
from vision.run.loggers import send_evaluation
from vision.run.restore import Run, load_run
from vision.run.sealed import seal
from vision.run.workdir import in_use, write_text

log = logging.getLogger(__name__)
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def evaluate_workdir(
    workdir: Path,
    out: Path,
    *,
    names: Sequence[str] | None = None,
    step: int | None = None,
    command: str = "",
    features: Path | None = None,
    suite: str | None = None,
    overrides: Mapping[str, str] | None = None,
    allow: Collection[str] = (),
    send: bool = False,
) -> dict[str, Any]:
    """Runs evaluators on a checkpoint and writes ``out/evaluation.json``.

    One that fails does not take the others with it: its error stands in its place.

    Args:
      workdir: folder of a run.
      out: folder for the results, made when it does not exist.
      names: evaluators to run, of the config or the suite; None for all.
      step: of the checkpoint; None for the newest valid one.
      command: kept with the results, so that they can be made again.
      features: folder that keeps what the model says of the data, for the next evaluation of the
        same weights on the same data; None keeps nothing.
      suite: name of a suite, see ``vision.programs.suite``; its members run beside those of the
        config. None for the config's alone.
      overrides: key path of the config, below ``evaluators``, to the text that replaces its value.
      allow: packages whose constructors the workdir may name; see ``read_config``.
      send: numbers and figures go to the config's loggers, too.

    Returns:
      What was written: ``step``, ``checkpoint``, ``command``, ``created``, ``versions`` and, for
      every evaluator, its ``seconds`` and either ``metrics`` and ``figures`` or ``error``, a text.

    Raises:
      UserError: no run in ``workdir``, no evaluators, or none of a name.
    """
    run = load_run(workdir, step, overrides, allow)
    evaluators: dict[str, Evaluator | Missing] = dict(run.experiment.evaluators or {})
    if suite is not None:
        evaluators |= members(suite, run, workdir)
    for name in names or ():
        if name not in evaluators:
            searched = f"suite {suite}" if suite else "config"
            raise ConfigError(
                f"no evaluator {name!r} in the {searched}{nearest(name, [*evaluators])}"
            )
    if not evaluators:
        raise ConfigError(f"the config in {workdir} has no evaluators; --suite=quick needs none")
    store = FeatureStore.of(run, workdir, features) if features else None
    results = {name: _result(name, evaluators[name], run, store) for name in names or evaluators}
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
        write_text(out / "evaluation.json", seal(report, allow_nan=False) + "\n")
        if send and run.experiment.loggers:
            _send(run, workdir, results)
    return report


def _send(run: Run, workdir: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    if in_use(workdir):
        log.warning(
            "%s is being trained, and its loggers are in use: these numbers are not sent to them; "
            "evaluate it again when it has ended",
            workdir,
        )
        return
    good = {name: result for name, result in results.items() if "error" not in result}
    send_evaluation(
        run.experiment.loggers,
        workdir,
        to_plain(run.config),
        run.step,
        {
            name: (
                {key: x for key, x in result["metrics"].items() if x is not None},
                {key: figures.from_json(drawn) for key, drawn in result["figures"].items()},
            )
            for name, result in good.items()
        },
    )


def _result(
    name: str, evaluator: Evaluator | Missing, run: Run, store: FeatureStore | None
) -> dict[str, Any]:
    started = time.perf_counter()
    result: dict[str, Any]
    try:
        if isinstance(evaluator, Missing):
            raise ConfigError(evaluator.reason)
        matched = functools.partial(match_classes, trained=run.data_spec.class_names, name=name)
        numbers, drawn = evaluate(
            evaluator, run.predict, run.variables, run.step, run.mesh, store=store, prepare=matched
        )
        result = {
            "metrics": {key: x if math.isfinite(x) else None for key, x in numbers.items()},
            "figures": {key: figures.to_json(figure) for key, figure in drawn.items()},
        }
    except cluster.ClusterError:  # the other processes are not there any more
        raise
    except Exception as error:
        # A mistake in the data or in an evaluator: the others are still worth having.
        if not isinstance(error, UserError | ValueError):
            log.exception("evaluator %s failed", name)
        result = {"error": f"{type(error).__name__}: {error}"}
        if isinstance(error, UserError):
            result = {"error": str(error)}
        log.error("evaluator %s: %s", name, result["error"])
    return {"seconds": round(time.perf_counter() - started, 3), **result}


def versions() -> dict[str, str]:
    """Versions of what computed a result, and the device it ran on."""
    packages = {name: metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **packages, "device": jax.devices()[0].device_kind}
