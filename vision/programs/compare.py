"""Runs beside each other on the same examples: what differs, by how much, and what it costs."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vision.config.errors import UserError
from vision.config.specs import to_plain
from vision.data.fingerprint import fingerprint
from vision.data.source import DataError
from vision.evaluate.class_names import class_numbers, match_classes
from vision.evaluate.evaluator import context, evaluate
from vision.evaluators.accuracy.classification import Classification, classification_of
from vision.evaluators.cost import Cost
from vision.evaluators.features.store import FeatureStore
from vision.evaluators.image_text.embeddings import embed, spread
from vision.evaluators.thumbnail import thumbnail
from vision.metrics.arrays import predictions
from vision.metrics.calibration import expected_calibration_error, log_losses
from vision.metrics.significance import (
    bootstrap_interval,
    changes,
    mcnemar,
    paired_bootstrap,
    rank_correlation,
)
from vision.run.restore import Run, load_run

log = logging.getLogger(__name__)
Outcome = Mapping[str, np.ndarray]


class CompareError(UserError):
    """Runs that were not asked the same; the message says what differs."""


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """What one run says of the examples.

    Attributes:
      run: as it was read.
      name: of its folder, with as many of its parents as tell it from the others.
      workdir: its folder.
      step: of the checkpoint.
      evaluator: name of ``evaluated``.
      evaluated: the evaluator whose data was read.
      logits: (N, K).
      label: (N,), -1 where there is none.
      index: (N,), place of the records in their source.
      class_names: K names; empty where the source has none.
      source: name of the content of the data.
    """

    run: Run
    name: str
    workdir: Path
    step: int
    evaluator: str
    evaluated: Classification
    logits: np.ndarray
    label: np.ndarray
    index: np.ndarray
    class_names: tuple[str, ...]
    source: str


def compare(
    workdirs: Sequence[Path],
    *,
    evaluator: str | None = None,
    features: Path | None = None,
    resamples: int = 10_000,
    shown: int = 12,
    allow: Collection[str] = (),
) -> dict[str, Any]:
    """Compares classifiers on the examples that they share; see ``vision.report.compare``.

    Every run reads the same records with the ops of its own evaluator, since preprocessing belongs
    to a model. Accuracy and likelihood come with bootstrap intervals, each pair with the interval
    of the difference over the same resampled examples, McNemar's exact test, the examples that
    changed sides and the rank correlation of the examples' losses: whether both find the same ones
    hard. Costs of all runs are measured here, one after another.

    Args:
      workdirs: folders of two or more runs, their newest checkpoints.
      evaluator: name in every config of a ``Classification``; None for the first of each.
      features: folder of a feature store, see ``FeatureStore``.
      resamples: of the bootstrap, the same for every pair.
      shown: how many changed examples of each pair are pictured, evenly over what was gained and
        what was lost.
      allow: see ``read_config``.

    Raises:
      CompareError: fewer than two runs, no such evaluator, other records, labels or classes.
    """
    if len(workdirs) < 2 or len(set(workdirs)) < len(workdirs):
        raise CompareError("--compare takes two or more different workdirs, separated by commas")
    names = distinct_names(workdirs)
    answers = [
        _answers(name, workdir, evaluator, features, allow)
        for name, workdir in zip(names, workdirs, strict=True)
    ]
    answers[1:] = [_in_order_of(answers[0], other) for other in answers[1:]]
    for other in answers[1:]:
        _check_same(answers[0], other)
    outcomes = [outcome(answer.logits, answer.label) for answer in answers]
    pairs = []
    changed = []
    for (a, of_a), (b, of_b) in itertools.combinations(zip(answers, outcomes, strict=True), 2):
        pairs += list(_differences(a, of_a, b, of_b, resamples))
        changed += list(_changed(a, of_a, b, of_b, shown))
    return {
        "examples": len(outcomes[0]["right"]),
        "runs": [_summary(*pair, resamples) for pair in zip(answers, outcomes, strict=True)],
        "pairs": pairs,
        "changed": changed,
    }


def distinct_names(workdirs: Sequence[Path]) -> list[str]:
    """The last part of each path, with as many parents as it takes to tell them apart."""
    parts = [workdir.resolve().parts for workdir in workdirs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(path_parts[-depth:]) for path_parts in parts]
        if len(set(names)) == len(names):
            return names
    return [str(workdir) for workdir in workdirs]


def outcome(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Of labelled examples: ``place`` among the rows, ``label``, ``predicted`` (-1 where scores are
    NaN), ``right`` and ``loss`` (nats)."""
    rows = np.flatnonzero(labels >= 0)
    if not len(rows):
        raise CompareError("none of the records has a label: there is nothing to compare")
    logits, labels = logits[rows], labels[rows]
    predicted = predictions(logits)
    losses = log_losses(logits, labels)
    return {
        "place": rows,
        "label": labels,
        "predicted": predicted,
        "right": predicted == labels,
        "loss": losses,
    }


def _answers(
    name: str, workdir: Path, wanted: str | None, features: Path | None, allow: Collection[str]
) -> Answers:
    run = load_run(workdir, allow=allow)
    chosen, configured = classification_of(run.experiment.evaluators, workdir, wanted)
    evaluator = match_classes(configured, run.data_spec.class_names, chosen)
    store = FeatureStore.of(run, workdir, features) if features else None
    with jax.set_mesh(run.mesh):
        ctx = context(run.variables, run.step, run.mesh, store=store)
        rows = embed(run.predict, ctx, evaluator.data, ("logits",), (evaluator.label,))
    return Answers(
        run=run,
        name=name,
        workdir=workdir,
        step=run.step,
        evaluator=chosen,
        evaluated=evaluator,
        logits=np.asarray(rows["logits"]),
        label=np.asarray(rows[evaluator.label]),
        index=np.asarray(rows["_index"]),
        class_names=tuple(evaluator.data.source.info.class_names),
        source=fingerprint(configured.data.source),
    )


