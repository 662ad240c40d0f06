"""CNN Features off-the-shelf: an Astounding Baseline for Recognition, 2014.

Activations of a network trained for another task, with a linear classifier or a distance, are a
baseline for every recognition method.

- Classification: features of length 1, a linear support vector machine per class (squared hinge),
  C selected on a tenth of the training records. With ``augment`` 16 views of every image (itself,
  the four corners and the centre at 4/9 of its area, rotations by 10 degrees to both sides, and the
  mirror images of all) are training examples, and at test their scores are added:
  ``score_k(x) = sum_v w_k f(v(x)) / |f(v(x))| + b_k``.
- Retrieval (``papers.cnn_off_the_shelf.retrieval``): ``f -> |.| = 1 -> PCA -> whitening -> |.| = 1
  -> sign(f) sqrt|f|``, and for objects anywhere in an image the mean over the query's patches of
  the distance to the nearest patch of the reference.

By Razavian, Azizpour, Sullivan and Carlsson. Headline: mean AP 77.2 on VOC07, 69.0 % on MIT-67,
61.8 % on CUB, with views. Differences: any tower instead of OverFeat, and its embedding instead of
the first fully connected layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from papers.cnn_off_the_shelf.views import VIEWS, Viewed
from vision.config.ranges import NonEmpty, Positive, checked
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.image_text.embeddings import normalised
from vision.evaluators.labelled import Labelled, counts, labelled, number_of_classes, split
from vision.metrics.groups import group_accuracy
from vision.metrics.multilabel import mean_average_precision
from vision.probes.linear import LinearClassifier
from vision.probes.svm import fit_svm
from vision.probes.whitening import signed_root


@dataclasses.dataclass(frozen=True)
@checked
class OffTheShelf:
    """A linear support vector machine fitted on the features of ``train``, evaluated on ``test``.

    Yields ``top1``, ``class_accuracy`` (mean over classes), ``map`` (mean over classes of the
    average precision of the scores), ``c``, ``held_out_top1`` and what
    ``vision.evaluators.labelled.counts`` counts; records of ``test`` without finite features
    count as wrong in ``top1`` only.

    Attributes:
      train: data to fit.
      test: data to evaluate. Both need ``label`` int (B,), -1 being none.
      augment: whether the 16 views are used.
      c: candidates, selected on every tenth record of ``train``; the smallest of equally good ones.
      power: of the signed power transform after scaling to length 1; 1 for none.
    """

    train: EvaluationData
    test: EvaluationData
    augment: bool = False
    c: NonEmpty[tuple[Positive[float], ...]] = (0.01, 0.1, 1.0, 10.0)
    power: Positive[float] = 1.0

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads both once; errors as of ``LinearProbe``."""
        encode = Viewed(predict) if self.augment else predict
        train = labelled(encode, ctx, self.train, "embedding", "label")
        test = labelled(encode, ctx, self.test, "embedding", "label")
        classes = number_of_classes(self.train, train, test)
        fit, held_out = split(train)
        x, labels = self._prepared(train), train.labels
        accuracies = {}
        for c in sorted(self.c):
            model = self._fitted(x[fit], labels[fit], classes, c)
            predicted = _scores(model, x[held_out]).argmax(1)
            accuracies[c] = float(np.mean(predicted == labels[held_out]))
        c = max(accuracies, key=lambda candidate: accuracies[candidate])
        scores = _scores(self._fitted(x, labels, classes, c), self._prepared(test))
        correct = scores.argmax(1) == test.labels
        count = len(correct) + test.nonfinite
        yield "top1", float(correct.sum()) / count
        yield "class_accuracy", group_accuracy(correct, test.labels, classes).mean
        one_hot = (test.labels[:, None] == np.arange(classes)).astype(np.int64)
        yield "map", mean_average_precision(scores, one_hot).value
        yield "c", c
        yield "held_out_top1", accuracies[c]
        yield from counts(count, train, test)

    def _prepared(self, rows: Labelled) -> np.ndarray:
        """Features (N, V, D) of length 1, after the power transform of length 1 again."""
        x = rows.x.reshape(len(rows.x), VIEWS if self.augment else 1, -1)
        x = np.nan_to_num(normalised(x))
        return x if self.power == 1 else np.nan_to_num(normalised(signed_root(x, self.power)))

    def _fitted(
        self, x: np.ndarray, labels: np.ndarray, classes: int, c: float
    ) -> LinearClassifier:
        flat = x.reshape(-1, x.shape[-1])
        return fit_svm(flat, np.repeat(labels, x.shape[1]), classes, c)


def _scores(model: LinearClassifier, x: np.ndarray) -> np.ndarray:
    """(N, K), summed over views."""
    flat = model.logits(x.reshape(-1, x.shape[-1]))
    return flat.reshape(*x.shape[:2], -1).sum(1)
