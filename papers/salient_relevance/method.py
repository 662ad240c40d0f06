"""Salient relevance: context-aware saliency of a relevance map instead of its single pixels.

Li et al., Beyond Saliency: Understanding Convolutional Neural Networks from Saliency Prediction on
Layer-Wise Relevance Propagation, 2019. Headline: qualitative maps of AlexNet and VGG-16, no number.

First the relevance of every pixel for a class is computed by layer-wise relevance propagation
(``vision.blocks.relevance``): z+ in dense layers, epsilon in convolutions, winner takes
all in max pooling, identity through ReLU. Its absolute value, scaled to 0..1, is an image, whose
saliency is computed (Goferman et al., Context-Aware Saliency Detection, 2010): with patches p_i
around pixels i at several scales of the image,

    d(i, j) = d_value(p_i, p_j) / (1 + 3 d_position(i, j)),      both distances in 0..1,
    S_i     = 1 - exp(-(1 / K) sum of the K smallest d(i, .)),   mean over scales,

so that a patch is salient if it differs even from the most similar ones; similar patches nearby
reduce its saliency more than distant ones. It is kept near the foci, where S > 0.8 max S, and
attenuated away from them: S_i (1 - d_foci(i)).

Differences: the map is first resized to ``side_px``, since all pairs of patches are compared (the
paper's implementation of this part is not public); the foci are relative to the maximum of S, since
S itself cannot reach 0.8: with d in 0..1 it is at most 1 - 1/e.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from vision.blocks.relevance import Lrp, magnitude
from vision.config.ranges import Ge, Gt, Le, Lt, NonEmpty, Odd, Positive, checked
from vision.evaluators.attribution import Asked


@dataclasses.dataclass(frozen=True)
class Relevance:
    """Mean of |R| over channels, scaled to 0..1: a map for ``vision.evaluators.attribution``.

    Attributes:
      rules: of layer-wise relevance propagation.
    """

    rules: Lrp = Lrp(dense="alpha_beta")  # noqa: RUF009 - frozen

    def __call__(self, asked: Asked, images: jax.Array) -> jax.Array:
        return self.heat(asked, images).mean(-1)

    def heat(self, asked: Asked, images: jax.Array) -> jax.Array:
        """(B, H, W, C) in 0..1."""
        return magnitude(asked, images, self.rules)


@dataclasses.dataclass(frozen=True)
@checked
class SalientRelevance:
    """Context-aware saliency of a relevance map.

    Attributes:
      relevance: the relevance map.
      side_px: the map is reduced so that its longer side is at most this.
      patch_px: side of a patch.
      scales: sizes at which patches are compared, as shares of the map's size.
      nearest: K.
      foci: threshold of the foci, as a share of the maximal saliency.
    """

    relevance: Relevance = Relevance()
    side_px: Annotated[int, Ge(4)] = 48
    patch_px: Odd = 7
    scales: NonEmpty[tuple[Annotated[float, Gt(0), Le(1)], ...]] = (1.0, 0.8, 0.5, 0.3)
    nearest: Positive[int] = 64
    foci: Annotated[float, Gt(0), Lt(1)] = 0.8

    def __call__(self, asked: Asked, images: jax.Array) -> jax.Array:
        heat = self.relevance.heat(asked, images)
        height, width = heat.shape[1:3]
        shrink = min(1.0, self.side_px / max(height, width))
        size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
        small = resized(heat, size)
        saliency = jax.lax.map(self.saliency, small)
        return jnp.maximum(resized(saliency[..., None], (height, width))[..., 0], 0)

    def saliency(self, image: jax.Array) -> jax.Array:
        """(H, W) in 0..1 of an image (H, W, C)."""
        height, width = image.shape[:2]
        total = jnp.zeros((height, width))
        for scale in self.scales:
            size = (max(2, round(height * scale)), max(2, round(width * scale)))
            at_scale = self._saliency_at_scale(resized(image[None], size)[0])
            total += resized(at_scale[None, ..., None], (height, width))[0, ..., 0]
        saliency = total / len(self.scales)
        pixel_distances = jnp.asarray(distances(height, width)).reshape(-1, height, width)
        focus = (saliency >= self.foci * saliency.max()).reshape(-1)
        nearest = jnp.where(focus[:, None, None], pixel_distances, jnp.inf).min(0)
        return saliency * (1 - nearest)

    def _saliency_at_scale(self, image: jax.Array) -> jax.Array:
        """S of one scale, (h, w)."""
        height, width, _ = image.shape
        radius = self.patch_px // 2
        padded = jnp.pad(image, ((radius, radius), (radius, radius), (0, 0)), mode="symmetric")
        shifts = np.ndindex(self.patch_px, self.patch_px)
        patches = jnp.concatenate([padded[i : i + height, j : j + width] for i, j in shifts], -1)
        patches = patches.reshape(height * width, -1)
        squared_norms = (patches**2).sum(-1)
        squared_distances = squared_norms[:, None] + squared_norms[None] - 2 * patches @ patches.T
        value_distance = jnp.sqrt(jnp.maximum(squared_distances, 0))
        value_distance = value_distance / jnp.where(
            value_distance.max() > 0, value_distance.max(), 1
        )
        dissimilarity = value_distance / (1 + 3 * jnp.asarray(distances(height, width)))
        # A patch is not compared with itself.
        dissimilarity = jnp.where(jnp.eye(len(dissimilarity), dtype=bool), jnp.inf, dissimilarity)
        count = min(self.nearest, len(dissimilarity) - 1)
        smallest = -jax.lax.top_k(-dissimilarity, count)[0]
        return (1 - jnp.exp(-smallest.mean(-1))).reshape(height, width)


def distances(height: int, width: int) -> np.ndarray:
    """Distances between all pixels, float32 (h w, h w), scaled so that the diagonal is 1."""
    pixels = np.asarray(list(np.ndindex(height, width)), np.float32)
    norms = np.linalg.norm(pixels[:, None] - pixels[None], axis=-1)
    return norms / max(norms.max(), 1)


def resized(images: jax.Array, size: tuple[int, int]) -> jax.Array:
    """(B, H, W, C) resized bilinearly, with antialiasing when reduced."""
    return jax.image.resize(images, (len(images), *size, images.shape[-1]), "bilinear")
