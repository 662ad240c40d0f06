"""Preprocessing and encoders of images, untrained ones too (channel statistics, MOSAIKS); a vote
of nearest neighbours on what they give.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from vision.evaluate.evaluator import Predict
from vision.metrics.arrays import blocks
from vision.probes.linear import FitError
from vision.train.objective import Batch, Variables

_SIDE = 3  # of filters


def image_stats(image: jax.Array) -> jax.Array:
    """Images (B, h, w, C) to (B, 4 C): mean, deviation, minimum, maximum of each channel."""
    parts = [getattr(image, name)((1, 2)) for name in ("mean", "std", "min", "max")]
    return jnp.concatenate(parts, 1)


def patches(image: jax.Array, index: jax.Array) -> jax.Array:
    """One 3x3 patch of each image (B, h, w, C), at a position computed from its index: (B, 9 C)."""
    rows, columns = (side - _SIDE + 1 for side in image.shape[1:3])
    positions = (index * 7919) % (rows * columns)

    def cut(image: jax.Array, positions: jax.Array) -> jax.Array:
        start = (positions // columns, positions % columns, 0)
        return jax.lax.dynamic_slice(image, start, (_SIDE, _SIDE, image.shape[2]))

    return jax.vmap(cut)(image, positions).reshape(len(image), -1)


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
        rng = np.random.default_rng(seed)
        kernel = rng.normal(size=(_SIDE, _SIDE, channels, filters))
        return cls(kernel.astype(np.float32), np.zeros(filters, np.float32))

    @classmethod
    def of_patches(cls, patches: np.ndarray, channels: int, floor: float = 1e-3) -> Mosaiks:
        """Filters from patches (F, 9 C), decorrelated by ZCA whitening.

        ``floor`` times the mean variance is added to every variance, to bound the gain in
        directions of little variance.
        """
        mean = patches.mean(0)
        centred = patches.astype(np.float64) - mean
        covariance = centred.T @ centred / len(patches)
        values, vectors = np.linalg.eigh(covariance)
        level = floor * max(values.mean(), 1e-12)
        whiten = (vectors / np.sqrt(np.maximum(values, 0) + level)) @ vectors.T
        filters = centred @ whiten
        filters /= np.maximum(np.linalg.norm(filters, axis=1, keepdims=True), 1e-12)
        # Filters apply to whitened patches: the whitening is folded into kernel and bias.
        kernel, bias = filters @ whiten, -(filters @ whiten) @ mean
        shaped = kernel.T.reshape(_SIDE, _SIDE, channels, len(patches))
        return cls(shaped.astype(np.float32), bias.astype(np.float32))

    def __call__(self, image: jax.Array) -> jax.Array:
        """Images (B, h, w, C) to (B, 2 F)."""
        layout = ("NHWC", "HWIO", "NHWC")
        responses = jax.lax.conv_general_dilated(
            image, jnp.asarray(self.kernel), (1, 1), "VALID", dimension_numbers=layout
        )
        responses += jnp.asarray(self.bias)
        both = [jnp.maximum(responses, 0).mean((1, 2)), jnp.maximum(-responses, 0).mean((1, 2))]
        return jnp.concatenate(both, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class PreprocessedEncoder:
    """Images resized to ``size`` px (0: not resized), then ``(x - shift) / scale``, and encoded.

    Attributes:
      predict: of the run.
      size: side in px, or 0.
      shift, scale: float32 (C,) or (1,).
      encoder: None for the ``embedding`` of ``predict``, ``"patches"``, or a function of images.
    """

    predict: Predict
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
            return {"embedding": self.predict(variables, {**batch, "image": image})["embedding"]}
        if self.encoder == "patches":
            return {"embedding": patches(image, batch["_index"])}
        assert callable(self.encoder)
        return {"embedding": self.encoder(image)}  # pyright: ignore[reportReturnType]


def channel_normalisers(stats: np.ndarray, divisor: float) -> dict[str, tuple[np.ndarray, ...]]:
    """Name of a normalisation to shift and scale, float64 (C,), from ``image_stats`` (N, 4 C)."""
    mean, deviation, minimum, maximum = np.split(stats.astype(np.float64), 4, axis=1)
    centre = mean.mean(0)
    std = np.sqrt((deviation**2 + mean**2).mean(0) - centre**2)
    return {
        "divide": (0 * centre, np.full_like(centre, divisor)),
        "standardise": (centre, np.maximum(std, 1e-6)),
        "min_max": (minimum.min(0), np.maximum(maximum.max(0) - minimum.min(0), 1e-6)),
    }


def standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with every column's mean and deviation in ``train`` removed; constant ones are 0."""
    centre, scale = train.mean(0), train.std(0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    return (train - centre) / scale, (test - centre) / scale


def neighbours_top1(train: np.ndarray, labels: np.ndarray, test: np.ndarray, k: int) -> np.ndarray:
    """The most frequent label of the ``k`` nearest rows by Euclidean distance, int64 (M,).

    Of equally frequent labels the smallest; of equal distances the earlier row.
    """
    if k > len(train):
        raise FitError(f"k={k}: there are {len(train)} training records")
    norm = np.square(train).sum(1)
    predicted = np.empty(len(test), np.int64)
    for rows in blocks(len(test), len(train)):
        distances = norm - 2 * (test[rows] @ train.T)
        distances = np.argsort(distances, axis=1, kind="stable")[:, :k]
        votes = np.zeros((len(distances), int(labels.max()) + 1), np.int64)
        np.add.at(votes, (np.arange(len(distances))[:, None], labels[distances]), 1)
        predicted[rows] = votes.argmax(1)
    return predicted
