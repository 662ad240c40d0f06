"""Revisiting pre-trained remote sensing model benchmarks: resizing and normalization matter, 2023.

A frozen encoder is measured by the neighbours of its features, and most of what is measured may be
how images were prepared: pictures of 34 or 64 px have to come at the size the encoder was trained
on, bilinearly, before each channel is brought to mean 0 and deviation 1 of the training images. The
grid of both, for a trained tower and for two baselines that learn nothing:

- ``image_stats``: mean, deviation, least and greatest value of each channel, 4 C numbers;
- ``mosaiks``: random convolutions (Rolf et al., 2021): F filters of 3x3, Gaussian or patches of
  training images, whitened; the mean over positions of ``max(w * x + b, 0)`` and of
  ``max(-(w * x + b), 0)``, 2 F numbers.

Both, standardised feature by feature on the training set; ``top1`` is that of the vote of five
Euclidean neighbours. By Corley, Robinson, Dodhia, Ferres and Najafirad. Headline: So2Sat 56.2 ->
88.5 % by resizing and standardisation, EuroSAT 82.1 -> 91.2 % from 64 to 224 px.

The patches are one of each image at a place that follows from its number, evenly over the training
set; the first convolution is not adapted to other numbers of channels: make the tower with them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.image_text.embeddings import spread
from vision.evaluators.labelled import Labelled, counts, labelled
from vision.metrics.arrays import blocks
from vision.probes.linear import FitError
from vision.train.objective import Batch, Variables

Normalisation = Literal["divide", "standardise", "min_max"]
NORMALISATIONS = ("divide", "standardise", "min_max")
ENCODERS = ("tower", "image_stats", "mosaiks")
_SIDE = 3  # of filters


def image_stats(image: jax.Array) -> jax.Array:
    """Images (B, h, w, C) to (B, 4 C): mean, deviation, least, greatest of each channel."""
    parts = [getattr(image, name)((1, 2)) for name in ("mean", "std", "min", "max")]
    return jnp.concatenate(parts, 1)


def patches(image: jax.Array, index: jax.Array) -> jax.Array:
    """One of each image (B, h, w, C), at a place that follows from its number: (B, 9 C)."""
    rows, columns = (side - _SIDE + 1 for side in image.shape[1:3])
    at = (index * 7919) % (rows * columns)

    def cut(image: jax.Array, at: jax.Array) -> jax.Array:
        start = (at // columns, at % columns, 0)
        return jax.lax.dynamic_slice(image, start, (_SIDE, _SIDE, image.shape[2]))

    return jax.vmap(cut)(image, at).reshape(len(image), -1)


@dataclasses.dataclass(frozen=True, eq=False)
class Mosaiks:
    """Random convolution features of images with C channels.

    Attributes:
      kernel: float32 (3, 3, C, F).
      bias: float32 (F,).
    """

    kernel: np.ndarray
    bias: np.ndarray

    @classmethod
    def gaussian(cls, channels: int, filters: int, seed: int) -> Mosaiks:
        draw = np.random.default_rng(seed)
        kernel = draw.normal(size=(_SIDE, _SIDE, channels, filters))
        return cls(kernel.astype(np.float32), np.zeros(filters, np.float32))

    @classmethod
    def of_patches(cls, given: np.ndarray, channels: int, floor: float = 1e-3) -> Mosaiks:
        """Of patches (F, 9 C), whitened (ZCA) so that neighbouring pixels do not agree.

        ``floor`` times the mean variance is added to every variance, for directions in which
        patches hardly vary.
        """
        mean = given.mean(0)
        away = given.astype(np.float64) - mean
        covariance = away.T @ away / len(given)
        values, vectors = np.linalg.eigh(covariance)
        level = floor * max(values.mean(), 1e-12)
        whiten = (vectors / np.sqrt(np.maximum(values, 0) + level)) @ vectors.T
        filters = away @ whiten
        filters /= np.maximum(np.linalg.norm(filters, axis=1, keepdims=True), 1e-12)
        # Filters see whitened patches: the whitening goes into kernel and bias.
        kernel, bias = filters @ whiten, -(filters @ whiten) @ mean
        shaped = kernel.T.reshape(_SIDE, _SIDE, channels, len(given))
        return cls(shaped.astype(np.float32), bias.astype(np.float32))

    def __call__(self, image: jax.Array) -> jax.Array:
        """Images (B, h, w, C) to (B, 2 F)."""
        numbers = ("NHWC", "HWIO", "NHWC")
        found = jax.lax.conv_general_dilated(
            image, jnp.asarray(self.kernel), (1, 1), "VALID", dimension_numbers=numbers
        )
        found += jnp.asarray(self.bias)
        both = [jnp.maximum(found, 0).mean((1, 2)), jnp.maximum(-found, 0).mean((1, 2))]
        return jnp.concatenate(both, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """Images resized to ``size`` px (0: as they are), then ``(x - shift) / scale``, and encoded.

    ``encoder`` is None for the run's own output, ``"patches"``, or a function of images.

    Attributes:
      predict: of the run.
      output: name of what is read.
      size: side in pixels; 0 leaves the images as they are.
      shift: per channel.
      scale: per channel.
      encoder: of images; None for the run's own output.
    """

    predict: Predict
    output: str
    size: int
    shift: np.ndarray
    scale: np.ndarray
    encoder: object = None

    def __call__(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        image = batch["image"].astype(jnp.float32)
        if self.size:
            to = (len(image), self.size, self.size, image.shape[3])
            image = jax.image.resize(image, to, "bilinear", antialias=False)
        image = (image - jnp.asarray(self.shift)) / jnp.asarray(self.scale)
        if self.encoder is None:
            return {self.output: self.predict(variables, {**batch, "image": image})[self.output]}
        if self.encoder == "patches":
            return {self.output: patches(image, batch["_index"])}
        assert callable(self.encoder)
        return {self.output: self.encoder(image)}  # pyright: ignore[reportReturnType]


def neighbours_top1(train: np.ndarray, labels: np.ndarray, test: np.ndarray, k: int) -> np.ndarray:
    """The most frequent label of the ``k`` nearest rows by Euclidean distance, (M,); of equally
    frequent ones the smallest. Equal distances: the earlier row."""
    if k > len(train):
        raise FitError(f"k={k}: there are {len(train)} training records")
    norm = np.square(train).sum(1)
    found = np.empty(len(test), np.int64)
    for rows in blocks(len(test), len(train)):
        near = norm - 2 * (test[rows] @ train.T)
        near = np.argsort(near, axis=1, kind="stable")[:, :k]
        votes = np.zeros((len(near), int(labels.max()) + 1), np.int64)
        np.add.at(votes, (np.arange(len(near))[:, None], labels[near]), 1)
        found[rows] = votes.argmax(1)
    return found


@dataclasses.dataclass(frozen=True)
class ResizeNormalize:
    """``top1`` of neighbours for every encoder, size and normalisation.

    Yields ``<encoder>_<size>_<normalisation>_top1``, where the size is ``native`` or a number of
    px, ``<encoder>_<normalisation>_delta``, the largest size's less the native one's where both
    are asked for, and the counts of ``vision.evaluators.labelled``; then the figure ``sizes``.

    Attributes:
      train: who votes; images as they are stored, numbers of any range, all of one size.
      test: what is measured.
      sizes: in px; 0 for as they are.
      normalisations: ``divide`` (by ``divisor``), ``standardise`` (each channel, by ``train``),
        ``min_max`` (each channel's least and greatest value in ``train`` become 0 and 1).
      encoders: ``tower`` (what ``predict`` gives), ``image_stats``, ``mosaiks``.
      divisor: 255 of 8 bits, 10,000 of reflectances.
      k: voters.
      filters: of ``mosaiks``.
      gaussian: whether those are drawn, rather than cut out of ``train``.
      seed: of drawn ones.
      output: name of the features (B, D) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
    """

    train: EvaluationData
    test: EvaluationData
    sizes: tuple[int, ...] = (0, 224)
    normalisations: tuple[str, ...] = ("divide", "standardise")
    encoders: tuple[str, ...] = ENCODERS
    divisor: float = 255.0
    k: int = 5
    filters: int = 512
    gaussian: bool = False
    seed: int = 0
    output: str = "embedding"
    label: str = "label"

    def __post_init__(self) -> None:
        for name, valid in (("normalisations", NORMALISATIONS), ("encoders", ENCODERS)):
            given = getattr(self, name)
            if not given or set(given) - set(valid):
                raise ValueError(f"{name}={given}: at least one of {', '.join(valid)}")
        if not self.sizes or min(self.sizes) < 0:
            raise ValueError(f"sizes={self.sizes}: at least one, 0 (as they are) or positive")
        if self.k < 1 or self.filters < 2 or not self.divisor > 0:
            raise ValueError(
                f"k={self.k}, filters={self.filters}, divisor={self.divisor}: 1, 2, above 0"
            )

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads both once for every cell of the grid, and ``train`` once more.

        Raises:
          DataError: no records with labels.
          FitError: fewer training records than ``k``.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        one = np.ones(1, np.float32)
        stats = Prepared(predict, self.output, 0, 0 * one, one, image_stats)
        whole = self._read(stats, ctx, self.train), self._read(stats, ctx, self.test)
        mean, deviation, least, greatest = np.split(whole[0].x.astype(np.float64), 4, axis=1)
        centre = mean.mean(0)
        apart = np.sqrt((deviation**2 + mean**2).mean(0) - centre**2)
        numbers = {
            "divide": (0 * centre, np.full_like(centre, self.divisor)),
            "standardise": (centre, np.maximum(apart, 1e-6)),
            "min_max": (least.min(0), np.maximum(greatest.max(0) - least.min(0), 1e-6)),
        }
        lines = []
        for encoder, normalisation in itertools.product(self.encoders, self.normalisations):
            shift, scale = (each.astype(np.float32) for each in numbers[normalisation])
            found: dict[int, float] = {}
            for size in self.sizes:
                plain = Prepared(predict, self.output, size, shift, scale)
                asked = self._encoded(encoder, plain, ctx, len(centre))
                train, test = (self._read(asked, ctx, each) for each in (self.train, self.test))
                found[size] = self._top1(encoder, train, test)
                name = f"{size}px" if size else "native"
                yield f"{encoder}_{name}_{normalisation}_top1", found[size]
            if 0 in found and len(found) > 1:
                yield f"{encoder}_{normalisation}_delta", found[max(found)] - found[0]
            sizes = sorted(found)
            values = np.asarray([found[size] for size in sizes])
            lines.append(Line(f"{encoder}, {normalisation}", np.asarray(sizes, float), values))
        yield from counts(len(whole[1].x) + whole[1].nonfinite, *whole)
        yield "sizes", Curve(tuple(lines), "px, 0 for as they are", "top-1 of neighbours")

    def _read(self, asked: Prepared, ctx: EvalContext, data: EvaluationData) -> Labelled:
        return labelled(asked, ctx, data, self.output, self.label)

    def _encoded(self, encoder: str, asked: Prepared, ctx: EvalContext, channels: int) -> Prepared:
        if encoder == "tower":
            return asked
        if encoder == "image_stats":
            return dataclasses.replace(asked, encoder=image_stats)
        if self.gaussian:
            made = Mosaiks.gaussian(channels, self.filters, self.seed)
        else:
            cut = self._read(dataclasses.replace(asked, encoder="patches"), ctx, self.train).x
            made = Mosaiks.of_patches(cut[spread(self.filters, len(cut))], channels)
        return dataclasses.replace(asked, encoder=made)

    def _top1(self, encoder: str, train: Labelled, test: Labelled) -> float:
        x, y = train.x.astype(np.float64), test.x.astype(np.float64)
        if encoder != "tower":
            centre, scale = x.mean(0), x.std(0)
            scale = np.where(scale > 1e-12, scale, 1.0)
            x, y = (x - centre) / scale, (y - centre) / scale
        said = neighbours_top1(x, train.labels, y, self.k)
        return float(np.sum(said == test.labels)) / (len(y) + test.nonfinite)
