"""RESISC45: balanced scenes from the air, from a tenth or a fifth of the labels, ten times.

31,500 images of 256 pixels, 700 of each of 45 classes. Of every class a share of 10 or 20 % is
drawn for training and the rest asked; this is repeated ten times, and mean and deviation of the
overall accuracy are reported, with the confusion of classes. Features of three levels stand beside
each other, all with linear support vector machines: colours, bags of visual words, and a network's,
which was trained for something else or fine-tuned.

Cheng, Han and Lu, Remote Sensing Image Scene Classification: Benchmark and State of the Art, 2017.
Headline: VGG16, fine-tuned, 87.15 % from a tenth and 90.36 from a fifth; colour histograms some 24
to 28. There is no code of the authors'. Differences: visual words are of small patches, normalised
and quantised by k-means, with one level of a pyramid, in the place of dense SIFT; the network is
any tower. C is chosen on every fifth record of the training part. A tower is fine-tuned by training
it on the same share (``config``), in one run, not ten.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from papers.resisc45.features import COLOUR, PATCHES, WORDS, Described, codebook
from vision.config.ranges import Gt, Lt, NonEmpty, NonNegative, Positive, checked
from vision.data.source import DataError
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import ConfusionMatrix, Figure
from vision.evaluators.image_text.embeddings import embed, finite
from vision.probes.svm import fit_svm

LEVELS = {"colour": COLOUR, "words": WORDS, "tower": "embedding"}


def stratified_fraction(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """bool (N,): of every class ``round(share n)`` of its n records, at least one, at random.

    Args:
      labels: int (N,), 0 and above.
      share: of each class, in 0..1.
      seed: another seed, another part.

    Raises:
      DataError: a class would have no record outside.
    """
    rng, chosen = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(1, round(share * len(members)))
        if count >= len(members):
            raise DataError(
                f"class {label} has {len(members)} records: share={share} leaves none to ask"
            )
        chosen[rng.permutation(members)[:count]] = True
    return chosen


def svm_accuracy(
    x: np.ndarray, labels: np.ndarray, learned: np.ndarray, candidates: tuple[float, ...]
) -> tuple[float, np.ndarray]:
    """Accuracy and answers of the records that are not ``learned``, by a linear SVM of the others.

    Features are scaled to a mean squared norm of 1 over what is learned; C is the best of the
    candidates on every fifth of it, the smallest of equally good ones.

    Args:
      x: (N, D).
      labels: int (N,).
      learned: bool (N,).
      candidates: for C.
    """
    classes = int(labels.max()) + 1
    x = x / np.sqrt(np.mean(np.sum(np.square(x[learned], dtype=np.float64), 1)) + 1e-30)
    fit, told = x[learned], labels[learned]
    held_out = np.arange(len(fit)) % 5 == 4

    def right(c: float) -> float:
        model = fit_svm(fit[~held_out], told[~held_out], classes, c)
        return float(np.mean(model.logits(fit[held_out]).argmax(1) == told[held_out]))

    tried = sorted(set(candidates))
    best = max(tried, key=right) if len(tried) > 1 else tried[0]
    answers = fit_svm(fit, told, classes, best).logits(x[~learned]).argmax(1)
    return float(np.mean(answers == labels[~learned])), answers


@dataclasses.dataclass(frozen=True)
@checked
class RepeatedShares:
    """Linear SVMs on three levels of features, from shares of the labels, repeated.

    For every level, ``colour``, ``words`` and ``tower``, and share yields ``<level>_<percent>``,
    the mean over repeats of the overall accuracy, and ``<level>_<percent>_std``, their deviation;
    then ``examples`` and, only where there are any, ``unlabelled`` and ``nonfinite`` records, which
    are left out. The figure ``confusion`` is of the tower's first repeat with the largest share.

    Attributes:
      data: images with ``label``, int (B,), -1 for none; ``image`` in ``low`` to ``high``.
      shares: of every class that are learned from.
      repeats: of each.
      low, high: of pixels, one number or one per channel.
      words: of the codebook, which is made of all images, without labels.
      patch: side of a patch, in pixels.
      stride: between patches.
      c: candidates for C.
      seed: of parts and codebook.
    """

    data: EvaluationData
    shares: NonEmpty[tuple[Annotated[float, Gt(0), Lt(1)], ...]] = (0.1, 0.2)
    repeats: Positive[int] = 10
    low: NonEmpty[tuple[float, ...]] = (-1.0,)
    high: NonEmpty[tuple[float, ...]] = (1.0,)
    words: Positive[int] = 256
    patch: Positive[int] = 6
    stride: Positive[int] = 2
    c: NonEmpty[tuple[Positive[float], ...]] = (0.1, 1.0, 10.0, 100.0)
    seed: NonNegative[int] = 0

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` twice.

        Raises:
          DataError: no labelled record, one class only, or one with too few records.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        describe = Described(predict, self.low, self.high, self.patch, self.stride)
        patches = embed(describe, ctx, self.data, (PATCHES,))[PATCHES]
        flat = jnp.asarray(patches.reshape(-1, patches.shape[-1])[:100_000])
        if len(flat) < self.words:
            raise DataError(f"words={self.words}, but there are {len(flat)} patches of all images")
        centres = np.asarray(codebook(flat, self.words, jax.random.key(self.seed)))
        describe = dataclasses.replace(describe, centres=centres)
        rows = embed(describe, ctx, self.data, tuple(LEVELS.values()), ("label",))
        known = rows["label"] >= 0
        good = known & np.all([finite(rows[name]) for name in LEVELS.values()], 0)
        labels = rows["label"][good].astype(np.int64)
        if len(np.unique(labels)) < 2:
            raise DataError(f"{self.data.source.info.name}: labels of two classes are needed")
        shown = None
        for level, name in LEVELS.items():
            for share in self.shares:
                found = []
                for repeat in range(self.repeats):
                    learned = stratified_fraction(labels, share, self.seed + repeat)
                    accuracy, answers = svm_accuracy(rows[name][good], labels, learned, self.c)
                    found.append(accuracy)
                    if level == "tower" and share == max(self.shares) and repeat == 0:
                        shown = labels[~learned], answers
                key = f"{level}_{round(100 * share)}"
                yield key, float(np.mean(found))
                yield f"{key}_std", float(np.std(found, ddof=1)) if self.repeats > 1 else 0.0
        yield "examples", int(good.sum())
        for key, count in (("unlabelled", (~known).sum()), ("nonfinite", (known & ~good).sum())):
            if count:
                yield key, int(count)
        names = self.data.source.info.class_names
        if shown is not None and names:
            counts = np.zeros((len(names), len(names)), np.int64)
            np.add.at(counts, shown, 1)
            yield "confusion", ConfusionMatrix(counts, tuple(names))
