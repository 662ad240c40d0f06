"""MuSc: unlabelled images of one kind score each other, and what has no match in most is odd.

Li, Huang, Xue and Zhou, MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation with
Mutual Scoring of the Unlabeled Images, 2024. Headline: on MVTec AD image AUROC 97.8, pixel AUROC
97.3, PRO 93.8.

*Local neighbourhood aggregation* (LNAMD): the maps (h, w, C) of a frozen tower at a site are
normalised over all their numbers, averaged over neighbourhoods of r x r cells, and every cell is
scaled to length 1: z_im of image i, cell m.

*Mutual scoring* (MSM): a_m(i, j) = min_n |z_im - z_jn| for every other image j; the score of the
cell is the mean of the lowest 30 % of these. The map of an image is the mean over sites and r, and
its score the map's largest value.

*Re-scoring by neighbours* (RsCIN): with the scores s on 0..1 and W_ij the cosine of the images'
embeddings, of which each row keeps its k largest, itself among them, and is divided by its sum,
s' = mean over k of W_k s. Images are as odd as those that they are like.

Facts of the authors' code beside the paper: the r x r C numbers of a neighbourhood are pooled to C
by an adaptive mean, which is the mean of each channel over the neighbourhood, cells outside of
the map being zero; 30 % of N - 1 is rounded down; maps are enlarged bilinearly with their corners
on the images' corners, and the image's score is taken after that.

Differences: the nearest cell is found by its cosine and its distance then taken from the
difference, which loses no digits where two cells are alike (they take the distance from products).
PRO is exact, and interpolated at the limit; theirs has 200 thresholds. Maps need not be square,
and convolutional ones will do; those of several sites are enlarged before they are averaged, so
that they can have several sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from vision.blocks.similarity import unit


def aggregated(maps: jax.Array, neighbourhood: int) -> jax.Array:
    """Unit vectors (N, h w, C) of the cells of maps (N, h, w, C).

    Args:
      maps: floats; every image is normalised by itself.
      neighbourhood: r, odd.

    Raises:
      ValueError: an even neighbourhood.
    """
    if neighbourhood < 1 or neighbourhood % 2 == 0:
        raise ValueError(f"neighbourhood={neighbourhood}; it must be odd: 1, 3, 5 ...")
    x = maps.astype(jnp.float32)
    mean = x.mean((1, 2, 3), keepdims=True)
    x = (x - mean) / jnp.sqrt(jnp.var(x, (1, 2, 3), keepdims=True) + 1e-5)
    x = nn.avg_pool(x, (neighbourhood, neighbourhood), padding="SAME")
    return unit(x.reshape(len(x), -1, x.shape[-1]))


def kept(images: int, share: float) -> int:
    """How many of the other images' distances are averaged, rounded down.

    Raises:
      ValueError: none are.
    """
    count = math.floor(share * (images - 1) + 1e-9)
    if count < 1:
        raise ValueError(
            f"{images} images and share={share:g}: not one of the others is kept; score at least "
            f"{math.ceil(1 / share - 1e-9) + 1} images together"
        )
    return count


def mutual_scores(z: jax.Array, share: float = 0.3) -> jax.Array:
    """Scores (N, M) of cells (N, M, C) of length 1, 0 (a match in ``share`` of the images) to 2.

    Traceable; N^2 M^2 C products, of which M^2 are held at a time.

    Raises:
      ValueError: too few images; see ``kept``.
    """
    count, images = kept(len(z), share), jnp.arange(len(z))

    def of(i: jax.Array) -> jax.Array:
        def nearest(j: jax.Array) -> jax.Array:
            cosines = jnp.matmul(z[i], z[j].T, precision=jax.lax.Precision.HIGHEST)
            closest = z[j][jnp.argmax(cosines, 1)]
            return jnp.sqrt(jnp.square(z[i] - closest).sum(-1))

        # An image has no say about itself.
        distances = jnp.where((images == i)[:, None], jnp.inf, jax.lax.map(nearest, images))
        return jnp.sort(distances, 0)[:count].mean(0)

    return jax.lax.map(of, images)


def enlarged(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Maps (N, h, w) at (N, H, W), bilinear, corners on corners."""
    factors = (1, size[0] / maps.shape[1], size[1] / maps.shape[2])
    return np.asarray(ndimage.zoom(maps, factors, order=1))


def rescored(
    scores: np.ndarray, embeddings: np.ndarray, neighbours: Sequence[int] = (1, 2, 3)
) -> np.ndarray:
    """Image scores (N,) in 0..1 by those of the images that are like them.

    Args:
      scores: (N,); equal ones all become 0.
      embeddings: (N, D) of the images.
      neighbours: how many images count, the image itself among them; means over all.

    Raises:
      ValueError: none, or more than there are images.
    """
    if not neighbours or min(neighbours) < 1 or max(neighbours) > len(scores):
        raise ValueError(f"neighbours={tuple(neighbours)}: each must be 1..{len(scores)}, an image")
    spread = np.ptp(scores)
    s = (scores - scores.min()) / spread if spread > 0 else np.zeros(len(scores))
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    x = embeddings / np.where(length > 0, length, 1)
    cosines = x @ x.T
    np.fill_diagonal(cosines, 1)
    order = np.argsort(-cosines, 1, kind="stable")
    means = []
    for k in neighbours:
        weights = np.take_along_axis(cosines, order[:, :k], 1)
        means.append((weights * s[order[:, :k]]).sum(1) / weights.sum(1))
    return np.mean(means, 0)
