"""Features of images that nothing was trained for: histograms of colours and of visual words."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vision.evaluate.evaluator import Predict
from vision.probes.kmeans import lloyd, seeds
from vision.train.objective import Batch, Variables

COLOUR, WORDS, PATCHES = "colour_histogram", "visual_words", "patches"


def colour_histogram(images: jax.Array, bins: int = 8) -> jax.Array:
    """Shares of pixels by bin of each channel, float32 (B, C bins), of images (B, H, W, C) in
    0..1; values outside are in the first and the last bin."""
    place = jnp.clip((images * bins).astype(jnp.int32), 0, bins - 1)
    shares = jax.nn.one_hot(place, bins).mean((1, 2))
    return shares.reshape(len(images), -1)


def patches_of(images: jax.Array, size: int, stride: int) -> jax.Array:
    """Patches (B, n, size^2) of the mean channel of images (B, H, W, C) in 0..1, each of mean 0 and
    of variance 1 where it has contrast (Coates and Ng's 10 / 255^2 is added to the variance)."""
    grey = images.mean(-1, keepdims=True)
    found = jax.lax.conv_general_dilated_patches(
        grey, (size, size), (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = found.reshape(len(images), -1, size * size)
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 10 / 255**2)


def word_counts(images: jax.Array, centres: jax.Array, size: int, stride: int) -> jax.Array:
    """Square roots of the shares of visual words, float32 (B, 5 K): of the whole image, then of its
    quarters, in which a map of patches with an odd side is cut below its middle.

    Args:
      images: (B, H, W, C) in 0..1.
      centres: (K, size^2), of ``codebook``.
      size: of patches, in pixels.
      stride: between them.
    """
    x = patches_of(images, size, stride)
    closeness = 2 * x @ centres.T - jnp.sum(centres * centres, -1)
    rows, columns = ((side - size) // stride + 1 for side in images.shape[1:3])
    words = jax.nn.one_hot(closeness.argmax(-1), len(centres))
    words = words.reshape(len(images), rows, columns, -1)
    top, left = rows // 2, columns // 2
    parts = [words, words[:, :top, :left], words[:, :top, left:], words[:, top:, :left]]
    shares = [part.mean((1, 2)) for part in (*parts, words[:, top:, left:])]
    return jnp.sqrt(jnp.concatenate(shares, -1))


def codebook(patches: jax.Array, words: int, key: jax.Array) -> jax.Array:
    """Centres (K, D) of patches (N, D) by k-means, 30 iterations from k-means++ seeds."""
    return lloyd(patches, seeds(patches, words, key), 30).centres


@dataclasses.dataclass(frozen=True, eq=False)
class Described:
    """``predict``, with ``colour_histogram`` of the images and, from them, either ``visual_words``
    by a codebook or, where there is none yet, ``patches`` (B, n, D) for one.

    Attributes:
      predict: of the tower.
      low, high: of the pixels of ``image``, which may be numbers per channel.
      size: of patches, in pixels.
      stride: between them.
      centres: the codebook (K, D).
      kept: of the patches of an image, drawn at random, where there is no codebook.
    """

    predict: Predict
    low: tuple[float, ...]
    high: tuple[float, ...]
    size: int
    stride: int
    centres: Any = None
    kept: int = 4

    def __call__(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        image = batch["image"].astype(jnp.float32)
        low, high = jnp.asarray(self.low), jnp.asarray(self.high)
        image = (image - low) / (high - low)
        if self.centres is not None:
            words = word_counts(image, jnp.asarray(self.centres), self.size, self.stride)
            more = {COLOUR: colour_histogram(image), WORDS: words}
            return {**self.predict(variables, batch), **more}
        x = patches_of(image, self.size, self.stride)

        def drawn(index: jax.Array) -> jax.Array:
            key = jax.random.fold_in(jax.random.key(0), index)
            return jax.random.randint(key, (self.kept,), 0, x.shape[1])

        rows = jax.vmap(drawn)(batch["_index"])
        return {PATCHES: jnp.take_along_axis(x, rows[..., None], 1)}
