"""Reading the files of a workdir, where missing or broken ones are reported and not fatal."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vision.checkpoint.identity import earlier_identities, identity_of_run
from vision.checkpoint.manifest import CheckpointManifest, DamagedError
from vision.checkpoint.reading import CheckpointError, folder_of, step_numbers
from vision.config.errors import UserError, caused_by
from vision.config.files import replace_file
from vision.run.sealed import unseal

CONFIG, METRICS, EVALUATION = "config.json", "metrics.jsonl", "evaluation.json"


class ReportError(UserError):
    """There is no folder to report on, or no place for the page."""


@dataclasses.dataclass(frozen=True)
class Series:
    """Values of one name: ``steps`` (N,) ascending, ``values`` (N,) float64, NaN for null.

    Attributes:
      steps: (N,), ascending.
      values: (N,) float64.
    """

    steps: np.ndarray
    values: np.ndarray


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The files of a workdir.

    Attributes:
      workdir: where they are.
      config: the resolved config; None when missing or broken.
      series: name to values of ``metrics.jsonl``.
      evaluation: ``evaluation.json``; None when missing or broken.
      problems: file name to what is missing or wrong with it; of a config that no checkpoint was
        saved with, too.
    """

    workdir: Path
    config: Mapping[str, Any] | None
    series: Mapping[str, Series]
    evaluation: Mapping[str, Any] | None
    problems: Mapping[str, str]


def write_page(out: Path, text: str) -> Path:
    """Puts a page in its place, in one step.

    Raises:
      ReportError: it cannot be written there.
    """
    try:
        with replace_file(out) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        problem = ReportError(f"{out} cannot be written: {error.strerror}")
        raise caused_by(problem, error) from error
    return out


def read_run(workdir: Path, evaluation: Path | None = None) -> RunFiles:
    """Reads what is there.

    Args:
      workdir: folder of a run.
      evaluation: another ``evaluation.json`` than that of the workdir.

    Raises:
      ReportError: ``workdir`` is no folder.
    """
    if not workdir.is_dir():
        raise ReportError(f"{workdir} is not a folder; give --workdir the folder of a run")
    problems: dict[str, str] = {}
    series: dict[str, Series] = {}
    try:
        text = (workdir / METRICS).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        problems[METRICS] = _unreadable(METRICS, error) + "no curves yet."
    else:
        series, remark = read_metrics(text)
        if remark:
            problems[METRICS] = f"{METRICS}: {remark}."
    config = _read_object(workdir / CONFIG, CONFIG, problems)
    if config is not None and (problem := _another_config(workdir)):
        problems[CONFIG] = problem
    return RunFiles(
        workdir=workdir,
        config=config,
        series=series,
        evaluation=_read_object(evaluation or workdir / EVALUATION, EVALUATION, problems),
        problems=problems,
    )


def _read_object(path: Path, name: str, problems: dict[str, str]) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if name == EVALUATION and isinstance(value, dict):
            value, _ = unseal(path.read_text(encoding="utf-8"))
    except OSError as error:
        hint = "evaluate.py writes it." if name == EVALUATION else "train.py writes it."
        problems[name] = _unreadable(name, error) + hint
        return None
    except ValueError as error:
        problems[name] = f"{name} is broken: {error}."
        return None
    if not isinstance(value, dict):
        problems[name] = f"{name} is broken: it holds no object."
        return None
    return value


def _another_config(workdir: Path) -> str:
    """What is wrong with a config that the newest checkpoint was not saved with; "" if nothing."""
    known = [identity_of_run(workdir), *earlier_identities(workdir)]
    folder = folder_of(workdir)
    try:
        steps = step_numbers(folder)
    except CheckpointError:
        return ""
    for step in reversed(steps):
        try:
            saved_by = CheckpointManifest.read(folder / str(step)).run
        except (CheckpointError, DamagedError):
            continue
        if saved_by is None or saved_by.config in [run.config for run in known if run]:
            return ""
        return (
            f"{CONFIG} is not what checkpoints/{step} was saved with: it was changed, or a bit of "
            "it was."
        )
    return ""


def _unreadable(name: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"There is no {name} here: "
    return f"{name} cannot be read ({error.strerror}): "


def series_of(workdir: Path) -> dict[str, Series]:
    """Curves of ``metrics.jsonl``; empty where it cannot be read."""
    try:
        text = (workdir / METRICS).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    return read_metrics(text)[0]


def read_metrics(text: str) -> tuple[dict[str, Series], str]:
    """Series by name, in order of appearance, and a remark on what was left out (or "").

    Rows are JSON objects with a number ``step``. Of several values of one name at one step the
    last counts. Null is NaN; what is neither a number nor null is left out by name.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    points_of: dict[str, dict[float, float]] = {}
    bad_lines, repeated = [], 0
    others: set[str] = set()
    for i, line in enumerate(lines, 1):
        try:
            row, _ = unseal(line)
            step = float(row.pop("step"))
        except (ValueError, TypeError, KeyError, AttributeError):
            step = math.nan
        if not math.isfinite(step):
            bad_lines.append(i)
            continue
        for name, value in row.items():
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                others.add(name)
                continue
            points = points_of.setdefault(name, {})
            repeated += step in points
            points[step] = float("nan") if value is None else float(value)
    remarks = []
    if bad_lines == [len(lines)]:
        remarks.append("the last row is cut off, as while it is being written")
    elif bad_lines:
        where = ", ".join(map(str, bad_lines[:5])) + (" ..." if len(bad_lines) > 5 else "")
        remarks.append(f"{len(bad_lines)} row(s) are no JSON object with a step: row {where}")
    if repeated:
        remarks.append(f"{repeated:,} value(s) came twice for a step: the last is shown")
    if others:
        remarks.append(f"not numbers, not shown: {', '.join(sorted(others))}")
    return {name: _series(points) for name, points in points_of.items()}, "; ".join(remarks)


def _series(points: Mapping[float, float]) -> Series:
    steps = np.fromiter(points.keys(), np.float64, len(points))
    values = np.fromiter(points.values(), np.float64, len(points))
    order = np.argsort(steps, kind="stable")
    return Series(steps[order], values[order])
