"""One model from several runs that were fine-tuned from the same weights: soups, interpolation.

Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time, 2022; Wortsman et al., Robust fine-tuning of zero-shot models
(WiSE-FT), 2022.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vision.checkpoint.reading import flatten, load_state
from vision.checkpoint.store import Checkpoints, CheckpointStore
from vision.config.errors import UserError
from vision.config.hints import CONSTRUCTOR
from vision.config.schema import nearest
from vision.config.specs import differences, to_plain
from vision.evaluate.class_names import match_classes
from vision.evaluate.evaluator import evaluate
from vision.parallel import cluster
from vision.run.experiment import DataSpec
from vision.run.restore import load_run
from vision.run.workdir import CONFIG, DATA_SPEC, MODULES, read_config, write_text
from vision.train.objective import Variables

Arrays = dict[str, np.ndarray]
_AVERAGE = "extra_state.ema."
_COLLECTIONS = ("params.", "model_state.")


class AverageError(UserError):
    """Runs that cannot be averaged, or an invalid mode; the message names what differs."""


@dataclasses.dataclass(frozen=True)
class Mode:
    """How weights are averaged: ``uniform``, ``greedy`` or ``wise:<number from 0 to 1>``.

    Attributes:
      name: ``uniform`` is the mean of all. ``greedy`` begins with the best and adds the
        others, best first, where the mean does not become worse on a validation split. ``wise`` is
        ``(1 - share) * first + share * second``, the first zero-shot or less tuned.
      share: of ``wise``.
    """

    name: str
    share: float = 0.5

    @classmethod
    def parse(cls, text: str) -> Mode:
        name, colon, number = text.partition(":")
        if name in ("uniform", "greedy") and not colon:
            return cls(name)
        if name == "wise":
            try:
                share = float(number or "0.5")
            except ValueError:
                share = -1.0
            if 0 <= share <= 1:
                return cls(name, share)
        raise AverageError(
            f"--average_mode={text}, but it is uniform, greedy, or wise:0.5 with a number from 0 "
            "(the first run) to 1 (the second)"
        )


def average(
    workdirs: Sequence[str], out: Path, mode: str = "uniform", by: str = ""
) -> dict[str, Any]:
    """Averages the newest checkpoints of runs and writes the result as a run of its own.

    Averaged is what evaluation reads: a run's own average over its steps where it keeps one.
    Statistics of BatchNorm are averaged like parameters, not computed anew. Configs may differ in
    all but the model, the kind of objective and the classes; the result has that of the first.

    Args:
      workdirs: folders of runs.
      out: folder to write: ``average.json`` beside what a run has, so that it can be evaluated,
        exported and started from.
      mode: see ``Mode``.
      by: ``evaluator/metric`` that ``greedy`` maximises; by default ``top1`` of the first
        evaluator. Its split should not be the one that results are reported on.

    Returns:
      What ``average.json`` holds: mode, members with their steps, those that were taken and, for
      ``greedy``, scores.

    Raises:
      AverageError: runs of different models, a wrong mode, a folder that holds a run already.
    """
    parsed_mode = Mode.parse(mode)
    folders = [Path(folder) for folder in workdirs]
    if (out / CONFIG).exists():
        raise AverageError(f"{out} holds a run already; take another --workdir for the average")
    if cluster.client() is not None:
        raise AverageError("runs are averaged by one process: leave out --distributed")
    if parsed_mode.name == "wise" and len(folders) != 2:
        raise AverageError(f"--average_mode={mode} is for two runs, not {len(folders)}")
    _check_same_model(folders)
    members = [load_state(folder) for folder in folders]
    report: dict[str, Any] = {
        "mode": mode,
        "members": [
            {"workdir": str(folder), "step": step}
            for folder, (step, _) in zip(folders, members, strict=True)
        ],
    }
    evaluated = [_evaluated_arrays(arrays) for _, arrays in members]
    if parsed_mode.name == "wise":
        result, members_taken = mean(evaluated, [1 - parsed_mode.share, parsed_mode.share]), [0, 1]
    elif parsed_mode.name == "uniform":
        result, members_taken = mean(evaluated), list(range(len(folders)))
    else:
        score, by = _scorer(folders[0], by)
        scores, members_taken, best_score = greedy(
            [score(arrays) for arrays in evaluated], evaluated, score
        )
        result = mean([evaluated[i] for i in members_taken])
        report |= {"by": by, "scores": scores, "score": best_score}
    report["taken"] = [str(folders[i]) for i in members_taken]
    _write(out, folders[0], members[0], result, report)
    return report


def mean(members: Sequence[Arrays], weights: Sequence[float] | None = None) -> Arrays:
    """Weighted mean by name, computed in float64; equal weights that sum to 1 by default.

    The mean of copies of one model is that model, bit for bit.
    """
    result = {}
    for name, first in members[0].items():
        total = np.zeros(first.shape, np.float64)
        for i, member in enumerate(members):
            part = member[name].astype(np.float64)
            total += part if weights is None else weights[i] * part
        total = total / len(members) if weights is None else total
        result[name] = np.asarray(total, first.dtype)
    return result


def arrays_of(variables: Variables) -> Arrays:
    """Parameters and model state by their names in a checkpoint."""
    return {name: np.asarray(x) for name, x in flatten(_averaged(variables)).items()}


def variables_of(arrays: Arrays, like: Variables) -> Variables:
    """Inverse of ``arrays_of``: laid out as ``like``, whose extra state stays."""
    template = _averaged(like)
    leaves = [jax.device_put(arrays[key], leaf.sharding) for key, leaf in flatten(template).items()]
    tree = jax.tree.unflatten(jax.tree.structure(template), leaves)
    return Variables(tree["params"], tree["model_state"], like.extra_state)


def _averaged(variables: Variables) -> dict[str, Any]:
    return {"params": variables.params, "model_state": variables.model_state}


def greedy(
    scores: Sequence[float], members: Sequence[Arrays], score: Callable[[Arrays], float]
) -> tuple[list[float], list[int], float]:
    """The greedy soup: which members to take, in the order in which they came in.

    Args:
      scores: of every member alone; larger is better.
      members: what is averaged.
      score: of an average.

    Returns:
      ``(scores, taken, score of their mean)``; the last is never below the largest of the first.
    """
    order = sorted(range(len(members)), key=lambda i: -scores[i])
    members_taken, best_score = order[:1], scores[order[0]]
    for i in order[1:]:
        new_score = score(mean([members[j] for j in (*members_taken, i)]))
        if new_score >= best_score:
            members_taken, best_score = [*members_taken, i], new_score
    return list(scores), members_taken, best_score


def _check_same_model(folders: Sequence[Path]) -> None:
    first, *others = [to_plain(read_config(folder)) for folder in folders]
    names = [_classes(folder) for folder in folders]
    for folder, config, classes in zip(folders[1:], others, names[1:], strict=True):
        changed = differences(first["model"], config["model"], "config.model")
        first_objective, objective = (c["objective"][CONSTRUCTOR] for c in (first, config))
        changed += differences(first_objective, objective, "config.objective")
        changed += differences(names[0], classes, "classes of the data")
        if changed:
            raise AverageError(
                f"{folders[0]} and {folder} cannot be averaged, they are of different models: "
                f"{changed[0]}" + (f" (and {len(changed) - 1} more)" if changed[1:] else "")
            )


def _classes(folder: Path) -> list[str]:
    if not (folder / DATA_SPEC).exists():
        raise AverageError(f"{folder} has no {DATA_SPEC}: training has not begun there")
    return list(DataSpec.load(folder / DATA_SPEC).class_names)


def _evaluated_arrays(state: Arrays) -> Arrays:
    """Parameters and model state that evaluation reads, by their own names."""
    prefix = _AVERAGE if any(name.startswith(_AVERAGE) for name in state) else ""
    prefixes = tuple(prefix + name for name in _COLLECTIONS)
    return {name[len(prefix) :]: x for name, x in state.items() if name.startswith(prefixes)}


def _scorer(folder: Path, by: str) -> tuple[Callable[[Arrays], float], str]:
    """A function that scores variables by an evaluator of the run in ``folder``, and its name."""
    run = load_run(folder)
    evaluators = dict(run.experiment.evaluators or {})
    name, _, metric = by.partition("/")
    name, metric = name or next(iter(evaluators), ""), metric or "top1"
    if name not in evaluators:
        raise AverageError(
            f"--average_by={by}: no evaluator {name!r}{nearest(name, [*evaluators])}"
        )
    evaluator = match_classes(evaluators[name], run.data_spec.class_names, name)

    def score(arrays: Arrays) -> float:
        variables = variables_of(arrays, run.variables)
        numbers, _ = evaluate(evaluator, run.predict, variables, run.step, run.mesh)
        if metric not in numbers:
            raise AverageError(
                f"--average_by={by}: {name} gives no {metric!r}{nearest(metric, [*numbers])}"
            )
        return numbers[metric]

    return score, f"{name}/{metric}"


def _write(
    out: Path,
    first: Path,
    member: tuple[int, Arrays],
    result: Arrays,
    report: Mapping[str, Any],
) -> None:
    step, state = member
    averaged = {_AVERAGE + name: x for name, x in result.items() if _AVERAGE + name in state}
    out.mkdir(parents=True, exist_ok=True)
    store = CheckpointStore(out, Checkpoints())
    try:
        if not store.save(step, {**state, **result, **averaged}, {"step": step}, wait=True):
            raise AverageError(f"the average cannot be written to {out}")
    finally:
        store.close()
    write_text(out / DATA_SPEC, (first / DATA_SPEC).read_text())
    write_text(out / "average.json", json.dumps(report, indent=2) + "\n")
    if (first / MODULES).exists():
        write_text(out / MODULES, (first / MODULES).read_text())
    # Last: a folder with a config is a run.
    write_text(out / CONFIG, (first / CONFIG).read_text())
