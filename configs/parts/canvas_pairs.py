"""Canvases of digits with captions of words such as "three at the top left", and a dual encoder.

A caption says the digits of a canvas, each with its place: 40 words, and as many more for every
other language. The image tower has one hidden layer on the pixels, the text tower one on the words,
as a bag; both give unit vectors of 32. It is trained in seconds: for claims.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.parts.canvases import CELLS, CLASSES, Split, canvases
from configs.parts.digit_mlp import Weights, trained
from vision.blocks.contrast import Softmax
from vision.blocks.sharded_contrast import Modality, compare
from vision.blocks.similarity import Dot, unit

WORDS = CELLS * CLASSES
HIDDEN, WIDTH, SCALE, BATCH = 128, 32, 20.0, 128


@dataclasses.dataclass(frozen=True)
class Pairs:
    """N canvases and captions.

    Attributes:
      image: float32 (N, 256), pixels in 0..1.
      words: float32 (N, 40), 1 for a word of the caption.
      digits: int (N, 4), the digit of every cell, -1 for none.
    """

    image: np.ndarray
    words: np.ndarray
    digits: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: np.ndarray) -> Pairs:
        return Pairs(self.image[rows], self.words[rows], self.digits[rows])


def words_of(digits: np.ndarray) -> np.ndarray:
    """float32 (N, 40) of digits (N, 4)."""
    return (digits[..., None] == np.arange(CLASSES)).reshape(len(digits), -1).astype(np.float32)


def pairs(split: Split, count: int, seed: int) -> Pairs:
    """Pairs of canvases with two or three digits, no two with the same caption."""
    made = canvases(split, 1.0, 2 * count, seed)
    first = np.sort(np.unique(made.digits, axis=0, return_index=True)[1])[:count]
    assert len(first) == count
    digits = made.digits[first]
    return Pairs(made.cells[first].reshape(count, -1), words_of(digits), digits)


def init_weights(seed: int, languages: int = 1) -> Weights:
    """Towers before training."""
    rng = np.random.default_rng(seed)

    def tower(inputs: int, size: float) -> Weights:
        kernels = {"first": (inputs, HIDDEN, size), "second": (HIDDEN, WIDTH, HIDDEN**-0.5)}
        return {
            name: jnp.asarray(rng.normal(0, scale, (rows, columns)).astype(np.float32))
            for name, (rows, columns, scale) in kernels.items()
        }

    return {"image": tower(256, 0.1), "text": tower(languages * WORDS, 1.0)}


def embedded(tower: Weights, x: jax.Array) -> jax.Array:
    """Unit vectors (N, 32)."""
    return unit(jax.nn.relu(x @ tower["first"]) @ tower["second"])


def contrast(w: Weights, data: tuple[jax.Array, ...], key: jax.Array, criterion: Any) -> jax.Array:
    """The loss of a batch of rows drawn at random from ``data``, images and words."""
    rows = jax.random.randint(key, (BATCH,), 0, len(data[0]))
    image, text = (
        Modality(
            {"embedding": embedded(w[name], x[rows])}, jnp.arange(BATCH), jnp.ones(BATCH, bool)
        )
        for name, x in zip(("image", "text"), data, strict=True)
    )
    scale = SCALE if isinstance(criterion, Softmax) else 1.0  # a margin is one of cosines
    coefficients = jnp.float32(scale), jnp.float32(0)
    return compare(criterion, Dot(), coefficients, image, text).loss


@functools.cache  # one program for all seeds
def loss_of(criterion: Any = None) -> Callable[..., jax.Array]:
    """``contrast`` by a criterion, CLIP's by default."""
    return functools.partial(contrast, criterion=criterion or Softmax())


def learned(
    seed: int, image: np.ndarray, words: np.ndarray, steps: int = 400, criterion: Any = None
) -> Weights:
    """Towers after steps on batches of 128 pairs; words (N, 40 or more)."""
    start = init_weights(seed, words.shape[1] // WORDS)
    data = (jnp.asarray(image), jnp.asarray(words, jnp.float32))
    return trained(start, loss_of(criterion), data, steps, 3e-3)


def similarities(w: Weights, image: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Cosines (N, M) of images (N, 256) and captions (M, words)."""
    x, y = (embedded(w[n], jnp.asarray(of)) for n, of in (("image", image), ("text", words)))
    return np.asarray(x @ y.T)


def recall(found: np.ndarray) -> float:
    """R@1 of rows, where row i belongs to column i."""
    return float(np.mean(found.argmax(1) == np.arange(len(found))))
