"""Linear heads on a frozen backbone: image-level findings, and segmentation by patches.

As medical encoders are compared: Perez-Garcia et al., RAD-DINO, 2025.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated

import numpy as np

from vision.config.ranges import Ge, checked
from vision.data.source import DataError
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.image_text.embeddings import Rows, embed
from vision.evaluators.several_labels import known, label_sets
from vision.metrics.detection import average_precision
from vision.probes.linear import FitError, fit_logistic


@dataclasses.dataclass(frozen=True)
class FindingsProbe:
    """A logistic regression for every finding on the features of ``train``, tested on ``test``.

    Findings are independent binary labels. Yields ``auprc``, the mean average precision of
    the findings, and ``auprc_0`` and so on of each; ``prevalence``, the mean AUPRC of chance;
    ``examples`` (of ``test``) and, only where there are any, ``undefined`` (findings that all or
    none of ``train`` have, or none of ``test``: they are left out), and ``unknown`` (labels of both
    that are not known: a finding is fitted and measured on the images of which it is known).

    Attributes:
      train: what is fitted.
      test: what is measured.
      output: name of the features (B, D) that ``predict`` gives.
      label: name of a (B, K) entry of the batches: 1, 0, or -1 where it is not known; or 1 and 0
        with ``<label>_known`` beside it. As ``MultiLabel`` and ``PartialLabels`` give them.
      decay: of mean NLL + decay / 2 |w|^2, for features whose mean square is one.
    """

    train: EvaluationData
    test: EvaluationData
    output: str = "embedding"
    label: str = "findings"
    decay: float = 1e-3

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads both once.

        Raises:
          DataError: no finding has positives in both, and negatives in ``train``; or labels other
            than 1, 0 and -1.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        sources = [data.source.info.name for data in (self.train, self.test)]
        train, test = (
            embed(predict, ctx, data, (self.output,), (self.label,), (known(self.label),))
            for data in (self.train, self.test)
        )
        train_targets = label_sets(train, self.label, None, sources[0], in_part=True)
        findings = train_targets.shape[1]
        test_targets = label_sets(test, self.label, findings, sources[1], in_part=True)
        x, scale = _scaled(train, self.output)
        precision, prevalence = {}, []
        for k in range(findings):
            fitted, tested = train_targets[:, k] >= 0, test_targets[:, k] >= 0
            y, truth = train_targets[fitted, k], test_targets[tested, k] == 1
            if not ((y == 1).any() and truth.any() and (y == 0).any()):
                continue
            model = fit_logistic(x[fitted], y.astype(np.int64), 2, self.decay)
            logits = model.logits(test[self.output][tested] * scale)
            score = logits[:, 1] - logits[:, 0]
            precision[k] = average_precision(score[truth], score[~truth])
            prevalence.append(truth.mean())
        if not precision:
            raise DataError(f"{self.train.source.info.name}: no finding that some records have")
        yield "auprc", float(np.mean(list(precision.values())))
        for k, value in precision.items():
            yield f"auprc_{k}", value
        yield "prevalence", float(np.mean(prevalence))
        yield "examples", len(test_targets)
        if undefined := findings - len(precision):
            yield "undefined", undefined
        if unknown := int((train_targets < 0).sum() + (test_targets < 0).sum()):
            yield "unknown", unknown


@dataclasses.dataclass(frozen=True)
@checked
class PatchProbe:
    """A logistic regression on the patches of ``train`` that segments the images of ``test``.

    A patch's target is the class of most of its pixels, the lowest of equals; its prediction holds
    for all of its pixels. Yields ``dice``, the mean over classes but 0, the ground, of
    2 |A and B| / (|A| + |B|) over all pixels of ``test``; ``dice_1`` and so on; ``examples`` (of
    ``test``) and, only where there are any, ``undefined`` (classes that neither the labels nor the
    predictions of ``test`` have, left out).

    Attributes:
      train: what is fitted.
      test: what is measured.
      classes: K.
      output: name of the patches (B, h, w, D) that ``predict`` gives.
      label: name of an int (B, H, W) entry of the batches, 0..K-1; h divides H and w divides W.
      decay: of mean NLL + decay / 2 |w|^2, for features whose mean square is one.
    """

    train: EvaluationData
    test: EvaluationData
    classes: Annotated[int, Ge(2)]
    output: str = "map"
    label: str = "segmentation"
    decay: float = 1e-3

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads both once.

        Raises:
          FitError: all patches have the same target.
          ValueError: ``predict`` or the batches lack what is needed, or give other shapes.
        """
        train = embed(predict, ctx, self.train, (self.output,), (self.label,))
        test = embed(predict, ctx, self.test, (self.output,), (self.label,))
        x, scale = _scaled(train, self.output)
        targets = self._majority(train).reshape(-1)
        if len(np.unique(targets)) < 2:
            raise FitError(f"{self.label!r}: all patches of {self.train.source.info.name} agree")
        model = fit_logistic(x.reshape(-1, x.shape[-1]), targets, self.classes, self.decay)
        patches, true = test[self.output], np.asarray(test[self.label])
        self._majority(test)
        predicted = model.logits((patches * scale).reshape(-1, x.shape[-1])).argmax(-1)
        predicted = predicted.reshape(patches.shape[:3])
        for axis in (1, 2):
            predicted = np.repeat(predicted, true.shape[axis] // patches.shape[axis], axis)
        dice = {}
        for k in range(1, self.classes):
            size = int(np.sum(predicted == k) + np.sum(true == k))
            if size:
                dice[k] = 2 * int(np.sum((predicted == k) & (true == k))) / size
        if not dice:
            raise FitError(f"{self.label!r}: {self.test.source.info.name} shows the ground only")
        yield "dice", float(np.mean(list(dice.values())))
        for k, value in dice.items():
            yield f"dice_{k}", value
        yield "examples", len(true)
        if undefined := self.classes - 1 - len(dice):
            yield "undefined", undefined

    def _majority(self, rows: Rows) -> np.ndarray:
        """int64 (N, h, w): the class of most pixels of every patch."""
        true, patches = np.asarray(rows[self.label]), rows[self.output]
        name = f"{self.label!r} {true.dtype}{list(true.shape)}"
        if true.ndim != 3 or patches.ndim != 4 or true.dtype.kind not in "iu":
            raise ValueError(
                f"{name}: expected integers (N, H, W) beside {self.output!r} (N, h, w, D)"
            )
        count, height, width = true.shape
        grid = patches.shape[1:3]
        if height % grid[0] or width % grid[1] or true.max() >= self.classes:
            raise ValueError(f"{name}: sides are no multiples of {grid}, or beyond {self.classes}")
        cells = true.reshape(count, grid[0], height // grid[0], grid[1], width // grid[1])
        votes = [np.sum(cells == k, axis=(2, 4)) for k in range(self.classes)]
        return np.argmax(np.stack(votes), axis=0)


def _scaled(rows: Rows, output: str) -> tuple[np.ndarray, np.float32]:
    """Features whose mean square is one, and the factor that makes it so."""
    x = rows[output]
    square = float(np.mean(np.square(x, dtype=np.float64)))
    scale = np.float32(square**-0.5 if square > 0 else 1.0)
    return x * scale, scale
