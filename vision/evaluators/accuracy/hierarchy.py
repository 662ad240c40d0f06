"""Hierarchical accuracy and severity of mistakes, by a tree of the classes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np

from vision.config.ranges import Positive, checked
from vision.data import files
from vision.data.source import DataError
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.image_text.embeddings import embed
from vision.metrics.arrays import predictions, undefined_rows
from vision.metrics.hierarchy import (
    Hierarchy,
    hierarchical_accuracy,
    hierarchical_distance_at,
    hierarchy,
)


@dataclasses.dataclass(frozen=True)
@checked
class Hierarchical:
    """Accuracy on every level of a tree of classes, and the severity of mistakes.

    Yields ``top1``, ``level_1`` (share of images with the right ancestor one edge below the root)
    to ``level_<L>`` (which is ``top1``), ``severity`` (mean height of the common ancestor over
    mistakes, NaN without any), ``distance`` (over all images), ``distance_at_<k>``, ``examples``,
    ``mistakes``, and, only where there are any, ``unlabelled`` and ``nan_examples`` (scores without
    a finite maximum: wrong on every level, in no distance). Then the figure ``levels``. See
    ``vision.metrics.hierarchy``; Bertinetto et al., Making Better Mistakes, 2020.

    Attributes:
      data: what is measured.
      paths: class name to its ancestors, root and class left out, or the name of a JSON file that
        holds such an object: ``{"dog": ["animal"], "car": []}``. Every class of the source must be
        there; others may be. For scenes: ``vision.data.sources.scenes.paths.class_paths``.
      at: the ``k`` of the distances; each 1..K.
      logits: name of the logits (B, K) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
    """

    data: EvaluationData
    paths: Mapping[str, tuple[str, ...]] | str
    at: tuple[Positive[int], ...] = (1, 5)
    logits: str = "logits"
    label: str = "label"

    trained_classes: ClassVar[TrainedClasses] = {"data": ("label",)}

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once, and the file of ``paths``.

        Raises:
          DataError: a source without class names, a class without a path, paths that are no tree,
            a file that cannot be read, or no labels.
          MetricError: labels that are no class, or logits of another number of classes.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        tree = self._tree()
        rows = embed(predict, ctx, self.data, (self.logits,), (self.label,))
        scores, labels = rows[self.logits], rows[self.label]
        accuracy = hierarchical_accuracy(predictions(scores), labels, tree)
        if not accuracy.examples + accuracy.undefined:
            raise DataError(f"{self.data.source.info.name}: no record has a {self.label!r}")
        yield "top1", float(accuracy.level_accuracy[-1])
        for level, share in enumerate(accuracy.level_accuracy, 1):
            yield f"level_{level}", float(share)
        yield "severity", accuracy.severity
        yield "distance", accuracy.distance
        defined = ~undefined_rows(scores)
        for k in self.at:
            if k <= len(tree.path):
                yield (
                    f"distance_at_{k}",
                    hierarchical_distance_at(scores[defined], labels[defined], tree, k),
                )
        yield "examples", accuracy.examples + accuracy.undefined
        yield "mistakes", accuracy.mistakes
        if unlabelled := int((labels < 0).sum()):
            yield "unlabelled", unlabelled
        if accuracy.undefined:
            yield "nan_examples", accuracy.undefined
        levels = np.arange(1, tree.levels + 1, dtype=np.float64)
        line = Line("accuracy", levels, accuracy.level_accuracy)
        yield "levels", Curve((line,), "edges below the root", "accuracy")

    def _tree(self) -> Hierarchy:
        info = self.data.source.info
        if not info.class_names:
            raise DataError(f"{info.name} has no class names, by which paths are looked up")
        paths = read_paths(self.paths) if isinstance(self.paths, str) else self.paths
        origin = self.paths if isinstance(self.paths, str) else "paths"
        if missing := [name for name in info.class_names if name not in paths]:
            raise DataError(
                f"{origin} has no {missing[0]!r} nor {len(missing) - 1} more of the "
                f"{len(info.class_names)} classes of {info.name}; every class needs its ancestors"
            )
        try:
            return hierarchy([(*paths[name], name) for name in info.class_names])
        except ValueError as error:
            raise DataError(f"{origin}: {error}") from error


def read_paths(file: str) -> dict[str, Sequence[str]]:
    """The object of a JSON file: class name to a list of its ancestors.

    Raises:
      DataError: no such file, no JSON, or another shape; names the file and the class.
    """
    try:
        paths = json.loads(files.read_bytes(file).decode("utf-8"))
    except (DataError, ValueError) as error:
        raise DataError(f"paths={file!r} cannot be read: {error}") from error
    if not isinstance(paths, dict):
        raise DataError(f"{file}: an object of class names is needed, not {type(paths).__name__}")
    for name, path in paths.items():
        if not isinstance(path, list) or not all(isinstance(node, str) for node in path):
            raise DataError(f"{file}: {name!r} needs a list of names, not {path!r}")
    return paths
