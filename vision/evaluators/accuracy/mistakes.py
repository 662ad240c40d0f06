"""Multi-label accuracy, and the remaining mistakes by category of a human review."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from vision.data import files
from vision.data.source import DataError
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure, Table
from vision.evaluators.image_text.embeddings import embed
from vision.evaluators.several_labels import known, label_sets
from vision.metrics.arrays import MetricError, class_indices, predictions
from vision.metrics.groups import group_accuracy

CATEGORIES = ("fine_grained", "out_of_vocabulary", "spurious", "non_prototypical")
SEVERITIES = ("major", "minor", "borderline")
_KEYS = ("image", "prediction", "category", "severity")


@dataclasses.dataclass(frozen=True)
class Mistakes:
    """Multi-label accuracy, a must-pass subset, and mistakes by category of a review.

    An answer is right if it is among an image's correct or unclear labels; images marked
    problematic are left out. Yields ``mla`` (accuracy per class of the one original label, then the
    mean over classes), ``accuracy`` (over images), ``top1``, ``examples``, ``mistakes``, and, only
    where there are any, ``problematic``, ``unlabelled`` and ``nan_examples`` (scores without a
    finite maximum: wrong). With a must-pass entry ``must_pass_right`` and ``must_pass_examples``.
    With ``review`` the number of mistakes of every category and severity that the file knows,
    ``mistakes_<category>`` and ``mistakes_<severity>``, ``unreviewed`` (mistakes that are not in
    the file), and the figure ``categories``. Vasudevan et al., When does dough become a bagel?,
    2022.

    Attributes:
      data: what is measured; batches need the labels.
      review: JSONL file, one reviewed mistake per line: ``{"image": key of the record,
        "prediction": class name or number, "category": one of CATEGORIES, "severity": one of
        SEVERITIES}``; other keys are ignored. None for no review.
      label: name of the original label, int (B,), -1 where there is none.
      correct: name of a (B, K) entry, 0 and 1: labels that are right, as the column ``MultiLabel``
        gives them.
      unclear: the same of labels that may be right; used where the batches have it.
      problematic, must_pass: names of bool (B,) entries, used where the batches have them.
      logits: name of the logits (B, K) that ``predict`` gives.
    """

    data: EvaluationData
    review: str | None = None
    label: str = "label"
    correct: str = "labels"
    unclear: str = "unclear"
    problematic: str = "problematic"
    must_pass: str = "must_pass"
    logits: str = "logits"

    trained_classes: ClassVar[TrainedClasses] = {"data": ("label", "correct", "unclear")}

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once, and the review.

        Raises:
          DataError: an invalid line of the review, labels of other classes than the logits, or
            no image left.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        source = self.data.source
        name, classes = source.info.name, tuple(source.info.class_names)
        reviewed = None if self.review is None else read_review(self.review, classes)
        optional = (
            *(self.unclear, self.problematic, self.must_pass),
            *(known(self.correct), known(self.unclear)),
        )
        rows = embed(predict, ctx, self.data, (self.logits,), (self.label, self.correct), optional)
        scores = rows[self.logits]
        try:
            labels = class_indices(self.label, rows[self.label], len(scores), scores.shape[1])
        except MetricError as error:
            raise DataError(f"{name}: {error}") from error
        sets = (self.correct, *((self.unclear,) if self.unclear in rows else ()))
        allowed = np.any([label_sets(rows, x, scores.shape[1], name) == 1 for x in sets], axis=0)
        problematic = (
            rows[self.problematic].astype(bool) if self.problematic in rows else labels < -1
        )
        keep = (labels >= 0) & ~problematic
        if not keep.any():
            raise DataError(
                f"{name}: no image is left: {problematic.sum()} problematic and "
                f"{(labels < 0).sum()} without {self.label!r} of {len(labels)}"
            )
        best = predictions(scores)
        correct = allowed[np.arange(len(best)), best] & (best >= 0)
        accuracy = group_accuracy(correct, np.where(keep, labels, -1), scores.shape[1])
        wrong = np.flatnonzero(keep & ~correct)
        yield "mla", accuracy.mean
        yield "accuracy", accuracy.overall
        yield "top1", float((best == labels)[keep].mean())
        yield "examples", int(keep.sum())
        yield "mistakes", len(wrong)
        for key, count in (
            ("problematic", int(problematic.sum())),
            ("unlabelled", int((labels < 0).sum())),
            ("nan_examples", int((keep & (best < 0)).sum())),
        ):
            if count:
                yield key, count
        if self.must_pass in rows:
            must_pass = rows[self.must_pass].astype(bool) & keep
            yield "must_pass_right", int((must_pass & correct).sum())
            yield "must_pass_examples", int(must_pass.sum())
        if reviewed is not None:
            answers = [(source.key(int(rows["_index"][i])), int(best[i])) for i in wrong]
            yield from _categories([reviewed.get(answer) for answer in answers])


def _categories(
    reviews: Sequence[tuple[str, str] | None],
) -> Iterator[tuple[str, float | Figure]]:
    counts = collections.Counter(reviews)
    table = {
        category: [counts[category, severity] for severity in SEVERITIES] for category in CATEGORIES
    }
    for category, row in table.items():
        yield f"mistakes_{category}", sum(row)
    for i, severity in enumerate(SEVERITIES):
        yield f"mistakes_{severity}", sum(row[i] for row in table.values())
    yield "unreviewed", counts[None]
    rows = tuple((category, *row, sum(row)) for category, row in table.items())
    caption = f"Mistakes of the review; {counts[None]} are not in it"
    yield "categories", Table(("category", *SEVERITIES, "all"), rows, caption)


def read_review(
    file: str, class_names: tuple[str, ...] = ()
) -> dict[tuple[str, int], tuple[str, str]]:
    """Reviewed mistakes of a JSONL file: (key of the record, class) to (category, severity).

    Empty lines are skipped. A prediction is a class number, or a name of ``class_names``.

    Raises:
      DataError: no such file, or an invalid or repeated line; names the line.
    """
    try:
        lines = files.read_bytes(file).decode("utf-8").splitlines()
    except (DataError, UnicodeDecodeError) as error:
        raise DataError(f"review={file!r} cannot be read: {error}") from error
    reviews: dict[tuple[str, int], tuple[str, str]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            image, prediction, category, severity = _entry(json.loads(line), class_names)
        except ValueError as error:
            raise DataError(f"{file}, line {number}: {error}") from error
        if (image, prediction) in reviews:
            raise DataError(f"{file}, line {number}: {image!r} with this prediction is there twice")
        reviews[image, prediction] = category, severity
    return reviews


def _entry(entry: Any, class_names: tuple[str, ...]) -> tuple[str, int, str, str]:
    if not isinstance(entry, dict) or any(key not in entry for key in _KEYS):
        raise ValueError(f"an object with {', '.join(_KEYS)} is needed")
    image, prediction, category, severity = (entry[key] for key in _KEYS)
    if not isinstance(image, str):
        raise ValueError(f"image is {image!r}; it must be the key of a record")
    for key, value, valid in (
        ("category", category, CATEGORIES),
        ("severity", severity, SEVERITIES),
    ):
        if value not in valid:
            raise ValueError(f"{key} is {value!r}; valid are {', '.join(valid)}")
    if isinstance(prediction, str) and prediction in class_names:
        prediction = class_names.index(prediction)
    if type(prediction) is not int or not 0 <= prediction < (len(class_names) or np.inf):
        raise ValueError(f"prediction is {prediction!r}; it must be a class, by name or number")
    return image, prediction, category, severity
