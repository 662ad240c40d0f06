"""Salient relevance: what stands out in a map of relevance, instead of its single pixels.

Li et al., Beyond Saliency: Understanding Convolutional Neural Networks from Saliency Prediction on
Layer-Wise Relevance Propagation, 2019. Headline: pictures of AlexNet and VGG-16; no number.

First the relevance of every pixel for a class by layer-wise relevance propagation
(``papers.salient_relevance.relevance``): z+ in dense layers, epsilon in convolutions, the winner in
max pooling, everything through ReLU. Its absolute value, stretched to 0..1, is an image, and of
that image the salience (Goferman et al., Context-Aware Saliency Detection, 2010): with patches p_i
around places i at several scales of the image,

    d(i, j) = d_value(p_i, p_j) / (1 + 3 d_position(i, j)),      both distances in 0..1,
    S_i     = 1 - exp(-(1 / K) sum of the K smallest d(i, .)),   mean over scales,

so a patch stands out that is unlike even those that are most like it; those like it far away count
less against it than those nearby. Near the foci, where S > 0.8 of its largest value, it stays, and
away from them it fades: S_i (1 - d_foci(i)).

Differences: the map is first brought to ``side_px``, since patches are compared each with each (the
paper's own implementation of this part is not public); the foci are relative to the largest S,
which cannot reach 0.8: with d in 0..1 it is at most 1 - 1/e.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from papers.salient_relevance.relevance import Lrp, relevance
from vision.evaluators.attribution import Asked


@dataclasses.dataclass(frozen=True)
class Relevance:
    """|R| over channels, stretched to 0..1: a map for ``vision.evaluators.attribution``.

    Attributes:
      rules: of propagation, per kind of layer.
    """

    rules: Lrp = Lrp(dense="alpha_beta")  # noqa: RUF009 - frozen

    def __call__(self, asked: Asked, images: jax.Array) -> jax.Array:
        return self.heat(asked, images).mean(-1)

    def heat(self, asked: Asked, images: jax.Array) -> jax.Array:
        """(B, H, W, C) in 0..1."""
        ones = jnp.ones((len(images), 1), jnp.float32)
        found = jnp.abs(relevance(lambda x: asked(x)[:, None], images, ones, self.rules))
        axes = (1, 2, 3)
        low, high = found.min(axes, keepdims=True), found.max(axes, keepdims=True)
        return (found - low) / jnp.where(high > low, high - low, 1)


@dataclasses.dataclass(frozen=True)
class SalientRelevance:
    """Context-aware salience of the map of relevance.

    Attributes:
      relevance: the map.
      side_px: the map's longer side is brought to this, if it is longer.
      patch_px: side of a patch.
      scales: sizes at which patches are compared, as shares of the map's.
      nearest: K.
      foci: share of the largest salience.
    """

    relevance: Relevance = Relevance()
    side_px: int = 48
    patch_px: int = 7
    scales: tuple[float, ...] = (1.0, 0.8, 0.5, 0.3)
    nearest: int = 64
    foci: float = 0.8

    def __post_init__(self) -> None:
        if self.side_px < 4 or self.patch_px < 1 or self.patch_px % 2 == 0 or self.nearest < 1:
            raise ValueError("side_px: 4 or more; patch_px: odd; nearest: 1 or more")
        if not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise ValueError(f"scales={self.scales}: at least one, above 0 and at most 1")
        if not 0 < self.foci < 1:
            raise ValueError(f"foci={self.foci}: between 0 and 1")

    def __call__(self, asked: Asked, images: jax.Array) -> jax.Array:
        heat = self.relevance.heat(asked, images)
        height, width = heat.shape[1:3]
        shrink = min(1.0, self.side_px / max(height, width))
        size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
        small = resized(heat, size)
        found = jax.lax.map(self.salience, small)
        return jnp.maximum(resized(found[..., None], (height, width))[..., 0], 0)

    def salience(self, image: jax.Array) -> jax.Array:
        """(H, W) in 0..1 of an image (H, W, C)."""
        height, width = image.shape[:2]
        total = jnp.zeros((height, width))
        for scale in self.scales:
            size = (max(2, round(height * scale)), max(2, round(width * scale)))
            unlike = self._unlike(resized(image[None], size)[0])
            total += resized(unlike[None, ..., None], (height, width))[0, ..., 0]
        found = total / len(self.scales)
        away = jnp.asarray(distances(height, width)).reshape(-1, height, width)
        focus = (found >= self.foci * found.max()).reshape(-1)
        nearest = jnp.where(focus[:, None, None], away, jnp.inf).min(0)
        return found * (1 - nearest)

    def _unlike(self, image: jax.Array) -> jax.Array:
        """S of one scale, (h, w)."""
        height, width, _ = image.shape
        reach = self.patch_px // 2
        wide = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
        shifts = np.ndindex(self.patch_px, self.patch_px)
        patches = jnp.concatenate([wide[i : i + height, j : j + width] for i, j in shifts], -1)
        patches = patches.reshape(height * width, -1)
        squares = (patches**2).sum(-1)
        square = squares[:, None] + squares[None] - 2 * patches @ patches.T
        value = jnp.sqrt(jnp.maximum(square, 0))
        value = value / jnp.where(value.max() > 0, value.max(), 1)
        apart = value / (1 + 3 * jnp.asarray(distances(height, width)))
        # A place is not compared with itself.
        apart = jnp.where(jnp.eye(len(apart), dtype=bool), jnp.inf, apart)
        count = min(self.nearest, len(apart) - 1)
        smallest = -jax.lax.top_k(-apart, count)[0]
        return (1 - jnp.exp(-smallest.mean(-1))).reshape(height, width)


def distances(height: int, width: int) -> np.ndarray:
    """Between all places, float32 (h w, h w), 1 from corner to corner."""
    places = np.asarray(list(np.ndindex(height, width)), np.float32)
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    return apart / max(apart.max(), 1)


def resized(images: jax.Array, size: tuple[int, int]) -> jax.Array:
    """(B, H, W, C) to another size, smoothed where smaller."""
    return jax.image.resize(images, (len(images), *size, images.shape[-1]), "bilinear")
