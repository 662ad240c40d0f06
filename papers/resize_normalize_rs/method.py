"""Revisiting pre-trained remote sensing model benchmarks: resizing and normalization matter, 2023.

A frozen encoder is evaluated by nearest neighbours of its features, and the result depends largely
on preprocessing: images of 34 or 64 px have to be resized bilinearly to the size the encoder was
trained on, and each channel standardised by mean and deviation of the training images. This module
evaluates the grid of sizes and normalisations, for a trained tower and two untrained baselines
(``papers.resize_normalize_rs.encoders``):

- ``image_stats``: mean, deviation, minimum and maximum of each channel, 4 C numbers;
- ``mosaiks``: random convolutions (Rolf et al., 2021): F filters of 3x3, Gaussian or whitened
  patches of training images; the mean over positions of ``max(w * x + b, 0)`` and of
  ``max(-(w * x + b), 0)``, 2 F numbers.

The features of both are standardised on the training set; ``top1`` is that of the majority vote of
five Euclidean neighbours. By Corley, Robinson, Dodhia, Ferres and Najafirad. Headline: So2Sat 56.2
-> 88.5 % by resizing and standardisation, EuroSAT 82.1 -> 91.2 % from 64 to 224 px.

Differences: one patch per image, at a position that is a function of its index, from images evenly
over the training set; the first convolution is not adapted to other numbers of channels, so the
tower has to be built with the right number.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Annotated

import numpy as np

from papers.resize_normalize_rs.encoders import (
    Mosaiks,
    PreprocessedEncoder,
    channel_normalisers,
    image_stats,
    neighbours_top1,
    standardised,
)
from vision.config.ranges import Ge, NonEmpty, NonNegative, Positive, checked, one_of
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.image_text.embeddings import spread
from vision.evaluators.labelled import Labelled, counts, labelled

NORMALISATIONS = ("divide", "standardise", "min_max")
ENCODERS = ("tower", "image_stats", "mosaiks")


@dataclasses.dataclass(frozen=True)
@checked
class ResizeNormalize:
    """``top1`` of a k-nearest-neighbour vote for every encoder, size and normalisation.

    Yields ``<encoder>_<size>_<normalisation>_top1``, where the size is ``native`` or a number of
    px, ``<encoder>_<normalisation>_delta``, the largest size's less the native one's where both
    are asked for, and the counts of ``vision.evaluators.labelled``; then the figure ``sizes``.

    Attributes:
      train: the neighbours; images as stored, of any range, all of one size.
      test: data to evaluate. Both have ``label`` int (B,), -1 being none.
      sizes: in px; 0 for the stored size.
      normalisations: ``divide`` (by ``divisor``), ``standardise`` (each channel, by ``train``),
        ``min_max`` (each channel's minimum and maximum in ``train`` become 0 and 1).
      encoders: ``tower`` (the ``embedding`` of ``predict``), ``image_stats``, ``mosaiks``.
      divisor: 255 for 8 bits, 10,000 for reflectances.
      k: number of neighbours.
      filters: number of filters of ``mosaiks``.
      gaussian: whether the filters are Gaussian, rather than patches of ``train``.
      seed: of Gaussian filters.
    """

    train: EvaluationData
    test: EvaluationData
    sizes: NonEmpty[tuple[NonNegative[int], ...]] = (0, 224)
    normalisations: NonEmpty[tuple[Annotated[str, one_of(NORMALISATIONS)], ...]] = (
        "divide",
        "standardise",
    )
    encoders: NonEmpty[tuple[Annotated[str, one_of(ENCODERS)], ...]] = ENCODERS
    divisor: Positive[float] = 255.0
    k: Positive[int] = 5
    filters: Annotated[int, Ge(2)] = 512
    gaussian: bool = False
    seed: int = 0

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads both once for every cell of the grid, and ``train`` once more.

        Raises:
          DataError: no records with labels.
          FitError: fewer training records than ``k``.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        unit_scale = np.ones(1, np.float32)
        stats = PreprocessedEncoder(predict, 0, 0 * unit_scale, unit_scale, image_stats)
        native_stats = self._read(stats, ctx, self.train), self._read(stats, ctx, self.test)
        normalisers = channel_normalisers(native_stats[0].x, self.divisor)
        channels = native_stats[0].x.shape[1] // 4
        lines = []
        for encoder, normalisation in itertools.product(self.encoders, self.normalisations):
            shift, scale = (each.astype(np.float32) for each in normalisers[normalisation])
            accuracies: dict[int, float] = {}
            for size in self.sizes:
                plain = PreprocessedEncoder(predict, size, shift, scale)
                encoder_of = self._encoded(encoder, plain, ctx, channels)
                train = self._read(encoder_of, ctx, self.train)
                test = self._read(encoder_of, ctx, self.test)
                accuracies[size] = self._top1(encoder, train, test)
                name = f"{size}px" if size else "native"
                yield f"{encoder}_{name}_{normalisation}_top1", accuracies[size]
            if 0 in accuracies and len(accuracies) > 1:
                yield (
                    f"{encoder}_{normalisation}_delta",
                    accuracies[max(accuracies)] - accuracies[0],
                )
            sizes = sorted(accuracies)
            values = np.asarray([accuracies[size] for size in sizes])
            lines.append(Line(f"{encoder}, {normalisation}", np.asarray(sizes, float), values))
        yield from counts(len(native_stats[1].x) + native_stats[1].nonfinite, *native_stats)
        yield "sizes", Curve(tuple(lines), "px, 0 for as they are", "top-1 of neighbours")

    def _read(
        self, encoder: PreprocessedEncoder, ctx: EvalContext, data: EvaluationData
    ) -> Labelled:
        return labelled(encoder, ctx, data, "embedding", "label")

    def _encoded(
        self, encoder: str, preprocessed: PreprocessedEncoder, ctx: EvalContext, channels: int
    ) -> PreprocessedEncoder:
        if encoder == "tower":
            return preprocessed
        if encoder == "image_stats":
            return dataclasses.replace(preprocessed, encoder=image_stats)
        if self.gaussian:
            mosaiks = Mosaiks.gaussian(channels, self.filters, self.seed)
        else:
            patches = dataclasses.replace(preprocessed, encoder="patches")
            train_patches = self._read(patches, ctx, self.train).x
            mosaiks = Mosaiks.of_patches(
                train_patches[spread(self.filters, len(train_patches))], channels
            )
        return dataclasses.replace(preprocessed, encoder=mosaiks)

    def _top1(self, encoder: str, train: Labelled, test: Labelled) -> float:
        x, y = train.x.astype(np.float64), test.x.astype(np.float64)
        if encoder != "tower":
            x, y = standardised(x, y)
        predicted = neighbours_top1(x, train.labels, y, self.k)
        return float(np.sum(predicted == test.labels)) / (len(y) + test.nonfinite)
