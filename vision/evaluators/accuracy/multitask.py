"""One model with several classification tasks per image."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from vision.config.ranges import NonEmpty, Unique, checked
from vision.data.source import DataError
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure, Table
from vision.evaluators.image_text.embeddings import embed
from vision.metrics.arrays import MetricError, predictions
from vision.metrics.weighted import ClassificationMetrics, weighted

_SHOWN = ("accuracy", "precision", "recall", "f1", "majority")


@dataclasses.dataclass(frozen=True)
@checked
class MultiTaskAccuracy:
    """Accuracy, weighted precision, recall and F1 of several sets of classes.

    Yields, for every task that has labels, ``<task>_accuracy``, ``_precision``, ``_recall``,
    ``_f1`` (averaged by the examples of every class), ``_majority`` (accuracy of the most frequent
    label for all), ``_examples``, and, only where there are any, ``_missing`` (label -1) and
    ``_nan_examples`` (scores without a finite maximum: wrong); then ``mean_accuracy``, ``mean_f1``,
    ``mean_majority`` (every such task counts the same), ``tasks`` (of which these are means),
    ``tasks_without_labels`` where there are any, and the figure ``by_task``.

    Attributes:
      data: what is measured.
      tasks: names of int (B,) entries of the batches, -1 where missing. ``predict`` has to give
        the logits (B, C) of each under ``<logits>/<task>``, as ``objectives.multitask`` does.
      logits: prefix of the tasks' names in the outputs.
    """

    data: EvaluationData
    tasks: Unique[NonEmpty[tuple[str, ...]]]
    logits: str = "logits"

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: labels that are no class of their task, or no labels of any task.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        names = tuple(f"{self.logits}/{task}" for task in self.tasks)
        rows = embed(predict, ctx, self.data, names, self.tasks)
        info, by_task = self.data.source.info, dict[str, ClassificationMetrics]()
        for task, name in zip(self.tasks, names, strict=True):
            try:
                best, classes = predictions(rows[name]), rows[name].shape[1]
                by_task[task] = weighted(best, rows[task], classes)
            except MetricError as error:
                raise DataError(f"{info.name}: {task}: {error}") from error
        labelled = {task: metrics for task, metrics in by_task.items() if metrics.examples}
        if not labelled:
            raise DataError(f"{info.name}: no record has a label of {', '.join(self.tasks)}")
        for task, metrics in labelled.items():
            for name in _SHOWN:
                yield f"{task}_{name}", getattr(metrics, name)
            yield f"{task}_examples", metrics.examples
            if metrics.unlabelled:
                yield f"{task}_missing", metrics.unlabelled
            if metrics.undefined:
                yield f"{task}_nan_examples", metrics.undefined
        for name in ("accuracy", "f1", "majority"):
            yield (
                f"mean_{name}",
                float(np.mean([getattr(metrics, name) for metrics in labelled.values()])),
            )
        yield "tasks", len(labelled)
        if unlabelled_tasks := len(by_task) - len(labelled):
            yield "tasks_without_labels", unlabelled_tasks
        cells = tuple(
            (
                task,
                *(getattr(metrics, name) for name in _SHOWN),
                metrics.examples,
                metrics.unlabelled,
            )
            for task, metrics in by_task.items()
        )
        columns = ("task", *_SHOWN, "examples", "missing")
        yield "by_task", Table(columns, cells, "Precision, recall and F1 weighted by class size")
