"""Stages in a row: ordinary runs, and what is computed between them.

A config whose root is a ``Scenario`` says what happens one after another in one workdir::

    return spec(
        Scenario,
        stages=[
            spec(Stage, name="autoencoder", do=spec(Experiment, ...)),
            spec(Stage, name="clusters", do=spec(Clusters, run_of="stage:autoencoder", ...)),
            spec(Stage, name="contrast", do=spec(..., "stage:clusters/clusters.npy", ...)),
        ],
    )

Every stage has the folder of its name: ``evaluate.py --workdir=W/contrast`` reads it like any run.
The whole list stands before anything is computed, so that it is checked at once; a stream of tasks
or rounds of labelling are a loop in the config file. In the texts of a stage, ``stage:NAME``
stands for the folder of an earlier one.

The cursor is ``stages.json`` in the workdir, the stages that are finished, together with the step
of the one under way in its own checkpoint: the same command goes on with that step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import ml_collections

from vision.config.hints import CONSTRUCTOR, is_spec
from vision.config.old_names import current_parameter, current_path
from vision.config.schema import ConfigError, locate, nearest
from vision.config.specs import (
    build,
    differences,
    from_plain,
    to_json,
    to_plain,
    validate,
    without_defaults,
)
from vision.run import experiment
from vision.run.experiment import Experiment
from vision.run.log import duration
from vision.run.loop import Outcome
from vision.run.loop import train as train_run
from vision.run.sealed import NotAsWrittenError, seal, unseal
from vision.run.workdir import WorkdirError, open_workdir, read_config, write_text

CURSOR = "stages.json"
log = logging.getLogger(__name__)
_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"
_REFERENCE = re.compile(rf"\bstage:({_NAME})")


class Job(Protocol):
    """What is computed between runs: clusters, exemplars, pseudo-labels, samples.

    A frozen dataclass whose fields are numbers, texts and other parts of a config. It is a
    function of them and of the files they name: the same again gives the same files.
    """

    def run(self, folder: Path) -> Mapping[str, float] | None:
        """Writes the result into ``folder``, which is empty.

        It becomes the stage's folder when this returns, so that half a result is never read.

        Returns:
          Numbers for people, logged and kept in ``stages.json``; None for none.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
      name: of its folder: letters, digits, ``_`` and ``-``.
      do: a run, trained as ``train.py`` trains it, or a job.
    """

    name: str
    do: Experiment | Job


@dataclasses.dataclass(frozen=True)
class Scenario:
    """The root of a config of several stages. See this module.

    Attributes:
      stages: in their order.
    """

    stages: tuple[Stage, ...]


def is_scenario(config: Any) -> bool:
    """Whether the root of a config is a ``Scenario``."""
    return is_spec(config) and locate(config[CONSTRUCTOR]) is Scenario


def runs(config: Any) -> dict[str, ml_collections.ConfigDict]:
    """Name to config of the stages that are runs, in order; of an experiment itself, under ``""``.

    They are parts of ``config``: what is set in them is set there.
    """
    if not is_scenario(config):
        return {"": config}
    return {stage.name: stage.do for stage in config.stages if _is_run(stage)}


def check(config: Any, source: str = "config") -> None:
    """``vision.run.experiment.check`` of a scenario or an experiment.

    Raises:
      ConfigError: what that raises, names of stages that are wrong or stand twice, or a text that
        refers to a stage that does not stand before it.
    """
    if not is_scenario(config):
        return experiment.check(config, source)
    prefixes = {f"stages[{i}].do": part for i, part in enumerate(config.stages) if _is_run(part)}
    offered = {
        f"{prefix}.{part}": names
        for prefix in prefixes
        for part, names in experiment.OFFERED.items()
    }
    validate(config, source=source, offered=offered)
    if not config.stages:
        raise ConfigError(f"{source}: config.stages is empty")
    before: list[str] = []
    for i, stage in enumerate(config.stages):
        if not re.fullmatch(_NAME, stage.name) or stage.name in before:
            wrong = "stands twice" if stage.name in before else "is not a name for a folder"
            raise ConfigError(f"{source}: config.stages[{i}].name: {stage.name!r} {wrong}")
        if _is_run(stage):
            experiment.check(stage.do, f"{source}: stage {stage.name}")
        for name in sorted(references(stage.do)):
            if name not in before:
                raise ConfigError(
                    f"{source}: stage {stage.name} refers to 'stage:{name}', which is not a stage "
                    f"before it{nearest(name, before)}"
                )
        before.append(stage.name)


def references(config: Any) -> set[str]:
    """Names of the stages that the texts of a config refer to."""
    names: set[str] = set()

    def note(text: str) -> str:
        names.update(_REFERENCE.findall(text))
        return text

    _map_texts(config, note)
    return names


def train(
    config: Any,
    workdir: Path,
    *,
    accept_config_change: bool = False,
    progress_s: float = 10.0,
    profile_steps: int = 0,
    spent_s: float = 0.0,
) -> Outcome:
    """Goes through the stages of a checked scenario; trains a checked experiment.

    Stages that are finished are passed over; one that another config made is kept, which is
    logged as a warning at every start. Arguments and errors as in
    ``vision.run.loop.train``, which every run of a scenario is given.

    Returns:
      The steps of all runs; their metrics and those of jobs under ``"NAME/"``; the signal where
      one ended a run, and then the scenario.
    """
    options: dict[str, Any] = {
        "accept_config_change": accept_config_change,
        "progress_s": progress_s,
        "profile_steps": profile_steps,
    }
    if not is_scenario(config):
        return train_run(config, workdir, **options, spent_s=spent_s)
    if jax.process_count() > 1:
        raise ConfigError("a scenario runs on one process, with any number of devices")
    say = print if math.isfinite(progress_s) else lambda line: None
    with open_workdir(workdir, config, accept_config_change=accept_config_change):
        rows = _cursor(workdir)
        for number, stage in enumerate(config.stages):
            title = f"stage {number + 1} of {len(config.stages)}, {stage.name}"
            folder, do = workdir / stage.name, _resolved(stage.do, workdir)
            if stage.name in rows:
                say(f"{title}: finished before")
                if changed := _changed(rows[stage.name], stage.do):
                    log.warning(
                        "stage %s is kept as another config made it (%s): delete %s and its row "
                        "in %s to run it, and those after it, again",
                        stage.name,
                        changed,
                        folder,
                        workdir / CURSOR,
                    )
                continue
            say(title)
            if not _is_run(stage):
                metrics = _compute(build(do), folder, say)
                rows[stage.name] = {"step": 0, "metrics": metrics, "do": _written(stage.do)}
            else:
                outcome = train_run(do, folder, **options, spent_s=spent_s)
                spent_s = 0.0
                row: dict[str, Any] = {"step": outcome.step, "metrics": dict(outcome.metrics)}
                row["do"] = _written(stage.do)
                row |= {"failed": dict(outcome.failed)} if outcome.failed else {}
                if outcome.signal is not None or not outcome.saved:
                    return _outcome({**rows, stage.name: row}, outcome.signal, outcome.saved)
                rows[stage.name] = row
            _write_cursor(workdir, rows)
        return _outcome(rows, None, True)


def run_folders(workdir: Path, allow: Collection[str] = ()) -> list[Path]:
    """Folders of the runs of a scenario's workdir that have begun; empty for a single run's.

    ``allow`` is that of ``read_config``.
    """
    config = read_config(workdir, allow)
    if not is_scenario(config):
        return []
    return [workdir / name for name in runs(config) if (workdir / name).is_dir()]


def _is_run(stage: Any) -> bool:
    return is_spec(stage.do) and locate(stage.do[CONSTRUCTOR]) is Experiment


def _compute(job: Job, folder: Path, say: Callable[[str], None]) -> dict[str, float]:
    started = time.perf_counter()
    partial = folder.with_name(folder.name + ".partial")
    for leftover in (partial, folder):  # of a job that was broken off, maybe before its row
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(leftover)
    partial.mkdir()
    metrics = {name: float(value) for name, value in (job.run(partial) or {}).items()}
    os.replace(partial, folder)
    shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    say(f"computed in {duration(time.perf_counter() - started)}" + (f": {shown}" if shown else ""))
    return metrics


def _written(do: Any) -> Any:
    """What a stage does, as JSON: without defaults, wherever the workdir lies."""
    return to_plain(from_plain(without_defaults(do)))


def _changed(row: Mapping[str, Any], do: Any) -> str:
    """How a stage differs from that of a finished row; empty where it does not.

    Constructors and parameters that have other names today are the same, and so is a parameter
    that came later, at its default. Rows of earlier versions have a SHA-256 of the whole config,
    defaults included, instead: of one that differs nobody can say how.
    """
    if "do" in row:
        lines = differences(_today(row["do"]), _written(do), "do")
        return "; ".join(lines[:4] + ["..."] * (len(lines) > 4))
    old = hashlib.sha256(to_json(do).encode()).hexdigest()
    if row.get("config", old) == old:
        return ""
    return "or its constructors have new names or parameters: its row has a checksum only"


def _today(written: Any) -> Any:
    """A written config in the names of today."""
    if isinstance(written, list):
        return [_today(item) for item in written]
    if not isinstance(written, dict):
        return written
    path = current_path(str(written.get(CONSTRUCTOR, "")))
    names = {key: current_parameter(path, key) for key in written if key != CONSTRUCTOR}
    plain = {name: _today(written[key]) for key, name in names.items() if name is not None}
    return {CONSTRUCTOR: path, **plain} if CONSTRUCTOR in written else plain


def _resolved(do: Any, workdir: Path) -> Any:
    return _map_texts(do, lambda text: _REFERENCE.sub(lambda m: str(workdir / m[1]), text))


def _map_texts(node: Any, change: Callable[[str], str]) -> Any:
    """A copy of a config with every text changed; keys and constructors stay."""
    if isinstance(node, str):
        return change(node)
    if isinstance(node, (list, tuple)):
        return tuple(_map_texts(item, change) for item in node)
    if not isinstance(node, ml_collections.ConfigDict):
        return node
    copy = ml_collections.ConfigDict()
    for key, value in node.items():
        copy[key] = value if key == CONSTRUCTOR else _map_texts(value, change)
    return copy


def _cursor(workdir: Path) -> dict[str, Any]:
    """Rows of the finished stages, by their names."""
    path = workdir / CURSOR
    if not path.exists():
        return {}
    try:
        content, _ = unseal(path.read_bytes().decode("utf-8", "backslashreplace"))
        return {row["name"]: row for row in content["finished"]}
    except (NotAsWrittenError, TypeError, KeyError) as error:
        raise WorkdirError(
            f"{path} cannot be read ({error}); delete it: finished runs are found again by their "
            "checkpoints, the rest is computed again"
        ) from error


def _write_cursor(workdir: Path, rows: Mapping[str, Any]) -> None:
    finished = [{**row, "name": name} for name, row in rows.items()]
    for row in finished:
        row["metrics"] = {k: x if math.isfinite(x) else None for k, x in row["metrics"].items()}
    write_text(workdir / CURSOR, seal({"finished": finished}, indent=2) + "\n")


def _outcome(rows: Mapping[str, Any], signal: int | None, saved: bool) -> Outcome:
    metrics = {
        f"{name}/{key}": math.nan if value is None else value
        for name, row in rows.items()
        for key, value in row["metrics"].items()
    }
    failed = {
        f"{name}/{evaluator}": error
        for name, row in rows.items()
        for evaluator, error in row.get("failed", {}).items()
    }
    return Outcome(sum(row["step"] for row in rows.values()), signal, saved, metrics, failed)