def _in_order_of(first: Answers, other: Answers) -> Answers:
    """The answers of a run with its classes in the order of the first run's, by name."""
    if set(other.class_names) != set(first.class_names):
        return other
    numbers = class_numbers(other.class_names, first.class_names, str(other.workdir))
    if numbers is None or other.logits.shape[1] != len(numbers):
        return other
    log.warning("%s: classes are matched to those of %s by name", other.workdir, first.workdir)
    label = np.asarray([*numbers, -1], other.label.dtype)[other.label]
    logits = other.logits[:, np.argsort(numbers)]
    return dataclasses.replace(other, logits=logits, label=label, class_names=first.class_names)


def _cost(answers: Answers) -> dict[str, float]:
    """Of single images."""
    run, evaluator = answers.run, Cost(answers.evaluated.data, batch_sizes=(1,), seconds=1.0)
    spent, _ = evaluate(evaluator, run.predict, run.variables, run.step, run.mesh)
    return {
        "parameters": spent["parameters"],
        "flops": spent["flops"],
        "latency_ms": spent["latency_ms_p50_b1"],
        "latency_ms_p90": spent["latency_ms_p90_b1"],
        "latency_ms_p99": spent["latency_ms_p99_b1"],
        "throughput": spent["images_per_s_b1"],
    }


def _check_same(a: Answers, b: Answers) -> None:
    both = f"{a.workdir} ({a.evaluator}) and {b.workdir} ({b.evaluator})"
    if a.class_names != b.class_names or a.logits.shape[1] != b.logits.shape[1]:
        raise CompareError(
            f"{both} have other classes: {a.logits.shape[1]} and {b.logits.shape[1]}"
            + "".join(
                f"; the first that differs is {x!r} and {y!r}"
                for x, y in list(zip(a.class_names, b.class_names, strict=False))
                if x != y
            )[:200]
        )
    if a.source != b.source or not np.array_equal(a.index, b.index):
        raise CompareError(
            f"{both} read other records: {len(a.index):,} and {len(b.index):,}. Choose an "
            "evaluator of the same data with --evaluators=NAME"
        )
    if not np.array_equal(a.label, b.label):
        raise CompareError(f"{both} give the same records other labels")


def _summary(run: Answers, results: Outcome, resamples: int) -> dict[str, Any]:
    metrics, intervals = {}, {}
    for name, values in (("top1", results["right"].astype(float)), ("nll", results["loss"])):
        metrics[name] = _plain(values.mean())
        if np.isfinite(values).all():
            interval = bootstrap_interval(values, resamples=resamples)
            intervals[f"{run.evaluator}/{name}"] = [interval.low, interval.high]
    labels, logits = results["label"], run.logits[results["place"]]
    metrics["ece"] = _plain(expected_calibration_error(logits, labels))
    metrics["examples"] = len(labels)
    return {
        "name": run.name,
        "workdir": str(run.workdir),
        "step": run.step,
        "metrics": {run.evaluator: metrics},
        "intervals": intervals,
        "cost": _cost(run),
        "config": to_plain(run.run.config),
    }


def _differences(
    a: Answers, of_a: Outcome, b: Answers, of_b: Outcome, resamples: int
) -> Iterator[dict[str, Any]]:
    """Of top-1, with McNemar's test; of the loss, with the rank correlation of the examples."""
    test = mcnemar(of_a["right"], of_b["right"])
    finite = np.isfinite(of_a["loss"]) & np.isfinite(of_b["loss"])
    ranks = rank_correlation(of_a["loss"][finite], of_b["loss"][finite])
    for metric, first, second in (
        ("top1", of_a["right"].astype(float), of_b["right"].astype(float)),
        ("nll", of_a["loss"], of_b["loss"]),
    ):
        known = np.isfinite(first) & np.isfinite(second)
        gap = paired_bootstrap(first[known], second[known], resamples=resamples)
        yield {
            "a": a.name,
            "b": b.name,
            "evaluator": a.evaluator,
            "metric": metric,
            "difference": _plain(gap.value),
            "interval": [_plain(gap.low), _plain(gap.high)],
            "mcnemar_p": test.exact_p,
            "only_a_right": test.only_a,
            "only_b_right": test.only_b,
            "rank_correlation": _plain(ranks.spearman),
        }


def _changed(
    a: Answers, of_a: Outcome, b: Answers, of_b: Outcome, shown: int
) -> Iterator[dict[str, Any]]:
    changed = changes(of_a["predicted"], of_b["predicted"], of_a["label"])
    source, image = a.evaluated.data.source, a.evaluated.image
    for places in (changed.gained, changed.lost):
        for i in places[spread(shown // 2, len(places))] if len(places) else ():
            index = int(a.index[of_a["place"][i]])
            try:
                png = base64.b64encode(thumbnail(source[index], image)).decode()
            except DataError:
                png = None
            yield {
                "a": a.name,
                "b": b.name,
                "label": _class(a, of_a["label"][i]),
                "before": _class(a, of_a["predicted"][i]),
                "after": _class(a, of_b["predicted"][i]),
                "key": str(source.key(index)),
                "png": png,
            }


def _class(run: Answers, number: Any) -> str:
    if number < 0:
        return "none (NaN)"
    return run.class_names[number] if number < len(run.class_names) else str(number)


def _plain(value: Any) -> float | None:
    """As JSON has it: null where there is no number."""
    return float(value) if np.isfinite(value) else None
