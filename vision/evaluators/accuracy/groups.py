"""Accuracy per group of examples, worst-group accuracy, and accuracy along a long tail."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from vision.data.all_records import labels_of, names_of
from vision.data.source import DataError, Source
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Gallery, Line, Picture
from vision.evaluators.image_text.embeddings import Rows, embed
from vision.evaluators.thumbnail import picture
from vision.metrics.arrays import MetricError, class_indices, predictions, softmax_parts
from vision.metrics.groups import TAIL_NAMES, GroupAccuracy, group_accuracy, tail_split


@dataclasses.dataclass(frozen=True)
class GroupedAccuracy:
    """Top-1 per group, where a batch entry gives each example's group (domain, hospital, ...).

    Yields ``worst`` (the least accuracy of a group that has examples), ``gap`` (to the best),
    ``mean`` (every group counts the same), ``top1``, then ``top1_<group>`` with ``_low`` and
    ``_high`` (95 % Wilson interval) and ``_examples`` of every group that has any, ``examples``,
    and, only where there are any, ``ungrouped`` (group -1) and ``unlabelled``. Then the figure
    ``groups``: accuracy by size, and ``mistakes``. NaN among an example's logits makes it wrong.

    Attributes:
      data: batches need the label and the group.
      group: name of an int (B,) entry of the batches; -1 is none.
      names: of the groups; by default those of the source, else their numbers.
      logits: name of the logits (B, K) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
      mistakes: how many of the most confident wrong answers of every group to show.
      image: name of the image in the records of ``data.source``, for their pictures.
    """

    data: EvaluationData
    group: str = "group"
    names: tuple[str, ...] = ()
    logits: str = "logits"
    label: str = "label"
    mistakes: int = 8
    image: str = "image"

    trained_classes: ClassVar[TrainedClasses] = {"data": ("label",)}

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: no labelled example in any group.
          MetricError: a group beyond the names.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        rows = embed(predict, ctx, self.data, (self.logits,), (self.label, self.group))
        source: Source = self.data.source
        labels = _labels(rows, self.label, self.logits, source)
        groups = np.where(labels >= 0, class_indices(self.group, rows[self.group], None, None), -1)
        names = self.names or names_of(source, self.group)
        if not names:
            names = tuple(str(i) for i in range(int(groups.max(initial=0)) + 1))
        correct = predictions(rows[self.logits]) == labels
        accuracy = group_accuracy(correct, groups, len(names))
        if not accuracy.count.any():
            raise DataError(f"{source.info.name}: no labelled example has a {self.group!r}")
        yield from _summary(accuracy)
        yield from _per_group(accuracy, tuple(f"top1_{name}" for name in names))
        yield "examples", int(accuracy.count.sum())
        if ungrouped := int(((labels >= 0) & (groups < 0)).sum()):
            yield "ungrouped", ungrouped
        if unlabelled := int((labels < 0).sum()):
            yield "unlabelled", unlabelled
        order = np.argsort(accuracy.count, kind="stable")
        order = order[accuracy.count[order] > 0]
        line = Line("groups", np.log10(accuracy.count[order]), accuracy.accuracy[order])
        yield "groups", Curve((line,), "log10 of the group's examples", "top-1")
        if self.mistakes:
            yield "mistakes", Gallery(tuple(self._pictures(rows, groups, names)))

    def _pictures(
        self, rows: Rows, groups: np.ndarray, names: tuple[str, ...]
    ) -> Iterator[Picture]:
        source, logits, labels = self.data.source, rows[self.logits], rows[self.label]
        predicted = predictions(logits)
        _, log_normaliser = softmax_parts(logits)
        probability = np.exp(-log_normaliser)
        classes = source.info.class_names or tuple(str(i) for i in range(logits.shape[1]))
        for number, group in enumerate(names):
            wrong = np.flatnonzero((groups == number) & (predicted != labels) & (predicted >= 0))
            for i in wrong[np.argsort(-probability[wrong], kind="stable")][: self.mistakes]:
                label, prediction = classes[labels[i]], classes[predicted[i]]
                index = int(rows["_index"][i])
                shown = picture(source, index, self.image, label, prediction, float(probability[i]))
                yield dataclasses.replace(shown, group=group)


@dataclasses.dataclass(frozen=True)
class LongTail:
    """Top-1 of classes with many, some and few training examples, and balanced accuracy.

    Yields ``balanced`` (every class counts the same), ``top1``, then ``head``, ``medium`` and
    ``tail`` with ``_low``, ``_high`` and ``_examples`` as ``GroupedAccuracy`` does, and
    ``<part>_classes``. Liu et al., Large-Scale Long-Tailed Recognition in an Open World, 2019.

    Attributes:
      data: what is measured; the label counts the classes.
      train: source whose labels are counted; its images are not read.
      head_above, tail_below: training examples of a class.
      logits: name of the logits (B, K) that ``predict`` gives.
      label: name of the labels, in the batches and in ``train``; -1 is unlabelled.
    """

    data: EvaluationData
    train: Source
    head_above: int = 100
    tail_below: int = 20
    logits: str = "logits"
    label: str = "label"

    trained_classes: ClassVar[TrainedClasses] = {
        "data": ("label",),
        "train": ("label",),
    }

    def __post_init__(self) -> None:
        tail_split(np.zeros(1, np.int64), self.head_above, self.tail_below)

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once, and the labels of ``train``.

        Raises:
          DataError: no labels, or training labels that are no class.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        rows = embed(predict, ctx, self.data, (self.logits,), (self.label,))
        labels = _labels(rows, self.label, self.logits, self.data.source)
        classes = rows[self.logits].shape[1]
        train_labels = np.asarray(labels_of(self.train, self.label), np.int64)
        if train_labels.max(initial=0) >= classes or not (labels >= 0).any():
            raise DataError(
                f"{self.train.info.name} has labels up to {train_labels.max(initial=0)} and the "
                f"logits {classes} columns; {self.data.source.info.name} has "
                f"{(labels >= 0).sum()} labels"
            )
        counts = np.bincount(train_labels[train_labels >= 0], minlength=classes)
        parts = tail_split(counts, self.head_above, self.tail_below)
        correct = predictions(rows[self.logits]) == labels
        yield "balanced", group_accuracy(correct, labels, classes).mean
        groups = np.where(labels >= 0, parts[labels], -1)
        accuracy = group_accuracy(correct, groups, len(TAIL_NAMES))
        yield "top1", accuracy.overall
        yield from _per_group(accuracy, TAIL_NAMES)
        for part, name in enumerate(TAIL_NAMES):
            yield f"{name}_classes", int((parts == part).sum())
        yield "examples", int(accuracy.count.sum())
        if accuracy.left_out:
            yield "unlabelled", accuracy.left_out


def _labels(rows: Rows, label: str, logits: str, source: Source) -> np.ndarray:
    """Labels int64 (N,), -1 for none, that are classes of the logits."""
    scores = rows[logits]
    try:
        return class_indices(label, rows[label], len(scores), scores.shape[1])
    except MetricError as error:
        raise DataError(f"{source.info.name}: {error}") from error


def _summary(accuracy: GroupAccuracy) -> Iterator[tuple[str, float]]:
    yield "worst", accuracy.worst_accuracy
    yield "gap", accuracy.gap
    yield "mean", accuracy.mean
    yield "top1", accuracy.overall


def _per_group(accuracy: GroupAccuracy, names: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    for i, name in enumerate(names):
        if accuracy.count[i]:
            yield name, float(accuracy.accuracy[i])
            yield f"{name}_low", float(accuracy.low[i])
            yield f"{name}_high", float(accuracy.high[i])
            yield f"{name}_examples", int(accuracy.count[i])
